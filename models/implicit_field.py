"""Implicit field's network: a code and a place in the image → the class of the pixel there."""

import math

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from models.fitted import Fitted

HIDDEN = 8  # layers before the last
JOINED = 4  # after so many of them the input is given once more
CODE_STD = 1 / 16  # of the codes' initial values
MAX_NORM = 1.0  # of a training image's code


def fourier_features(side: int, frequencies: int) -> torch.Tensor:
    """Of every pixel, row by row: (side², 4 · frequencies), sines of 2ʲπ·(y, x), then cosines.

    Coordinates are those of pixel centres in [−1, 1].
    """
    centre = (2 * torch.arange(side) + 1) / side - 1
    coordinates = torch.cartesian_prod(centre, centre)  # (side², 2)
    angles = coordinates.unsqueeze(2) * math.pi * 2.0 ** torch.arange(frequencies)  # (side², 2, frequencies)
    return torch.cat([angles.flatten(1).sin(), angles.flatten(1).cos()], dim=1)


class Field(nn.Module):
    """Codes (…, code) and Fourier features (…, place) → logits (…, classes)."""

    def __init__(self, code: int, place: int, width: int, classes: int, dropout: float):
        super().__init__()
        given = code + place
        self.hidden = nn.ModuleList()
        for i in range(1, HIDDEN + 1):
            out = width - given if i == JOINED else width
            self.hidden.append(weight_norm(nn.Linear(given if i == 1 else width, out)))
        self.last = nn.Linear(width, classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, code: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        given = torch.cat([code, place], dim=-1)
        h = given
        for i, layer in enumerate(self.hidden, 1):
            h = self.dropout(layer(h).relu())
            if i == JOINED:
                h = torch.cat([h, given], dim=-1)  # (…, width) again
        return self.last(h)


class Codes(Fitted):
    """A learned code for every training image, of a norm of at most MAX_NORM; none at first."""

    def __init__(self, size: int):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(0, size))

    @torch.no_grad()
    def draw(self, count: int) -> None:
        """New ones, from torch's global generator."""
        self.rows.data = initial_codes(count, self.rows.shape[1]).to(self.rows)
        self.bound()

    @torch.no_grad()
    def bound(self) -> None:
        """Shorten those that are too long."""
        self.rows.renorm_(2, 0, MAX_NORM)

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Of these images (B,): (B, size)."""
        return self.rows[indices.to(self.rows.device)]


def initial_codes(count: int, size: int) -> torch.Tensor:
    """(count, size) from N(0, CODE_STD²) by torch's global generator."""
    return torch.randn(count, size) * CODE_STD
