"""PaDiM's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import ColourConfig
from configs.stages import Stage


class PadimConfig(ColourConfig, BaseConfig):
    """PaDiM (ICPR 2020). It is fitted in one pass, without augmentation."""

    method = "padim"

    main_score: Literal["", "distance"] = ""

    image_size = 224
    resize = "bilinear"
    augment = False
    batch_size = 16  # ours; it changes nothing but time and memory
    epochs = 1
    best_rule = "last"

    backbone = "resnet18"  # published too: wide_resnet50_2, with dimensions = 550
    layers = ("layer1", "layer2", "layer3")  # shallowest first; its grid is the positions'
    dimensions: int = 100  # channels that are kept of all layers', drawn at random
    ridge: float = 0.01  # added to the covariances' diagonals; 0 needs more images than dimensions
    blur: float = 4.0  # of the map: the Gaussian's deviation, in pixels

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", 1, self.batch_size, batches=0),)

    def check(self) -> None:
        super().check()
        if self.epochs != 1:
            raise ConfigError(f"epochs = {self.epochs}: PaDiM is fitted once, in one pass.")
        self.check_at_least(32, "image_size")
        self.check_at_least(1, "dimensions")
        self.check_at_least(0, "ridge", "blur")
