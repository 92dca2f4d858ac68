"""What the networks compute in another order on a CPU, to be fast; all of it, each beside the plain form it stands for.

The result is the plain form's but for rounding. ``ANOMALY_PLAIN=1`` (system/tuning.py) turns all of it off.

- :func:`convolve_joined`: up blocks convolve the deeper map before they double it, for a quarter of the arithmetic.
- :func:`in_parts`: scoring takes a few maps at a time through a block, so that they stay in the caches.

In one dimension, doubling bilinearly is to insert a zero after each pixel and to filter with t = (1, 3, 3, 1)/4, the
border being repeated. The order of filters does not matter, so t may come last. What it then filters is the sequence

    b₀ − 4a₀,  a₀ + d₀,  b₀,  a₀ + d₁,  b₁,  a₁ + d₂,  …,  bₙ,  aₙ + dₙ,  bₙ − 4dₙ

where a, b and d are what the convolution's three taps make of x. Its ends make good that the convolution sees zeros
beyond the doubled map, not the border repeated. In two dimensions there are nine taps, each a product with every pixel,
and the sequence is made of rows, then of columns.
"""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, interpolate, pad

from system.tuning import rearranges

VALUES_AT_ONCE = 2**19  # of a block's result: 2 MiB of float32, which caches hold


# -- the plain forms --------------------------------------------------------------------------------------------------


def double(x: torch.Tensor) -> torch.Tensor:
    """(N, C, h, w) → (N, C, 2h, 2w), bilinearly; pixels are areas (align_corners false)."""
    return interpolate(x, size=[2 * side for side in x.shape[2:]], mode="bilinear", align_corners=False)


def join(x: torch.Tensor, skip: torch.Tensor | None, op: str) -> torch.Tensor:
    """The doubled map (N, C, 2h, 2w) and its skip, by ``op``: ``concat`` (skip first), ``add`` or ``none``."""
    x = double(x)
    return torch.cat([skip, x], dim=1) if op == "concat" else skip + x if op == "add" else x


# -- what stands for them ---------------------------------------------------------------------------------------------


def convolve_joined(conv: nn.Conv2d, x: torch.Tensor, skip: torch.Tensor | None, op: str) -> torch.Tensor:
    """``conv(join(x, skip, op))``: x (N, C, h, w), skip (N, C', 2h, 2w) → (N, C'', 2h, 2w); conv is 3 × 3."""
    if op == "add" or not rearranges(x):
        return conv(join(x, skip, op))
    if op == "none":
        return convolve_doubled(x, conv.weight, conv.bias)
    # a convolution of joined channels is the sum of two
    of_skip, of_x = conv.weight.split([skip.shape[1], x.shape[1]], dim=1)
    return convolve_doubled(x, of_x, conv.bias).add_(conv2d(skip, of_skip, padding=1))


def in_parts(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A block's forward of maps (N, …), a few maps at a time where no gradient is wanted."""

    @functools.wraps(forward)
    def of_few(block: nn.Module, *maps: torch.Tensor) -> torch.Tensor:
        n, pixels = len(maps[0]), maps[0].shape[2:].numel()
        few = max(1, int(VALUES_AT_ONCE / block.values_per_pixel / pixels))
        if block.training or torch.is_grad_enabled() or few >= n or not rearranges(maps[0]):
            return forward(block, *maps)
        result, done = None, 0
        for parts in zip(*(each.split(few) for each in maps), strict=True):
            part = forward(block, *parts)
            if result is None:
                result = torch.empty((n, *part.shape[1:]), dtype=part.dtype, memory_format=torch.channels_last)
            result[done : done + len(part)] = part
            done += len(part)
        return result

    return of_few


def convolve_doubled(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What a 3 × 3 convolution, padded with zeros, makes of :func:`double` (x), but for rounding.

    Args:
        x: (N, C, h, w).
        weight: (C', C, 3, 3).
        bias: (C',) or None.
    Returns:
        (N, C', 2h, 2w).
    """
    c = weight.shape[0]
    taps = weight.permute(2, 3, 0, 1).reshape(9 * c, -1, 1, 1)  # (row, column, C') of the kernel
    return _Spread.apply(conv2d(x, taps, None if bias is None else pad(bias, (4 * c, 4 * c))))  # bias: the middle tap's


class _Spread(torch.autograd.Function):
    """(N, 9C', h, w) products of the taps, (row, column, C') of the kernel → (N, C', 2h, 2w)."""

    @staticmethod
    def forward(ctx, products: torch.Tensor) -> torch.Tensor:
        n, c, h, w = products.shape
        c //= 9
        rows = products.permute(0, 2, 3, 1).reshape(n, h, w, 3, 3 * c)
        columns = _interleave(rows, 1).view(n, 2 * h + 3, w, 3, c)
        return _filter(_interleave(columns, 2).permute(0, 3, 1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        n, c, h, w = gradient.shape
        h, w = h // 2, w // 2
        gradient = _filter(gradient, padding=3).permute(0, 2, 3, 1)  # t is symmetric
        columns = _shares(gradient, gradient.new_empty(n, 2 * h + 3, w, 3, c), 2)
        rows = _shares(columns.view(n, 2 * h + 3, w, 3 * c), gradient.new_empty(n, h, w, 3, 3 * c), 1)
        return rows.view(n, h, w, 9 * c).permute(0, 3, 1, 2)


def _interleave(taps: torch.Tensor, dim: int) -> torch.Tensor:
    """The sequence above along ``dim`` (1 or 2) of (N, h, w, 3, C): its n entries there become 2n + 3."""
    shape = [*taps.shape[:3], taps.shape[4]]
    shape[dim] = 2 * shape[dim] + 3
    sequence = taps.new_empty(shape)
    z, (a, b, d) = sequence.transpose(1, dim), taps.transpose(1, dim).unbind(3)
    z[:, 2:-1:2] = b
    torch.add(a[:, :-1], d[:, 1:], out=z[:, 3:-3:2])
    torch.add(a[:, 0], d[:, 0], out=z[:, 1])
    torch.add(a[:, -1], d[:, -1], out=z[:, -2])
    torch.sub(b[:, 0], a[:, 0], alpha=4, out=z[:, 0])
    torch.sub(b[:, -1], d[:, -1], alpha=4, out=z[:, -1])
    return sequence


def _shares(gradient: torch.Tensor, taps: torch.Tensor, dim: int) -> torch.Tensor:
    """The transpose of :func:`_interleave`: fills ``taps`` (N, h, w, 3, C) with the gradient's share of each."""
    z, (a, b, d) = gradient.transpose(1, dim), taps.transpose(1, dim).unbind(3)
    b.copy_(z[:, 2:-1:2])
    a.copy_(z[:, 3::2])
    d.copy_(z[:, 1:-2:2])
    b[:, 0] += z[:, 0]
    b[:, -1] += z[:, -1]
    a[:, 0] += z[:, 1] - 4 * z[:, 0]
    d[:, -1] += z[:, -2] - 4 * z[:, -1]
    return taps


def _filter(z: torch.Tensor, padding: int = 0) -> torch.Tensor:
    """t along rows and columns of every channel: (N, C, H, W) → (N, C, H − 3 + 2 padding, …)."""
    t = torch.tensor([1, 3, 3, 1], dtype=z.dtype, device=z.device) / 4
    return conv2d(z, t.outer(t).repeat(z.shape[1], 1, 1, 1), padding=padding, groups=z.shape[1])
