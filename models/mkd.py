"""M-KD's student: a VGG with few channels but where it is compared."""

from collections.abc import Sequence

import torch
from torch import nn


def narrow_vgg16(channels: Sequence[int], width: int) -> list[tuple[int, ...]]:
    """Each block's convolutions, given the channels that the blocks after the first end with."""
    c1, c2, c3, c4 = channels
    return [(width, width), (width, c1), (width, width, c2), (width, width, c3), (width, width, c4)]


class Student(nn.Module):
    """(B, 3, H, W) → the outputs of all blocks but the first, shallowest first: (B, C, H/4, W/4), …

    A block is convolutions with batch norm and ReLU, and a max pooling, before which there is no batch norm.
    ``rectified``: there is a ReLU before it, as in VGG.
    """

    def __init__(self, blocks: Sequence[Sequence[int]], rectified: bool = True):
        super().__init__()
        self.blocks, c_in = nn.ModuleList(), 3
        for widths in blocks:
            layers: list[nn.Module] = []
            for c_out in widths:
                layers += [nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
                c_in = c_out
            last = [nn.ReLU()] if rectified else []
            self.blocks.append(nn.Sequential(*layers[:-2], *last, nn.MaxPool2d(2)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, f: torch.Tensor) -> list[torch.Tensor]:
        found = []
        for block in self.blocks:
            f = block(f)
            found.append(f)
        return found[1:]
