"""The settings of DN2 and PANDA (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import ColourConfig
from configs.stages import Stage


class NeighbourConfig(ColourConfig, BaseConfig):
    """What the two have in common: an image is a point, scored by the training images' points nearest to it."""

    main_score: Literal["", "distance"] = ""

    image_size = 224
    resize = "bilinear"
    augment = False
    batch_size = 32
    best_rule = "last"

    backbone = "resnet152"
    neighbours: int = 2  # nearest training images, whose squared distances are summed

    def check(self) -> None:
        super().check()
        self.check_at_least(32, "image_size")
        self.check_at_least(1, "neighbours")


class Dn2Config(NeighbourConfig):
    """DN2 (2020): PANDA before it is tuned. It is fitted in one pass."""

    method = "dn2"

    epochs = 1

    layers = ("layer4",)  # its means over the image are the point

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", 1, self.batch_size, batches=0),)

    def check(self) -> None:
        super().check()
        if self.epochs != 1:
            raise ConfigError(f"epochs = {self.epochs}: DN2 is fitted once, in one pass.")
        if len(self.layers) != 1:
            raise ConfigError(f"layers = {','.join(self.layers)}: DN2 takes the features of one.")


class PandaConfig(NeighbourConfig):
    """PANDA (CVPR 2021) with a fixed number of epochs; published with elastic weight consolidation too."""

    method = "panda"

    epochs = 15  # with EWC: 50
    learning_rate = 1e-2
    lr_steps = ()  # a constant rate

    layers = ("layer2", "layer4")  # the last that stays as it is; the one whose means over the image are the point
    weight_decay: float = 5e-5
    gradient_norm: float = 1e-3  # to which longer gradients are cut
    ewc_weight: float = 0.0  # of the cost of leaving the pretrained weights (EWC: 1e4); 0 leaves it out
    fisher_images: int = 1000  # ours, EWC: training images that tell which weights matter

    def check(self) -> None:
        super().check()
        if len(self.layers) != 2:
            raise ConfigError(f"layers = {','.join(self.layers)}: PANDA tunes from one to another, so give two.")
        if self.gradient_norm <= 0:
            raise ConfigError(f"gradient_norm = {self.gradient_norm}: must be above 0.")
        self.check_at_least(0, "weight_decay", "ewc_weight")
        self.check_at_least(1, "fisher_images")
        if self.ewc_weight and self.backbone.startswith("vgg"):
            raise ConfigError(f"ewc_weight = {self.ewc_weight}: EWC needs a classifier, and {self.backbone} has none.")
