"""M-KD's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import ColourConfig
from configs.stages import Stage


class MkdConfig(ColourConfig, BaseConfig):
    """M-KD, multiresolution knowledge distillation (CVPR 2021)."""

    method = "mkd"

    main_score: Literal["", "discrepancy"] = ""

    image_size = 128
    resize = "bilinear"
    augment = False
    epochs = 201
    batch_size = 64
    learning_rate = 1e-3
    lr_steps = ()  # a constant rate
    best_rule = "last"

    backbone = "vgg16"
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")  # of VGG-16 the poolings 2 to 5
    width: int = 16  # channels of the student's convolutions, but for those that are compared with the teacher's
    value_weight: float = 0.01  # of the mean squared difference beside the cosine (published for MVTec: 0.5)

    # the map: ours but for the order of things
    smooth_draws: int = 0  # noisy copies of an image whose gradients are averaged (SmoothGrad); 0: its own gradient
    smooth_noise: float = 0.1  # the noise's deviation
    blur: float = 4.0  # the Gaussian's deviation, in pixels
    opening: int = 3  # side of the square that the map is opened with, in pixels; 1 leaves it

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size),)

    def check(self) -> None:
        super().check()
        if self.layers != MkdConfig.layers:
            raise ConfigError(f"layers = {','.join(self.layers)}: M-KD compares layer1,layer2,layer3,layer4.")
        if self.image_size % 32:
            raise ConfigError(f"image_size = {self.image_size}: must be a multiple of 32, which is halved five times.")
        if self.opening % 2 == 0:
            raise ConfigError(f"opening = {self.opening}: must be odd.")
        self.check_at_least(1, "width", "opening")
        self.check_at_least(0, "value_weight", "smooth_draws", "smooth_noise", "blur")
