"""GANomaly: Akcay et al., "GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training", ACCV 2018.

What an image's latent and its reconstruction's differ by is the anomaly.

Deviations from the authors' program:
- Scores are of evaluation mode: batch norm's running statistics, so that an image's score does not depend on the images
  beside it. The program scores in training mode, scales scores to [0, 1] over the test set, and keeps the best epoch on
  the test set; here the last epoch counts.
- Images are stretched to a square; the program resizes the shorter side and takes the middle (``fit=crop``).
- The map, |x − x̂|, is ours: the paper has none.
- The discriminator's cross-entropy is computed from logits.
"""

import torch
from torch.nn.functional import l1_loss, mse_loss

from configs.ganomaly import GanomalyConfig
from dataloader.loader import Batch
from methods.autoencoder import mean_of, to_images, to_network
from methods.base import Method, Scores, lr_scheduler
from methods.losses import adversarial_loss
from models.ganomaly import Encoded, Encoder, Generator, draw_weights
from system import distributed
from system.seeding import seeded


class Ganomaly(Method):
    """Image score: ``latent``, the mean squared difference of the two latents."""

    score_names = ("latent",)

    def __init__(self, config: GanomalyConfig):
        super().__init__(config)
        self.generator = Generator(config.image_size, config.base_channels, config.latent_size)
        self.discriminator = Encoder(config.image_size, config.base_channels, 1)
        self.register_buffer("redrawn", torch.zeros((), dtype=torch.long))  # how often the discriminator was
        draw_weights(self)
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), config.learning_rate, (0.5, 0.999), fused=True)
            for name, network in (("generator", self.generator), ("discriminator", self.discriminator))
        }
        self.schedulers = {name: lr_scheduler(optimizer, config) for name, optimizer in self.optimizers.items()}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        config, x = self.config, to_network(batch.images)
        out = self.encoded(x)

        # 1. what the discriminator says of both, before either learns
        real, fake = self.judged(x), self.judged(out.x_hat.detach())

        # 2. the generator learns to rebuild images, their latents and what the discriminator sees in them
        terms = {
            "features": config.feature_weight * mse_loss(self.seen(x), self.seen(out.x_hat)),
            "reconstruction": config.recon_weight * l1_loss(out.x_hat, x),
            "latent": config.latent_weight * mse_loss(out.z_hat, out.z),
        }
        losses = terms | {"generator": self.update("generator", terms, batch)}

        # 3. the discriminator learns from what it said
        verdict = (adversarial_loss(real, real=True) + adversarial_loss(fake, real=False)) / 2
        losses["discriminator"] = self.update("discriminator", {"discriminator": verdict}, batch)
        self.redraw_if_it_won(verdict)
        return losses

    def encoded(self, x: torch.Tensor) -> Encoded:
        """What the generator makes of x, computed in the configured precision, in x's."""
        with self.autocast():
            out = self.generator(x)
        return Encoded(*(part.to(x) for part in out))

    def judged(self, x: torch.Tensor) -> torch.Tensor:
        """The discriminator's logits: (B, 1, S, S) → (B, 1)."""
        return self.discriminator(x)[0].flatten(1)

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """The discriminator's features: (B, 1, S, S) → (B, C, 4, 4)."""
        return self.discriminator(x)[1]

    def redraw_if_it_won(self, loss: torch.Tensor) -> None:
        """A discriminator with nothing left to learn starts anew; its statistics and Adam's moments stay."""
        won = bool(loss < self.config.redraw_below)  # not where it is NaN
        if any(distributed.all_reduce_max(not won)):
            return
        self.redrawn += 1
        with seeded(self.config.seed, "redrawn", int(self.redrawn)):
            draw_weights(self.discriminator)

    def scores_of(self, images: torch.Tensor) -> Scores:
        x = to_network(images)
        out = self.encoded(x)
        return Scores(
            image={"latent": mean_of((out.z_hat - out.z).square())},
            maps={"latent": (x - out.x_hat).abs()},
            reconstruction=to_images(out.x_hat),
        )
