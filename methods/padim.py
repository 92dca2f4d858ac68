"""PaDiM: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
ICPR 2020 workshops.

At every place of an image, features of a network trained on ImageNet follow a Gaussian of their own; a patch is as
anomalous as it is far from its place's, by the Mahalanobis distance.

Deviations from the public program (the authors gave none):
- Images are stretched to the final size, bilinearly; it resizes the shorter side to 256 (Lanczos) and takes the middle
  224 × 224, which on radiographs cuts anatomy off. ``fit=crop`` takes the middle square, without that margin.
- Which channels are kept is saved with the Gaussians; it draws them anew in every process.
- Moments are summed up batch by batch; it keeps the features of all images. Maps are not scaled over the test set.
"""

import torch
from torch.nn.functional import interpolate

from configs.base import ConfigError
from configs.padim import PadimConfig
from dataloader.images import DataError
from dataloader.loader import TrainLoader
from methods.base import Method, Scores
from methods.maps import gaussian_blur, upsample
from models.features import FrozenFeatures
from models.gaussians import Gaussians
from system.seeding import seeded


class Padim(Method):
    """Image score: ``distance``, the largest of the blurred map. Raises ConfigError for more dimensions than there are.

    What it keeps grows with positions · dimensions², and not with the number of images (models/gaussians.py).
    """

    score_names = ("distance",)

    def __init__(self, config: PadimConfig):
        super().__init__(config)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        channels = sum(self.features.channels.values())
        if config.dimensions > channels:
            layers = ", ".join(config.layers)
            raise ConfigError(
                f"dimensions = {config.dimensions}: {layers} of {config.backbone} have {channels} channels together."
            )
        with seeded(config.seed, "dimensions"):
            self.register_buffer("chosen", torch.randperm(channels)[: config.dimensions].sort().values)
        self.gaussians = Gaussians()

    @torch.no_grad()
    def fit(self, loader: TrainLoader, epoch: int = 0) -> None:
        """Every place's mean and covariance over the training images, unaugmented.

        Raises:
            DataError: for a single image.
            ConfigError: where covariances are singular, for want of images or otherwise, and there is no ridge.
        """
        config, count = self.config, loader.training_size()
        if count < 2:
            raise DataError(f"{loader.dataset.root}: PaDiM needs at least 2 training images, for covariances.")
        remedy = "Give --set ridge=0.01, or fewer dimensions."
        if not config.ridge and count <= config.dimensions:
            raise ConfigError(
                f"ridge = 0: the covariances of {config.dimensions} dimensions are singular with {count} training "
                f"images. {remedy}"
            )
        try:
            self.gaussians.fit((self.embedded(images).flatten(2) for images in loader.unaugmented()), config.ridge)
        except torch.linalg.LinAlgError as error:
            raise ConfigError(f"ridge = {config.ridge}: a covariance is singular. {remedy}") from error

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        """The chosen channels of all layers, replicated to the first one's grid: (B, 1, H, W) → (B, d, h, w)."""
        layers = list(self.features(images).values())
        grid, before, found = layers[0].shape[2:], 0, []
        for f in layers:
            own = self.chosen[(self.chosen >= before) & (self.chosen < before + f.shape[1])] - before
            before += f.shape[1]
            if len(own):  # of few dimensions a layer may have none
                found.append(interpolate(f[:, own], size=grid, mode="nearest"))
        return torch.cat(found, dim=1)

    def scores_of(self, images: torch.Tensor) -> Scores:
        f = self.embedded(images)  # (B, d, h, w)
        grid = self.gaussians.distances(f.flatten(2)).reshape(-1, 1, *f.shape[2:])  # (B, 1, h, w)
        pixels = gaussian_blur(upsample(grid, images.shape[-1]), self.config.blur)  # (B, 1, H, W)
        return Scores(image={"distance": pixels.amax((1, 2, 3)).cpu().double()}, maps={"distance": pixels})
