"""Synthetic anomalies for self-supervision: a square of another image blended in (DDAD-ASR)."""

from typing import NamedTuple

import torch

PROBABILITY = 0.5  # of an image having one
CENTRE = (0.1, 0.9)  # shares of the side
HALF_WIDTH = (0.05, 0.2)


class Squares(NamedTuple):
    """One square per image, all on the CPU."""

    centre: torch.Tensor  # (B, 2) row and column
    half_width: torch.Tensor  # (B,) in pixels
    alpha: torch.Tensor  # (B,) in [0, 1): the other image's weight
    present: torch.Tensor  # (B,) bool: whether the image has one


def with_squares(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 1, H, H), about half of them with a square of another, and where it is: (B, H, H) int64."""
    squares = draw_squares(len(x), x.shape[-1])
    mask = masks(squares, x.shape[-1]).to(x.device)
    return blend(x, x[draw_partners(len(x))], squares.alpha, mask), mask


def draw_squares(count: int, side: int) -> Squares:
    """Squares from torch's global generator: for side 64, centres in 6 … 56 and half-widths in 3 … 12."""
    return Squares(
        centre=torch.randint(int(CENTRE[0] * side), int(CENTRE[1] * side), (count, 2)),
        half_width=torch.randint(round(HALF_WIDTH[0] * side), round(HALF_WIDTH[1] * side), (count,)),
        alpha=torch.rand(count),
        present=torch.rand(count) < PROBABILITY,
    )


def draw_partners(count: int) -> torch.Tensor:
    """For every image of a batch of at least two, the index of another: (B,), from torch's global generator."""
    return (torch.arange(count) + torch.randint(1, count, (count,))) % count


def masks(squares: Squares, side: int) -> torch.Tensor:
    """(B, side, side) int64: 1 in rows and columns [centre − w, centre + w) of the image, 0 elsewhere."""
    offset = torch.arange(side) - squares.centre.unsqueeze(2)  # (B, 2, side)
    w = squares.half_width[:, None, None]
    inside = (offset >= -w) & (offset < w)
    return (inside[:, 0, :, None] & inside[:, 1, None, :] & squares.present[:, None, None]).long()


def blend(images: torch.Tensor, others: torch.Tensor, alpha: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(1 − α)·image + α·other where the mask (B, H, W) is 1: (B, 1, H, W) → same."""
    weight = alpha.to(images)[:, None, None, None] * mask.unsqueeze(1)
    return (1 - weight) * images + weight * others
