"""The in-painting block at the bottleneck (SQUID, section 3.4): a patch is rebuilt from its neighbours' memories."""

import math

import torch
from torch import nn

from models.blocks import MaskedShortcut
from models.memory import Addressing, MemoryMatrix, MemoryQueue, read
from models.patches import position_bits


class NeighbourAttention(nn.Module):
    """Multi-head attention of every patch over its eight neighbours' memory features.

    Neighbours outside the grid are zero vectors that take part, unmasked. Each patch is projected once and
    the projections are gathered, which equals projecting every neighbourhood; a zero vector projects to the bias.
    """

    def __init__(self, per_side: int, dim: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, 3 * dim)  # query, key, value; starts as nn.MultiheadAttention does
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)
        grid = nn.functional.pad(torch.arange(per_side**2).reshape(per_side, per_side), (1, 1, 1, 1), value=-1)
        around = grid.unfold(0, 3, 1).unfold(1, 3, 1).reshape(per_side**2, 9)  # rows of 3 × 3, centre at 4
        neighbours = torch.cat([around[:, :4], around[:, 5:]], dim=1)  # (P², 8), −1 outside the grid
        self.register_buffer("neighbours", neighbours % (per_side**2 + 1), persistent=False)  # outside → P²

    def forward(self, query: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:  # (B, P², d) twice → (B, P², d)
        b, n, d = query.shape
        (w_q, w_kv), (b_q, b_kv) = self.in_proj.weight.split([d, 2 * d]), self.in_proj.bias.split([d, 2 * d])
        q = nn.functional.linear(query, w_q, b_q).reshape(b, n, self.heads, 1, d // self.heads)
        padded = nn.functional.pad(memory, (0, 0, 0, 1))  # (B, P² + 1, d), the last one the zero neighbour
        # not by indexing, whose gradient several threads would add up in any order
        kv = nn.functional.linear(padded, w_kv, b_kv).index_select(1, self.neighbours.flatten())  # (B, P²·8, 2d)
        k, v = kv.reshape(b, n, 8, 2, self.heads, -1).permute(3, 0, 1, 4, 2, 5)  # (B, P², heads, 8, d/heads) each
        weights = (q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)).softmax(
            -1, dtype=w_q.dtype
        )  # (B, P², heads, 1, 8)
        return self.out_proj((weights @ v).reshape(b, n, d))


class InpaintBlock(nn.Module):
    """(B·P², C, h, w) → same: reduce, read the memory, attend to the neighbours, mark the place, expand.

    The memory is a queue, or a learned matrix (``queue=False``), with slots of its own for every place if
    ``space_aware``; without ``attention`` what it gives goes straight on.
    """

    def __init__(
        self, per_side: int, channels: int, height: int, width: int, num_slots: int, addressing: Addressing,
        mask_ratio: float, dropout: float = 0.0, queue: bool = True, attention: bool = True,
        space_aware: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.locations = per_side**2
        reduced = channels // 4
        dim = reduced * height * width
        bits = position_bits(self.locations)  # (P², bits)
        self.reduce = nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU())
        places = self.locations if space_aware else 1
        self.memory = (MemoryQueue if queue else MemoryMatrix)(places, num_slots, dim, addressing)
        self.attention = NeighbourAttention(per_side, dim) if attention else None
        if attention:
            self.norm1 = nn.LayerNorm(dim)
            self.ff = nn.Sequential(
                nn.Linear(dim, dim // 4), nn.Dropout(dropout), nn.ReLU(), nn.Linear(dim // 4, dim), nn.Dropout(dropout)
            )
            self.norm2 = nn.LayerNorm(dim)
        self.register_buffer("bits", bits, persistent=False)
        self.expand = nn.Sequential(
            nn.Conv2d(reduced + bits.shape[1], channels, 1), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.reduce(x)  # (B·P², C/4, h, w)
        f = reduced.reshape(-1, self.locations, reduced[0].numel())  # (B, P², d)
        n = read(self.memory, f)
        if self.attention is not None:
            n = torch.relu(self.norm1(self.attention(f, n)) + n)
            n = torch.relu(self.norm2(self.ff(n)) + n)
        n = n.reshape(reduced.shape)
        place = self.bits.repeat(f.shape[0], 1)[:, :, None, None].expand(-1, -1, *n.shape[2:])  # (B·P², bits, h, w)
        return self.shortcut(self.expand(torch.cat([n, place], dim=1)), x)
