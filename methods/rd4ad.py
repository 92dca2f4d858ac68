"""RD4AD: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022.

A decoder restores a frozen network's features of normal images from one embedding of them all; where it fails to, the
image is anomalous.

Deviations from the authors' program:
- The embedding's and the decoder's widths follow the backbone's channels (models/rd4ad.py), which for wide_resnet50_2
  gives the published networks; their blocks are wide ones whatever the backbone's. EfficientNet's layers have negative
  values, so that the restored ones then end without a ReLU.
- The bottleneck lacks the program's last convolution and batch norm, which nothing uses.
- Images are gray, thrice. Any number of them is scored at once, where the program can score but one.
"""

from collections.abc import Iterable

import torch
from torch.nn.functional import cosine_similarity, interpolate

from configs.rd4ad import Rd4adConfig
from dataloader.loader import Batch
from methods.base import Method, Scores, lr_scheduler
from methods.maps import gaussian_blur
from models.features import BACKBONES, FrozenFeatures
from models.rd4ad import Bottleneck, Decoder
from system.seeding import seeded

BETAS = (0.5, 0.999)  # of Adam


class Rd4ad(Method):
    """Image score: ``distance``, the map's maximum."""

    score_names = ("distance",)

    def __init__(self, config: Rd4adConfig):
        super().__init__(config)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        channels = list(self.features.channels.values())
        self.bottleneck = Bottleneck(channels)
        self.decoder = Decoder(channels, BACKBONES[config.backbone].rectified)
        parameters = [*self.bottleneck.parameters(), *self.decoder.parameters()]
        self.optimizers = {"student": torch.optim.Adam(parameters, config.learning_rate, BETAS, fused=True)}
        self.schedulers = {"student": lr_scheduler(self.optimizers["student"], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        # 1. the teacher's features, and what becomes of them through their embedding
        layers = self.compared(batch.images)
        if self.config.cosine == "map":
            layers = {layer: (t.flatten(1), s.flatten(1)) for layer, (t, s) in layers.items()}  # (B, C·h·w) twice

        # 2. the second shall point where the first do
        terms = {layer: (1 - cosine_similarity(t, s, dim=1)).mean() for layer, (t, s) in layers.items()}
        return terms | {"loss": self.update("student", terms, batch)}

    def compared(self, images: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's features of the teacher and as they are restored: (B, 1, S, S) → (B, C, h, w) twice."""
        with self.autocast():
            teacher = self.features(images)
            restored = self.decoder(self.bottleneck(*teacher.values()))
        return {layer: (t.to(images), s.to(images)) for (layer, t), s in zip(teacher.items(), restored, strict=True)}

    def scores_of(self, images: torch.Tensor) -> Scores:
        distances = summed_distances(self.compared(images).values(), images.shape[-1])  # (B, 1, S, S)
        distances = gaussian_blur(distances, self.config.blur)
        return Scores(image={"distance": distances.amax((1, 2, 3)).cpu().double()}, maps={"distance": distances})


def summed_distances(layers: Iterable[tuple[torch.Tensor, torch.Tensor]], side: int) -> torch.Tensor:
    """1 − cosine of both networks' features (B, C, h, w), upsampled and summed over the layers: (B, 1, side, side)."""
    maps = []
    for t, s in layers:
        grid = 1 - cosine_similarity(t, s, dim=1).unsqueeze(1)  # (B, 1, h, w)
        grid = grid.clamp(min=0)  # rounding
        maps.append(interpolate(grid, size=(side, side), mode="bilinear", align_corners=True))
    return sum(maps)
