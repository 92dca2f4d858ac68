"""Space-aware memories: one set of slots per location, stored and read together.

All locations of a memory are one tensor (locations, slots, dim) and are read with batched products.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from models.blocks import MaskedShortcut
from models.patches import to_maps, to_patches


def gumbel_shrinkage(similarity: torch.Tensor, top_k: int) -> torch.Tensor:
    """Keep the softmax weights strictly above the k-th largest, L1-normalised; gradient straight through.

    The released program keeps k − 1 entries, since the k-th is not above itself; ties with it drop too.

    Args:
        similarity: (..., slots), any range.
        top_k: 1 … slots.
    Returns:
        (..., slots) weights ≥ 0, up to rounding, that add up to 1 (to 0 where none survives).
    """
    soft = similarity.softmax(-1)
    threshold = soft.topk(top_k, dim=-1).values[..., -1:]
    hard = _shrink_and_normalise(soft, threshold)
    return (hard - soft).detach() + soft


def hard_shrinkage(weights: torch.Tensor, threshold: float) -> torch.Tensor:
    """ReLU(w − λ)·w / (|w − λ| + 1e-12), L1-normalised (Gong et al. 2019, equation 7). (..., slots) → same."""
    return _shrink_and_normalise(weights, threshold)


def _shrink_and_normalise(weights, threshold):
    above = weights - threshold
    kept = torch.relu(above) * weights / (above.abs() + 1e-12)
    return nn.functional.normalize(kept, p=1, dim=-1, eps=1e-12)


@dataclass(frozen=True)
class Shrinkage:
    """How similarities become slot weights: Gumbel (``gumbel_top_k`` > 0) or hard (``threshold`` > 0)."""

    gumbel_top_k: int = 0
    threshold: float = 0.0

    def __call__(self, similarity: torch.Tensor) -> torch.Tensor:
        if self.gumbel_top_k:
            return gumbel_shrinkage(similarity, self.gumbel_top_k)
        return hard_shrinkage(similarity, self.threshold)


def read(query: torch.Tensor, slots: torch.Tensor, shrinkage: Shrinkage) -> torch.Tensor:
    """Location j of every image reads its own slots j. (B, J, d), (J, S, d) → (B, J, d)."""
    similarity = query.transpose(0, 1) @ slots.transpose(1, 2)  # (J, B, S)
    weights = shrinkage(similarity)
    return (weights @ slots).transpose(0, 1)  # (B, J, d)


def initial_slots(locations: int, num_slots: int, dim: int) -> torch.Tensor:
    """U(−1/√d, 1/√d): (J, S, d)."""
    bound = 1 / math.sqrt(dim)
    return torch.empty(locations, num_slots, dim).uniform_(-bound, bound)


class MemoryQueue(nn.Module):
    """The bottleneck's memory: a ring of the latest training features per location (SQUID, section 3.3).

    Slots and pointer are buffers. A training forward remembers its queries; :meth:`enqueue` writes them
    over the oldest rows.
    """

    def __init__(self, locations: int, num_slots: int, dim: int, shrinkage: Shrinkage):
        super().__init__()
        self.shrinkage = shrinkage
        self.register_buffer("slots", initial_slots(locations, num_slots, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.pending: torch.Tensor | None = None

    def forward(self, query: torch.Tensor) -> torch.Tensor:  # (B, J, d) → (B, J, d)
        if self.training:
            self.pending = query.detach()
        return read(query, self.slots.detach(), self.shrinkage)

    @torch.no_grad()
    def enqueue(self) -> None:
        """Overwrite the next rows of the ring with the remembered queries; does nothing when there are none."""
        if self.pending is None:
            return
        num_slots = self.slots.shape[1]
        count = self.pending.shape[0]
        rows = self.pending.transpose(0, 1)[:, -num_slots:]  # (J, ≤ S, d): of more rows than slots the last remain
        position = torch.arange(count - rows.shape[1], count, device=rows.device)
        self.slots[:, (self.pointer + position) % num_slots] = rows
        self.pointer.copy_((self.pointer + count) % num_slots)
        self.pending = None


class MemoryMatrix(nn.Module):
    """A learned memory: gradients flow into the slots. Reads (B, J, d) → (B, J, d)."""

    def __init__(self, locations: int, num_slots: int, dim: int, shrinkage: Shrinkage):
        super().__init__()
        self.shrinkage = shrinkage
        self.slots = nn.Parameter(initial_slots(locations, num_slots, dim))

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        return read(query, self.slots, self.shrinkage)


class WindowMemory(nn.Module):
    """V1: each incoming map is cut again into P × P windows, each position with its own slots.

    (N, C, h, w) → same; a window is one query in the order (row, column, channel), d = h/P · w/P · C.
    """

    needs_patches = False

    def __init__(self, per_side, channels, height, width, num_slots, shrinkage, mask_ratio):
        super().__init__()
        self.per_side = per_side
        dim = (height // per_side) * (width // per_side) * channels
        self.memory = MemoryMatrix(per_side**2, num_slots, dim, shrinkage)
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = to_patches(x, self.per_side).permute(0, 2, 3, 1)  # (N·P², h/P, w/P, C)
        query = windows.reshape(x.shape[0], self.per_side**2, -1)  # (N, P², d)
        out = self.memory(query).reshape(windows.shape).permute(0, 3, 1, 2)
        return self.shortcut(to_maps(out, self.per_side), x)


class ReducedPatchMemory(nn.Module):
    """V2: one query per patch, in a quarter of the channels. (B·P², C, h, w) → same, d = C/4 · h · w."""

    needs_patches = True

    def __init__(self, per_side, channels, height, width, num_slots, shrinkage, mask_ratio):
        super().__init__()
        self.locations = per_side**2
        reduced = channels // 4
        self.reduce = nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU())
        self.memory = MemoryMatrix(self.locations, num_slots, reduced * height * width, shrinkage)
        self.expand = nn.Sequential(nn.Conv2d(reduced, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.reduce(x)  # (B·P², C/4, h, w)
        query = f.reshape(-1, self.locations, f[0].numel())  # (B, P², d)
        return self.shortcut(self.expand(self.memory(query).reshape(f.shape)), x)


class PatchMemory(nn.Module):
    """V3: a whole patch feature is one query. (B·P², C, h, w) → same, order (channel, row, column), d = C·h·w."""

    needs_patches = True

    def __init__(self, per_side, channels, height, width, num_slots, shrinkage, mask_ratio):
        super().__init__()
        self.locations = per_side**2
        self.memory = MemoryMatrix(self.locations, num_slots, channels * height * width, shrinkage)
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = x.reshape(-1, self.locations, x[0].numel())  # (B, P², d)
        return self.shortcut(self.memory(query).reshape(x.shape), x)


class SharedMemory(nn.Module):
    """V4: one set of slots for all places, so not space-aware; each incoming map is one query.

    (N, C, h, w) → same, order (window row, window column, row, column, channel), d = C·h·w.
    """

    needs_patches = False

    def __init__(self, per_side, channels, height, width, num_slots, shrinkage, mask_ratio):
        super().__init__()
        self.per_side = per_side
        self.memory = MemoryMatrix(1, num_slots, channels * height * width, shrinkage)
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = to_patches(x, self.per_side).permute(0, 2, 3, 1)  # (N·P², h/P, w/P, C)
        query = windows.reshape(x.shape[0], 1, -1)  # (N, 1, d)
        out = self.memory(query).reshape(windows.shape).permute(0, 3, 1, 2)
        return self.shortcut(to_maps(out, self.per_side), x)


DECODER_MEMORIES = {"V1": WindowMemory, "V2": ReducedPatchMemory, "V3": PatchMemory, "V4": SharedMemory}
