"""Residual blocks that double or halve a map: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017."""

from collections.abc import Callable

import torch
from torch import nn

Norm = Callable[[int], nn.Module]  # channels → the norm of a map


def layer_norm(channels: int) -> nn.Module:
    """Statistics of an image's whole map; a scale and an offset for every channel."""
    return nn.GroupNorm(1, channels)


def activated(norm: Norm, channels: int) -> tuple[nn.Module, ...]:
    return norm(channels), nn.ReLU(inplace=True)


class UpBlock(nn.Module):
    """(B, in, h, w) → (B, out, 2h, 2w), residual."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm):
        super().__init__()
        self.layers = nn.Sequential(
            *activated(norm, in_channels),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            *activated(norm, out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        # doubled after the 1 × 1 convolution: the same as before it, for a quarter of the work
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.Upsample(scale_factor=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)


class DownBlock(nn.Module):
    """(B, in, h, w) → (B, out, h/2, w/2), residual."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm):
        super().__init__()
        self.layers = nn.Sequential(
            *activated(norm, in_channels),
            nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False),
            *activated(norm, in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)
