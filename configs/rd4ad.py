"""RD4AD's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import ColourConfig
from configs.stages import Stage


class Rd4adConfig(ColourConfig, BaseConfig):
    """RD4AD, reverse distillation (CVPR 2022)."""

    method = "rd4ad"

    main_score: Literal["", "distance"] = ""

    image_size = 256
    resize = "bilinear"
    augment = False
    epochs = 200
    batch_size = 16
    learning_rate = 5e-3
    lr_steps = ()  # a constant rate
    best_rule = "last"

    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # the loss compares an image's whole map of features as one vector, as the program does, or each location's
    cosine: Literal["map", "location"] = "map"
    blur: float = 4.0  # of the map, before its maximum is taken: the Gaussian's deviation, in pixels

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size),)

    def check(self) -> None:
        super().check()
        if self.layers != Rd4adConfig.layers:
            raise ConfigError(f"layers = {','.join(self.layers)}: RD4AD restores layer1,layer2,layer3.")
        if self.image_size < 64 or self.image_size % 32:
            raise ConfigError(f"image_size = {self.image_size}: must be 64, 96, 128, … (a multiple of 32).")
        self.check_at_least(0, "blur")
