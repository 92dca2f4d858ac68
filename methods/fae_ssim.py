"""FAE-SSIM: Meissen et al., "Unsupervised Anomaly Localization with Structural Feature-Autoencoders", BrainLes 2022.

An auto-encoder learns to rebuild what a network trained on ImageNet sees in normal images; where it rebuilds another
structure, the image is anomalous.

Deviations from the authors' program (of brain MRI) and its fork for chest radiographs, whose settings are the default:
- The ImageNet network stays as it is; theirs is put in training mode with the rest, and its batch norm drifts.
- The loss is 1 − SSIM, theirs −SSIM: the same gradients, and a map that is not negative.
- An epoch is so many steps; a batch may reach from one pass over the images into the next.
- ``ssim`` is the fork's score. ``top_tenth`` is the release's, where it has one; its program gives NaN for an image
  without foreground, or with the same similarity everywhere. In the release's preprocessing alone, the foreground is
  what lies above the middle of the range, as it is there; otherwise it is what is not black.
"""

import torch
from torch.nn.functional import interpolate

from configs.fae_ssim import FaeSsimConfig
from dataloader.loader import Batch
from methods.autoencoder import mean_of, to_network
from methods.base import Method, Scores, lr_scheduler
from models.fae_ssim import FeatureAutoEncoder
from models.features import FrozenFeatures
from models.ssim import similarity
from system.seeding import seeded

GRAYS = 256


class FaeSsim(Method):
    """Image scores: ``ssim``, the mean dissimilarity of features; ``top_tenth``, that of the foreground's worst tenth.

    Both are of a map of 1 − SSIM, the mean over the features' channels.
    """

    score_names = ("ssim", "top_tenth")

    def __init__(self, config: FaeSsimConfig):
        super().__init__(config)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        channels = sum(self.features.channels.values())
        self.network = FeatureAutoEncoder(channels, config.channels, config.dropout)
        self.optimizers = {"network": torch.optim.Adam(self.network.parameters(), config.learning_rate, fused=True)}
        self.schedulers = {"network": lr_scheduler(self.optimizers["network"], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        losses = {"ssim": self.dissimilarity(batch.images).mean()}
        self.update("network", losses, batch)
        return losses

    def dissimilarity(self, images: torch.Tensor) -> torch.Tensor:
        """1 − SSIM of the features and what the network makes of them: (B, 1, S, S) → (B, 1, S/4, S/4)."""
        f = self.seen(images)  # (B, C, S/4, S/4)
        with self.autocast():
            f_hat = self.network(f)
        config = self.config
        found = similarity(f, f_hat.to(f), config.window, config.window_sigma, padding=config.window // 2)
        return 1 - found.whole.mean(1, keepdim=True)

    @torch.no_grad()
    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """The frozen network's features, every layer's on the same grid: (B, 1, S, S) → (B, C, S/4, S/4)."""
        if self.config.preprocessing == "release":  # (B, 3, S, S) that are in [−1, 1] when normalised
            images = to_network(equalised(images)) * self.features.std + self.features.mean
        side = images.shape[-1] // 4
        return torch.cat([resized(f, side) for f in self.features(images).values()], dim=1)

    def scores_of(self, images: torch.Tensor) -> Scores:
        found = self.dissimilarity(images).clamp(min=0)  # rounding
        # the mean is of the small map, as in the fork: interpolation with aligned corners does not keep it
        pixels = resized(found, images.shape[-1])  # (B, 1, S, S)
        foreground = equalised(images) > 0.5 if self.config.preprocessing == "release" else images > 0
        return Scores(
            image={"ssim": mean_of(found), "top_tenth": top_tenth(pixels, foreground).cpu().double()},
            maps={name: pixels for name in self.score_names},
        )


def resized(maps: torch.Tensor, side: int) -> torch.Tensor:
    """(B, C, h, w) → (B, C, side, side), bilinear with aligned corners, as the program has it."""
    return interpolate(maps, size=(side, side), mode="bilinear", align_corners=True)


def equalised(images: torch.Tensor) -> torch.Tensor:
    """Every pixel's share of pixels that are not brighter, of 256 grays: (B, 1, S, S) in [0, 1] → same."""
    grays = (images * (GRAYS - 1)).round().long().flatten(1)  # (B, S²)
    counts = images.new_zeros(len(images), GRAYS).scatter_add_(1, grays, torch.ones_like(grays).to(images))
    return (counts.cumsum(1) / grays.shape[1]).gather(1, grays).reshape(images.shape)


def top_tenth(pixels: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """The mean of every image's values above the 0.9 quantile of its foreground: (B, 1, S, S), bool → (B,).

    An image without foreground is taken whole; of values that are all alike, that value is the mean.
    """
    found = []
    for values, chosen in zip(pixels, foreground, strict=True):
        values = values[chosen] if chosen.any() else values.flatten()
        threshold = values.quantile(0.9)
        above = values[values > threshold]
        found.append(above.mean() if len(above) else threshold)
    return torch.stack(found)
