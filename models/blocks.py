"""The residual block and the masked shortcut, of which every SQUID-like network is made."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


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


class ResidualBlock(nn.Module):
    """(B, in, h, w) → (B, out, h/stride, w/stride): ReLU(f(r) + r) with r = ReLU(BN(conv(x)))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r = self.project(x)
        return (self.refine(r) + r).relu_()


class MaskedShortcut(nn.Module):
    """In training, lets a share 1 − ratio of the positions of x bypass a block (SQUID, section 3.4).

    ``ratio`` is the probability that a position takes the block's output. In evaluation all do.
    """

    def __init__(self, ratio: float):
        super().__init__()
        self.ratio = ratio

    def draw_mask(self, x: torch.Tensor) -> torch.Tensor:
        """One Bernoulli draw per (map, row, column), shared by all channels: (N, 1, h, w)."""
        return torch.bernoulli(torch.full_like(x[:, :1], self.ratio))

    def forward(self, replaced: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.ratio >= 1.0:
            return replaced
        mask = self.draw_mask(x)  # (N, 1, h, w)
        return mask * replaced + (1 - mask) * x
