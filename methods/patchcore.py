"""PatchCore: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022.

A patch is normal if features like its own, of a network trained on ImageNet, are among those of normal images.

Deviations from the authors' program:
- Images are stretched to the final size; theirs resizes the shorter side to 256 and takes the middle 224 × 224, which
  on radiographs cuts anatomy off. ``fit=crop`` takes the middle square, without that margin.
- The bank is chosen among ``candidates`` patches drawn at random, where there are more, and is ``bank_ratio`` of all
  patches, 1 % where 10 % is published; theirs chooses among all, which takes 12 GB for 3800 images.
- The published re-weighting of the score is left out, as it is in the program. Distances are exact in both.
"""

import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate, unfold

from configs.base import ConfigError
from configs.patchcore import PatchCoreConfig
from dataloader.loader import TrainLoader
from methods.base import Method, Scores
from methods.maps import gaussian_blur, upsample
from models.bank import Bank, greedy_coreset
from models.features import FrozenFeatures
from system.seeding import generator, seeded

NEIGHBOURHOOD = 3  # patches a side that a patch's features are pooled over


class PatchCore(Method):
    """Image score: ``distance``, the largest squared distance of a patch to the bank."""

    score_names = ("distance",)

    def __init__(self, config: PatchCoreConfig):
        super().__init__(config)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        self.bank = Bank()

    @torch.no_grad()
    def fit(self, loader: TrainLoader, epoch: int = 0) -> None:
        """Fill the bank from the training images, unaugmented and in order. Raises ConfigError for too large a bank."""
        config = self.config
        rng = generator(config.seed, "bank")
        # 1. the candidates: the same share of every batch's patches, drawn at random
        kept, total, seen, taken = [], loader.training_size(), 0, 0
        for images in loader.unaugmented():
            patches = self.patches(images)  # (B, h·w, d)
            all_patches = total * patches.shape[1]
            self.check_candidates(all_patches, patches.shape[2])
            patches = patches.flatten(0, 1)  # (B·h·w, d)
            seen += len(patches)
            count = seen * min(config.candidates, all_patches) // all_patches - taken
            taken += count
            chosen = torch.randperm(len(patches), generator=rng)[:count].sort().values
            kept.append(patches[chosen.to(patches.device)])
        candidates = torch.cat(kept)  # (n, d)

        # 2. of these, the ones that cover the others best, in a random projection
        count = max(int(seen * config.bank_ratio), 1)
        self.bank.rows = candidates[greedy_coreset(self.projected(candidates), count, rng).to(candidates.device)]

    def check_candidates(self, patches: int, dimensions: int) -> None:
        """Raise ConfigError where the bank would be larger than what it is chosen from."""
        count, candidates = int(patches * self.config.bank_ratio), self.config.candidates
        if count > candidates:
            raise ConfigError(
                f"bank_ratio = {self.config.bank_ratio}: of {patches} patches that is {count}, more than the "
                f"{candidates} candidates that they are chosen from. Give --set candidates={patches}, which take "
                f"{4 * patches * dimensions / 1e9:.1f} GB, or fewer; or a smaller bank_ratio."
            )

    def projected(self, patches: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, projected)."""
        if not self.config.projected or self.config.projected >= patches.shape[1]:
            return patches
        with seeded(self.config.seed, "projection"):
            projection = torch.nn.Linear(patches.shape[1], self.config.projected, bias=False)
        return projection.to(patches)(patches)

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Every patch's features, of all layers and its neighbourhood: (B, 1, H, W) → (B, h·w, pooled)."""
        layers = self.features(images).values()
        # image by image: with their neighbourhoods, the features of a batch would be nine times as large
        return torch.stack([self.patches_of(image) for image in zip(*layers, strict=True)])

    def patches_of(self, layers: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """One image's, of its layers: (C, h', w') each → (h·w, pooled)."""
        grid = layers[0].shape[1:]
        pooled = []
        for f in layers:
            of_layer = self.neighbourhoods(f)  # (pooled, h', w')
            if f.shape[1:] != grid:  # pooled before: both are linear, and there is less to interpolate
                of_layer = interpolate(of_layer[None], size=grid, mode="bilinear", align_corners=False)[0]
            pooled.append(of_layer.flatten(1))
        return averaged(torch.cat(pooled), self.config.pooled).T

    def neighbourhoods(self, f: torch.Tensor) -> torch.Tensor:
        """The features around every patch, averaged to as many as are kept: (C, h, w) → (pooled, h, w)."""
        near = unfold(f, NEIGHBOURHOOD, padding=NEIGHBOURHOOD // 2)  # (C·9, h·w)
        return averaged(near, self.config.pooled).unflatten(1, f.shape[1:])

    def scores_of(self, images: torch.Tensor) -> Scores:
        patches = self.patches(images)  # (B, h·w, d)
        distances = self.bank.nearest(patches.flatten(0, 1)).reshape(patches.shape[:2])  # (B, h·w)
        side = int(distances.shape[1] ** 0.5)
        grid = distances.reshape(-1, 1, side, side)
        return Scores(
            image={"distance": distances.amax(1).cpu().double()},
            maps={"distance": gaussian_blur(upsample(grid, images.shape[-1]), self.config.blur)},
        )


def averaged(features: torch.Tensor, count: int) -> torch.Tensor:
    """Averages of neighbouring features, as adaptive pooling takes them: (n, patches) → (count, patches)."""
    if len(features) % count == 0:  # the same, and several times as fast
        return features.unflatten(0, (count, -1)).mean(1)
    return adaptive_avg_pool2d(features[None], (count, features.shape[1]))[0]
