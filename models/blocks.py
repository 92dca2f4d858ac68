"""Residual blocks and the masked shortcut, of which every SQUID-like network is made."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models import fast


def full_precision(x: torch.Tensor) -> torch.autocast:
    """Within the ``with``, nothing on x's device is cast to a lower precision."""
    return torch.autocast(x.device.type, enabled=False)


@contextmanager
def counting_twice(network: nn.Module) -> Iterator[None]:
    """Within the ``with``, one forward moves batch norm's running statistics as far as two of the same batch would."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1 - (1 - norm.momentum) ** 2
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked += 1


@contextmanager
def estimating_batch_norm(network: nn.Module) -> Iterator[None]:
    """Within the ``with``, forwards make batch norm's running statistics anew: the mean of all batches', equally.

    All else of the network computes in the mode that it is in, so that in evaluation mode the statistics are of what
    batch norm meets in evaluation, with the statistics of each batch before it.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    # a residual block in training mode does not take its batch in parts
    modules = norms + [module for module in network.modules() if isinstance(module, ResidualBlock)]
    modes, momenta = [module.training for module in modules], [norm.momentum for norm in norms]
    for module in modules:
        module.training = True
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


class ResidualBlock(nn.Module):
    """(B, in, h, w) → (B, out, h/stride, w/stride): ReLU(f(r) + r) with r = ReLU(BN(conv(x)))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.values_per_pixel = out_channels / stride**2  # of the result, per pixel of x
        self.project = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )
        self.refine = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
        )

    @fast.in_parts
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r = self.project(x)
        return self.refine(r).add_(r).relu_()


class UpBlock(ResidualBlock):
    """(B, in, h, w) and a skip (B, out, 2h, 2w) → (B, out, 2h, 2w): the residual block of the doubled map.

    ``op`` says how the skip takes part: ``concat`` before the map's channels, ``add``; with ``none`` there is no skip.
    """

    def __init__(self, in_channels: int, out_channels: int, op: str):
        super().__init__(in_channels + out_channels if op == "concat" else in_channels, out_channels)
        self.values_per_pixel = 4 * out_channels
        self.op = op

    @fast.in_parts
    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        conv, norm, relu = self.project
        r = relu(norm(fast.convolve_joined(conv, x, skip, self.op)))
        return self.refine(r).add_(r).relu_()


class MaskedShortcut(nn.Module):
    """In training, lets a share 1 − ratio of the positions of x bypass a block (SQUID, section 3.4).

    ``ratio`` is the probability that a position takes the block's output. In evaluation all do.
    """

    def __init__(self, ratio: float):
        super().__init__()
        self.ratio = ratio

    def draw_mask(self, x: torch.Tensor) -> torch.Tensor:
        """One Bernoulli draw per (map, row, column), shared by all channels: (N, 1, h, w) bool."""
        return torch.bernoulli(torch.full_like(x[:, :1], self.ratio)).bool()

    def forward(self, replaced: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.ratio >= 1.0:
            return replaced
        return torch.where(self.draw_mask(x), replaced, x)
