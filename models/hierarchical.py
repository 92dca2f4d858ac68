"""SimSID's hierarchical variant: no patches and no in-painting; every level's feature is rebuilt from slots."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from models.blocks import full_precision
from models.generator import Decoder, Encoder, Generated, taught
from models.memory import Memory, initial_slots
from models.patches import to_maps, to_patches
from models.sizes import CHANNEL_FACTORS, check_hierarchical_sizes

REDUCED = 128  # channels in which a level is rebuilt
KEY_DIM = 256


class KeyedMemory(Memory):
    """A learned memory with scaled dot-product attention of projected queries over projected slots."""

    def __init__(self, locations: int, num_slots: int, dim: int):
        super().__init__()
        self.slots = nn.Parameter(initial_slots(locations, num_slots, dim))
        self.to_query = nn.Linear(dim, KEY_DIM, bias=False)
        self.to_key = nn.Linear(dim, KEY_DIM, bias=False)

    def weights(self, query: torch.Tensor) -> torch.Tensor:  # (B, J, d) → (J, B, S)
        q = self.to_query(query).transpose(0, 1)  # (J, B, 256)
        k = self.to_key(self.slots).transpose(1, 2)  # (J, 256, S)
        with full_precision(query):
            return (q.to(self.slots) @ k.to(self.slots) / math.sqrt(KEY_DIM)).softmax(-1)


class LevelMemory(nn.Module):
    """(B, C, h, w) → same: reduce, cut into per_side × per_side locations, read each one's own slots, expand."""

    def __init__(self, per_side: int, channels: int, height: int, width: int, num_slots: int):
        super().__init__()
        self.per_side = per_side
        self.reduce = nn.Sequential(nn.Conv2d(channels, REDUCED, 1, bias=False), nn.BatchNorm2d(REDUCED), nn.ReLU())
        self.memory = KeyedMemory(per_side**2, num_slots, REDUCED * (height // per_side) * (width // per_side))
        self.expand = nn.Sequential(nn.Conv2d(REDUCED, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cut = to_patches(self.reduce(x), self.per_side)  # (B·J, 128, p, p), J = per_side²
        query = cut.reshape(x.shape[0], self.per_side**2, -1)  # (B, J, d)
        return self.expand(to_maps(self.memory(query).reshape(cut.shape), self.per_side))


class HierarchicalGenerator(nn.Module):
    """Encoder of whole images, a memory of 2 × 2, 4 × 4 … locations per level, student and teacher.

    Args:
        image_size: side H = W of the images; 2^(levels + 1) divides it.
        ops: how each up block joins the next level's memory output, deepest first; the last one is ``none``.
        num_slots: of every location of every level.
        teacher, teacher_gradient, tanh: as in :class:`models.generator.Generator`.
    Raises:
        ValueError: where the sizes cannot be built.
    """

    def __init__(
        self, image_size: int, levels: int, base_channels: int, ops: Sequence[str], num_slots: int,
        teacher: bool = True, teacher_gradient: bool = False, tanh: bool = False,
    ):  # fmt: skip
        super().__init__()
        check_hierarchical_sizes(image_size, levels, base_channels, ops)
        shape = (1, levels, base_channels, levels)
        self.encoder = Encoder(*shape, keeps=[False] + [True] * (levels - 1))  # the input block's feature is not used
        self.memories = nn.ModuleList()
        for i in range(levels):
            side = image_size // 2 ** (levels - i)
            channels = base_channels * CHANNEL_FACTORS[levels - i]
            self.memories.append(LevelMemory(2 ** (i + 1), channels, side, side, num_slots))
        self.student = Decoder(*shape, ops, tanh=tanh)
        self.teacher = Decoder(*shape, ops, tanh=tanh) if teacher else None
        self.teacher_gradient = teacher_gradient

    def forward(self, x: torch.Tensor, with_teacher: bool = True) -> Generated:
        f, skips = self.encoder(x)
        levels = [f, *reversed(skips[1:])]  # deepest first
        rebuilt = [memory(level) for memory, level in zip(self.memories, levels, strict=True)]
        with_teacher = with_teacher and self.teacher is not None
        student = self.student(rebuilt[0], [None, *reversed(rebuilt[1:])], with_teacher)
        return Generated(*student, *(taught(self, f, skips) if with_teacher else ()))
