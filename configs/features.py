"""The settings of methods that look at images through a network trained on ImageNet."""

from typing import Literal

from configs.base import ConfigError

LAYERS = ("layer1", "layer2", "layer3", "layer4")


class FeatureConfig:
    """For a method's settings to inherit from, beside BaseConfig."""

    backbone: Literal["resnet18", "resnet50", "resnet152", "wide_resnet50_2", "efficientnet_lite0"] = "wide_resnet50_2"
    weights: str = "imagenet"  # the backbone's pinned ones; a file; or random, for tests
    layers: tuple[str, ...] = ("layer2", "layer3")

    def check(self) -> None:
        super().check()
        if not self.layers or list(self.layers) != [layer for layer in LAYERS if layer in self.layers]:
            raise ConfigError(f"layers = {','.join(self.layers)}: some of {', '.join(LAYERS)}, shallowest first.")
