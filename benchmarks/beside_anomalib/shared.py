"""What the comparisons share: rows, the images that both see, and one set of weights for two networks."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import pad

import configs
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from methods.maps import gaussian_blur
from system.device import to_float

CPU = torch.device("cpu")
TRAINED, TESTED = 128, 32  # images
ROUNDING = 1e-4
SIGMA = 4  # of the maps' blur, in pixels


class Row(NamedTuple):
    """One quantity as both compute it. If ``what`` begins with =, it must be equal up to rounding."""

    what: str
    ours: torch.Tensor | float
    theirs: torch.Tensor | float

    @property
    def apart(self) -> float:
        """The largest difference in shares of our largest value."""
        ours, theirs = (torch.as_tensor(values, dtype=torch.float64) for values in (self.ours, self.theirs))
        return float((ours - theirs).abs().max() / ours.abs().max())

    @property
    def wrong(self) -> bool:
        return self.what.startswith("=") and not self.apart < ROUNDING

    def cells(self) -> list[str]:
        means = [float(torch.as_tensor(values, dtype=torch.float64).mean()) for values in (self.ours, self.theirs)]
        return [self.what, *(f"{mean:.5g}" for mean in means), f"{self.apart:.1e}"]


def shown(config: configs.BaseConfig) -> tuple[TrainLoader, torch.Tensor]:
    """The first of the configured dataset's training images and of its test images, (B, 1, H, W) in [0, 1]."""
    dataset = build_dataset(config)
    first = dataset.training_images(0)[:TRAINED]
    dataset.training_images = lambda epoch: first
    return TrainLoader(dataset, config, CPU), to_float(dataset.split("test").images[:TESTED], CPU)


def blurred_as_theirs(maps: torch.Tensor) -> torch.Tensor:
    """Our blur of (B, 1, H, W), with the border continued as theirs: its edge pixel is not repeated."""
    reach = 4 * SIGMA
    inside = slice(reach, -reach)
    return gaussian_blur(pad(maps, [reach] * 4, mode="reflect"), SIGMA)[..., inside, inside]


def copy_weights(own: nn.Module | Sequence[nn.Module], other: nn.Module) -> None:
    """Give ``other`` the parameters and buffers of ``own``, of the same shapes in the same order."""
    source = own if isinstance(own, nn.Module) else nn.ModuleList(own)
    for a, b in zip(source.state_dict().values(), other.state_dict().values(), strict=True):
        b.copy_(a)
