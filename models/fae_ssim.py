"""The auto-encoder of feature maps (FAE); no layer of it has a bias but batch norm's."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


class FeatureAutoEncoder(nn.Module):
    """(B, C, h, w) → same; ``widths`` are the channels of the encoder's maps, each half as large as the one before."""

    def __init__(self, channels: int, widths: Sequence[int], dropout: float):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *widths)):
            layers += [nn.Conv2d(before, after, 5, 2, 2, bias=False), *activation(after, dropout)]
        layers.append(nn.Conv2d(widths[-1], widths[-1], 5, 1, 2, bias=False))
        self.encoder = nn.Sequential(*layers)

        layers = []
        for before, after in pairwise((*widths[::-1], channels)):
            layers += [nn.ConvTranspose2d(before, after, 6, 2, 2, bias=False), *activation(after, dropout)]
        layers.append(nn.Conv2d(channels, channels, 1, bias=False))
        self.decoder = nn.Sequential(*layers)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(f))


def activation(channels: int, dropout: float) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.LeakyReLU(), nn.Dropout2d(dropout)]
