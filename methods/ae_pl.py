"""AE-PL: Shvetsova et al., "Anomaly Detection in Medical Imaging With Deep Perceptual Autoencoders", IEEE Access 2021,
as Cai et al. compare with it, "MedIAnomaly: A comparative study of anomaly detection in medical images", Medical Image
Analysis 2025, whose network and settings these are.

Image and reconstruction are compared as features of a network trained on ImageNet, in training and as the score.

Deviations from the authors' program (MedIAnomaly's):
- The channels' means and variances are those of the normal training images, and a variance counts as at least
  ``variance_floor`` of the channels' mean one: a channel that radiographs hardly excite would outweigh all others. The
  program has ImageNet's, in a file.
- The map is relative to the image's features as the score is, which is its mean before it is enlarged.
- The last epoch counts, and seeds fix weights and order.
- A last batch of a single image, of which batch norm has no variance, is left out; there it is an error.
"""

import torch

from configs.ae_pl import AePlConfig
from dataloader.loader import Batch, TrainLoader
from methods.autoencoder import mean_of, to_images, to_network
from methods.base import Method, Scores, lr_scheduler
from methods.maps import upsample
from models.autoencoder import AutoEncoder
from models.features import FrozenFeatures
from system.seeding import seeded


class AePl(Method):
    """Image score: ``perceptual``, the relative mean absolute difference of normalised features."""

    score_names = ("perceptual",)

    def __init__(self, config: AePlConfig):
        super().__init__(config)
        self.network = AutoEncoder(config.image_size, config.multiplier, config.latent_size, config.hidden_size)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        (channels,) = self.features.channels.values()
        self.register_buffer("feature_mean", torch.zeros(channels))
        self.register_buffer("feature_variance", torch.ones(channels))
        self.optimizers = {"network": torch.optim.Adam(self.network.parameters(), config.learning_rate, fused=True)}
        self.schedulers = {"network": lr_scheduler(self.optimizers["network"], config)}

    @torch.no_grad()
    def start_epoch(self, loader: TrainLoader, epoch: int) -> None:
        """Before training, the channels' statistics over all training images and places."""
        if epoch > 0:
            return
        count = total = squares = 0
        for images in loader.unaugmented():
            f = self.seen(images).cpu().double()  # (B, C, h, w)
            count += f[:, 0].numel()
            total, squares = total + f.sum((0, 2, 3)), squares + f.square().sum((0, 2, 3))
        mean = total / count
        variance = squares / count - mean.square()
        self.feature_mean.copy_(mean)
        self.feature_variance.copy_(variance.clamp(min=self.config.variance_floor * variance.mean()))

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        x_hat = self.rebuilt(to_network(batch.images))
        losses = {"perceptual": self.differences(batch.images, x_hat).mean()}
        self.update("network", losses, batch)
        return losses

    def rebuilt(self, x: torch.Tensor) -> torch.Tensor:
        """What the network makes of x (B, 1, S, S), computed in the configured precision, in x's."""
        with self.autocast():
            return self.network(x).x_hat.to(x)

    def differences(self, images: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
        """Of images in [0, 1] and reconstructions in [−1, 1], relative to the images' own features.

        (B, 1, S, S) each → (B, 1, h, w), an image's mean being its loss.
        """
        f = self.normalised(images)  # (B, C, h, w)
        f_hat = self.normalised((x_hat + 1) / 2)  # not clipped, which would end the gradient
        return (f - f_hat).abs().mean(1, keepdim=True) / f.abs().mean((1, 2, 3), keepdim=True)

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Features centred and divided by their variance, as published, not by their deviation: → (B, C, h, w)."""
        mean, variance = (each[:, None, None] for each in (self.feature_mean, self.feature_variance))
        return (self.seen(images) - mean) / variance

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """The frozen network's features, computed in the configured precision, in the images': → (B, C, h, w)."""
        with self.autocast():
            (f,) = self.features(images).values()
        return f.to(images)

    def scores_of(self, images: torch.Tensor) -> Scores:
        x_hat = self.rebuilt(to_network(images))
        found = self.differences(images, x_hat)  # (B, 1, h, w)
        return Scores(
            image={"perceptual": mean_of(found)},
            maps={"perceptual": upsample(found, images.shape[-1])},
            reconstruction=to_images(x_hat),
        )
