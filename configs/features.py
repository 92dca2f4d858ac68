"""The settings of methods that look at images through a network trained on ImageNet."""

from typing import Literal

from configs.base import ConfigError

# shallowest first; the layers end at 1/4, 1/8, 1/16 and 1/32 of the image's side. Not every backbone has every one.
LAYERS = ("stem", "layer1", "layer2", "relu4_2", "layer3", "layer4")
WITHOUT = {"vgg16": {"stem", "relu4_2"}, "vgg19": {"stem"}}  # the others have no relu4_2


class FeatureConfig:
    """For a method's settings to inherit from, beside BaseConfig."""

    backbone: Literal[
        "resnet18", "resnet50", "resnet152", "wide_resnet50_2", "vgg16", "vgg19", "efficientnet_lite0"
    ] = "wide_resnet50_2"
    weights: str = "imagenet"  # the backbone's pinned ones; a file; or random, for tests
    layers: tuple[str, ...] = ("layer2", "layer3")

    def check(self) -> None:
        super().check()
        known = [layer for layer in LAYERS if layer not in WITHOUT.get(self.backbone, {"relu4_2"})]
        if not self.layers or list(self.layers) != [layer for layer in known if layer in self.layers]:
            raise ConfigError(
                f"layers = {','.join(self.layers)}: some of {', '.join(known)} of {self.backbone}, shallowest first."
            )


class ColourConfig(FeatureConfig):
    """For methods that see images through such a network alone, which takes three colours."""

    colour: bool = False  # image files keep their colours; otherwise they become gray, in each of three channels
