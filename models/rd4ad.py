"""RD4AD's student: a bottleneck that embeds a teacher's features, and a decoder that restores them.

Both are of residual blocks like Wide ResNet-50-2's: within, half as many channels as come out. No convolution has a
bias. Channels c₁, c₂, c₃ are the teacher's of layer1 … layer3, whose sides are h, h/2 and h/4.
"""

from collections.abc import Sequence

import torch
from torch import nn

EMBEDDING_BLOCKS = 3
DECODER_BLOCKS = (3, 4, 6)  # that restore layer3, layer2 and layer1


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def doubling(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Twice the side. Its weights start as PyTorch draws them."""
    return nn.ConvTranspose2d(c_in, c_out, 2, 2, bias=False)


class Block(nn.Module):
    """(B, c_in, h, w) → (B, c_out, h', w'). ``middle`` and, where the shape changes, ``skip`` give the side."""

    def __init__(self, c_in: int, c_out: int, middle: nn.Module, skip: nn.Module | None = None, rectified: bool = True):
        super().__init__()
        width = c_out // 2
        self.branch = nn.Sequential(
            conv(c_in, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
            middle, nn.BatchNorm2d(width), nn.ReLU(),
            conv(width, c_out, 1), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        self.skip = nn.Sequential(skip, nn.BatchNorm2d(c_out)) if skip else nn.Identity()
        self.last = nn.ReLU() if rectified else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.branch(x) + self.skip(x))


def stage(first: Block, c: int, count: int, rectified: bool = True) -> nn.Sequential:
    """``first``, and ``count`` − 1 blocks of c channels that keep its output's shape; the last may end linearly."""
    width = c // 2
    others = [Block(c, c, conv(width, width, 3), rectified=rectified or k + 1 < count) for k in range(1, count)]
    return nn.Sequential(first, *others)


class Bottleneck(nn.Module):
    """layer1 (B, c₁, h, w) … layer3 (B, c₃, h/4, w/4) → one embedding (B, 2·c₃, h/8, w/8)."""

    def __init__(self, channels: Sequence[int]):
        super().__init__()
        c1, c2, c3 = channels

        def halving(c_in: int, c_out: int) -> list[nn.Module]:
            return [conv(c_in, c_out, 3, stride=2), nn.BatchNorm2d(c_out), nn.ReLU()]

        self.from_layer1 = nn.Sequential(*halving(c1, c2), *halving(c2, c3))
        self.from_layer2 = nn.Sequential(*halving(c2, c3))
        first = Block(3 * c3, 2 * c3, conv(c3, c3, 3, stride=2), conv(3 * c3, 2 * c3, 1, stride=2))
        self.embedding = stage(first, 2 * c3, EMBEDDING_BLOCKS)

    def forward(self, layer1: torch.Tensor, layer2: torch.Tensor, layer3: torch.Tensor) -> torch.Tensor:
        f = torch.cat([self.from_layer1(layer1), self.from_layer2(layer2), layer3], dim=1)  # (B, 3·c₃, h/4, w/4)
        return self.embedding(f)


class Decoder(nn.Module):
    """An embedding (B, 2·c₃, h/8, w/8) → the teacher's layers, shallowest first: (B, c₁, h, w) … (B, c₃, h/4, w/4).

    ``rectified``: the restored layers end in a ReLU, as those of a ResNet or VGG do.
    """

    def __init__(self, channels: Sequence[int], rectified: bool = True):
        super().__init__()
        stages, c_in = [], 2 * channels[-1]
        for c_out, count in zip(reversed(channels), DECODER_BLOCKS, strict=True):
            first = Block(c_in, c_out, doubling(c_out // 2, c_out // 2), doubling(c_in, c_out))
            stages.append(stage(first, c_out, count, rectified))
            c_in = c_out
        self.stages = nn.ModuleList(stages)

    def forward(self, f: torch.Tensor) -> list[torch.Tensor]:
        restored = []
        for layer in self.stages:
            f = layer(f)
            restored.insert(0, f)
        return restored
