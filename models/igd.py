"""IGD's networks: a linear encoder of frozen features, a residual decoder, a residual critic, a Gaussian of codes."""

from itertools import pairwise

import torch
from torch import nn

from models.residual import DownBlock, UpBlock, activated, layer_norm

SMALLEST = 4  # side of the deepest map
WIDEST = 8  # times the base channels, at most


def widths(side: int, base_channels: int) -> list[int]:
    """The channels of the maps that are side/2, side/4, …, 4 wide: they double, up to eight times the base."""
    return [base_channels * min(2**level, WIDEST) for level in range((side // SMALLEST).bit_length() - 1)]


class Decoder(nn.Module):
    """Codes (B, latent) → images (B, 1, side, side) in [−1, 1]."""

    def __init__(self, side: int, base_channels: int, latent_size: int):
        super().__init__()
        first, *others = widths(side, base_channels)[::-1]
        self.layers = nn.Sequential(
            nn.Linear(latent_size, first * SMALLEST**2), nn.Unflatten(1, (first, SMALLEST, SMALLEST)),
            nn.Upsample(scale_factor=2), nn.Conv2d(first, others[0], 3, padding=1),
            *(UpBlock(a, b, nn.BatchNorm2d) for a, b in pairwise(others)),
            *activated(nn.BatchNorm2d, others[-1]),
            nn.Upsample(scale_factor=2), nn.Conv2d(others[-1], 1, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


class Critic(nn.Module):
    """Images (B, 1, side, side) in [−1, 1] → how much of another code is in them, as it guesses: (B,)."""

    def __init__(self, side: int, base_channels: int):
        super().__init__()
        *others, last = widths(side, base_channels)
        self.layers = nn.Sequential(
            nn.Conv2d(1, others[0], 4, 2, 1),
            *(DownBlock(a, b, layer_norm) for a, b in pairwise(others)),
            *activated(layer_norm, others[-1]), nn.Conv2d(others[-1], last, 4, 2, 1),
            *activated(layer_norm, last), nn.Flatten(), nn.Linear(last * SMALLEST**2, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(1)


class Descriptor(nn.Module):
    """One part of IGD: for whole images, or for patches. ``centre`` and ``sigma`` are of normal codes."""

    def __init__(self, channels: int, side: int, base_channels: int, latent_size: int):
        super().__init__()
        self.encoder = nn.Linear(channels, latent_size)
        self.decoder = Decoder(side, base_channels, latent_size)
        self.critic = Critic(side, base_channels)
        self.register_buffer("centre", torch.zeros(latent_size))
        self.register_buffer("sigma", torch.ones(()))

    def strangeness(self, z: torch.Tensor) -> torch.Tensor:
        """1 − exp(−‖z − centre‖² / sigma), in [0, 1) but for rounding: (B, latent) → (B,)."""
        return 1 - torch.exp(-(z - self.centre).square().sum(1) / self.sigma)
