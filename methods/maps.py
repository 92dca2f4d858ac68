"""From a grid of patch scores to a map of the image."""

import torch
from torch.nn.functional import conv2d, interpolate


def upsample(grid: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 1, h, w) → (B, 1, side, side), bilinear."""
    return interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)


def gaussian_blur(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """SciPy's ``gaussian_filter``: cut off at 4 σ, the border mirrored with its edge pixel. (B, 1, H, W) → same."""
    if not sigma:
        return maps
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, -1)
    for _ in range(2):  # rows, then columns
        maps = conv2d(maps[..., mirrored(maps.shape[-1], radius).to(maps.device)], kernel).transpose(2, 3)
    return maps


def mirrored(count: int, radius: int) -> torch.Tensor:
    """Indices (count + 2 · radius,) of a line of pixels with its mirror images: … 1 0 | 0 1 … n−1 | n−1 n−2 …"""
    position = torch.arange(-radius, count + radius) % (2 * count)
    return torch.where(position < count, position, 2 * count - 1 - position)
