"""Cutting maps into grids of patches and putting them back together.

Both give maps whose channels lie together in memory (channels_last), which convolutions are fastest on.
"""

import torch


def to_patches(x: torch.Tensor, per_side: int) -> torch.Tensor:
    """Cut every map into per_side × per_side patches.

    (B, C, H, W) → (B·P², C, H/P, W/P); patches run row by row, the patch index fastest in the batch.
    """
    b, c, h, w = x.shape
    p = per_side
    x = x.permute(0, 2, 3, 1).reshape(b, p, h // p, p, w // p, c).transpose(2, 3)  # (B, P, P, h, w, C)
    return x.reshape(b * p * p, h // p, w // p, c).permute(0, 3, 1, 2)


def to_maps(x: torch.Tensor, per_side: int) -> torch.Tensor:
    """Put patches back together: the inverse of :func:`to_patches`. (B·P², C, h, w) → (B, C, h·P, w·P)."""
    n, c, h, w = x.shape
    p = per_side
    x = x.permute(0, 2, 3, 1).reshape(n // (p * p), p, p, h, w, c).transpose(2, 3)  # (B, P, h, P, w, C)
    return x.reshape(n // (p * p), p * h, p * w, c).permute(0, 3, 1, 2)


def position_bits(num_patches: int) -> torch.Tensor:
    """Every patch index in binary, most significant bit first: (N, ⌊log2 N⌋ + 1) of 0.0 and 1.0."""
    bits = num_patches.bit_length()
    index = torch.arange(num_patches).unsqueeze(1)
    return (index >> torch.arange(bits - 1, -1, -1) & 1).float()
