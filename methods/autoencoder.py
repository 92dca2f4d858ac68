"""Single auto-encoders, the backbones of DDAD (Cai et al. 2022, 2023) and what it is compared with.

AE; AE-U: Mao et al., "Abnormality Detection in Chest X-Ray Images Using Uncertainty Prediction Autoencoders", MICCAI
2020; MemAE: Gong et al., "Memorizing Normality to Detect Anomaly", ICCV 2019. All three are built and trained as in
DDAD's released program.

Deviations from the released program; none changes a score of given weights:
- Images are in [0, 1] outside the networks, which see [−1, 1]; the score is of the latter, as it is there.
  Reconstructions are clipped to [0, 1] to be looked at, not to be scored.
- Seeds fix weights and order; the final epoch is used, never the best on the test set.
"""

import torch
from torch.nn.functional import mse_loss

from configs.autoencoder import AutoEncoderConfig
from dataloader.loader import Batch
from methods.base import Method, Scores, lr_scheduler
from models.autoencoder import AutoEncoder, Decoded, MemoryAutoEncoder, UncertainAutoEncoder

BETAS = (0.5, 0.999)  # of Adam


def build_network(backbone: str, config: AutoEncoderConfig) -> AutoEncoder:
    """``ae``, ``aeu`` or ``memae`` with the configured sizes."""
    sizes = (config.image_size, config.multiplier, config.latent_size, config.hidden_size)
    if backbone == "memae":
        return MemoryAutoEncoder(*sizes, config.num_slots, config.latent_threshold)
    return {"ae": AutoEncoder, "aeu": UncertainAutoEncoder}[backbone](*sizes)


def to_network(images: torch.Tensor) -> torch.Tensor:
    """Images in [0, 1] in the range that the networks see, [−1, 1]."""
    return 2 * images - 1


def to_images(x: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`to_network`, clipped: the auto-encoders end without an activation."""
    return ((x + 1) / 2).clamp(0, 1)


def losses(out: Decoded, x: torch.Tensor, entropy_weight: float) -> dict[str, torch.Tensor]:
    """``loss``, which is minimised, and its parts as they are reported; x is (B, 1, S, S) in [−1, 1]."""
    reconstruction = mse_loss(out.x_hat, x)
    if out.log_var is not None:
        log_variance = out.log_var.mean()
        loss = pixel_errors(out, x).mean() + log_variance
        return {"loss": loss, "reconstruction": reconstruction, "log_variance": log_variance}
    if out.weights is not None:
        entropy = -(out.weights * (out.weights + 1e-12).log()).sum(1).mean()
        loss = reconstruction + entropy_weight * entropy
        return {"loss": loss, "reconstruction": reconstruction, "entropy": entropy}
    return {"loss": reconstruction}


def pixel_errors(out: Decoded, x: torch.Tensor) -> torch.Tensor:
    """The squared error of every pixel, AE-U's divided by its variance: (B, 1, S, S)."""
    error = (out.x_hat - x).square()
    return error if out.log_var is None else (-out.log_var).exp() * error


def mean_of(pixels: torch.Tensor) -> torch.Tensor:
    """An image score as the contract wants it: (B, 1, S, S) → (B,) float64 on the CPU."""
    return pixels.mean((1, 2, 3)).cpu().double()


class SingleAutoEncoder(Method):
    """``ae``, ``aeu`` and ``memae``. Image score: ``reconstruction``, the mean (weighted) squared error in [−1, 1]."""

    score_names = ("reconstruction",)

    def __init__(self, config: AutoEncoderConfig):
        super().__init__(config)
        self.network = build_network(config.method, config)
        self.optimizers = {
            "network": torch.optim.Adam(self.network.parameters(), config.learning_rate, BETAS, fused=True)
        }
        self.schedulers = {"network": lr_scheduler(self.optimizers["network"], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        x = to_network(batch.images)
        terms = losses(self.decoded(x), x, self.config.entropy_weight)
        self.require_finite(**terms)
        self.update("network", {"loss": terms["loss"]}, batch)
        return terms

    def decoded(self, x: torch.Tensor) -> Decoded:
        """What the network makes of x (B, 1, S, S), computed in the configured precision, in x's."""
        with self.autocast():
            out = self.network(x)
        return Decoded(*(None if part is None else part.to(x) for part in out))

    def scores_of(self, images: torch.Tensor) -> Scores:
        x = to_network(images)
        out = self.decoded(x)
        error = pixel_errors(out, x)
        maps = {"reconstruction": error}
        return Scores(image={"reconstruction": mean_of(error)}, maps=maps, reconstruction=to_images(out.x_hat))
