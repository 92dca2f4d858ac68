"""Space-aware memories: one set of slots per location, stored and read together.

All locations of a memory are one tensor (locations, slots, dim) and are read with batched products.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from models.blocks import MaskedShortcut, full_precision
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
    hard = hard_shrinkage(soft, threshold)
    return (hard - soft).detach() + soft


def hard_shrinkage(weights: torch.Tensor, threshold: float | torch.Tensor) -> torch.Tensor:
    """ReLU(w − λ)·w / (|w − λ| + 1e-12), L1-normalised (Gong et al. 2019, equation 7). (..., slots) → same."""
    above = weights - threshold
    kept = torch.relu(above) * weights / (above.abs() + 1e-12)
    return nn.functional.normalize(kept, p=1, dim=-1, eps=1e-12)


@dataclass(frozen=True)
class Addressing:
    """How queries and slots become slot weights: by their products, or by the products of their directions (``cosine``:
    no slot wins by its length); then by Gumbel (``gumbel_top_k`` > 0) or hard shrinkage (``threshold`` > 0), or none.
    """

    gumbel_top_k: int = 0
    threshold: float = 0.0
    cosine: bool = False

    @property
    def shrinks(self) -> bool:
        return bool(self.gumbel_top_k or self.threshold)

    def __call__(self, query: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(J, B, d) and (J, S, d) → (J, B, S)."""
        if self.cosine:
            query, slots = (nn.functional.normalize(each, dim=-1) for each in (query, slots))
        similarity = query @ slots.transpose(1, 2)
        if self.gumbel_top_k:
            return gumbel_shrinkage(similarity, self.gumbel_top_k)
        if self.threshold:
            return hard_shrinkage(similarity, self.threshold)
        return similarity


def read(memory: "Memory", query: torch.Tensor) -> torch.Tensor:
    """All places' queries (B, J, d) → what they read, same; where a memory has one set of slots, all read from it."""
    return memory(query.reshape(-1, len(memory.slots), query.shape[-1])).reshape(query.shape)


def initial_slots(locations: int, num_slots: int, dim: int) -> torch.Tensor:
    """U(−1/√d, 1/√d): (J, S, d)."""
    bound = 1 / math.sqrt(dim)
    return torch.empty(locations, num_slots, dim).uniform_(-bound, bound)


class Memory(nn.Module):
    """Location j of every image reads its own ``slots[j]``; a subclass owns ``slots`` (J, S, d) and ``addressing``."""

    slots: torch.Tensor
    addressing: Addressing

    def weights(self, query: torch.Tensor) -> torch.Tensor:
        """How much each slot has in what the queries read: (B, J, d) → (J, B, S)."""
        with full_precision(query):  # close similarities decide which slots are read
            return self.addressing(query.to(self.slots).transpose(0, 1), self.slots)

    def forward(self, query: torch.Tensor) -> torch.Tensor:  # (B, J, d) → (B, J, d)
        return (self.weights(query) @ self.slots).transpose(0, 1)


class MemoryQueue(Memory):
    """The bottleneck's memory: a ring of the latest training features per location (SQUID, section 3.3).

    Slots and pointer are buffers, so no gradient reaches them. A training forward remembers its queries;
    :meth:`enqueue` writes them over the oldest rows.
    """

    def __init__(self, locations: int, num_slots: int, dim: int, addressing: Addressing):
        super().__init__()
        self.addressing = addressing
        self.register_buffer("slots", initial_slots(locations, num_slots, dim))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.pending: torch.Tensor | None = None

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.pending = query.detach().to(self.slots)
        return super().forward(query)

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


class MemoryMatrix(Memory):
    """A learned memory: gradients flow into the slots. Without shrinkage the weights are a softmax (SimSID)."""

    def __init__(self, locations: int, num_slots: int, dim: int, addressing: Addressing):
        super().__init__()
        self.addressing = addressing
        self.slots = nn.Parameter(initial_slots(locations, num_slots, dim))

    def weights(self, query: torch.Tensor) -> torch.Tensor:
        weights = super().weights(query)
        return weights if self.addressing.shrinks else weights.softmax(-1)


class ReducedMatrix(Memory):
    """A learned memory of ``slot_dim`` dimensions between two linear maps, all per location (SimSID's dim_reduce)."""

    def __init__(self, locations: int, num_slots: int, dim: int, slot_dim: int, addressing: Addressing):
        super().__init__()
        self.addressing = addressing
        self.down = nn.Parameter(initial_slots(locations, slot_dim, dim))  # (J, slot_dim, d), starts as nn.Linear does
        self.slots = nn.Parameter(initial_slots(locations, num_slots, slot_dim))
        self.up = nn.Parameter(initial_slots(locations, dim, slot_dim))  # (J, d, slot_dim)

    def weights(self, query: torch.Tensor) -> torch.Tensor:
        reduced = query.transpose(0, 1) @ self.down.transpose(1, 2)  # (J, B, slot_dim)
        return super().weights(reduced.transpose(0, 1))

    def forward(self, query: torch.Tensor) -> torch.Tensor:  # (B, J, d) → (B, J, d)
        reduced = super().forward(query).transpose(0, 1)  # (J, B, slot_dim)
        return (reduced @ self.up.transpose(1, 2)).transpose(0, 1)


@contextmanager
def recorded_weights(network: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Within the ``with``, keep the slot weights of every memory of ``network`` that is read.

    Yields:
        The memory's name → (J, N, S) of its latest forward: its locations, the maps or images it was given, its slots.
    """
    found: dict[str, torch.Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda memory, inputs, output: found.update({name: memory.weights(*inputs).detach()})

    hooks = [m.register_forward_hook(record(name)) for name, m in network.named_modules() if isinstance(m, Memory)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


class WindowMemory(nn.Module):
    """V1: each incoming map is cut again into P × P windows, each position with its own slots (if ``space_aware``).

    (N, C, h, w) → same; a window is one query of d = h/P · w/P · C values in the order (row, column, channel), or
    (channel, row, column) with ``channels_first``. ``slot_dim`` > 0 reads a :class:`ReducedMatrix` of that many.
    """

    def __init__(
        self, per_side: int, channels: int, height: int, width: int, num_slots: int, addressing: Addressing,
        mask_ratio: float, channels_first: bool = False, slot_dim: int = 0, space_aware: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.per_side = per_side
        self.channels_first = channels_first
        dim = (height // per_side) * (width // per_side) * channels
        places = per_side**2 if space_aware else 1
        if slot_dim:
            self.memory = ReducedMatrix(places, num_slots, dim, slot_dim, addressing)
        else:
            self.memory = MemoryMatrix(places, num_slots, dim, addressing)
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = to_patches(x, self.per_side)  # (N·P², C, h/P, w/P)
        if not self.channels_first:
            windows = windows.permute(0, 2, 3, 1)  # (N·P², h/P, w/P, C)
        query = windows.reshape(x.shape[0], self.per_side**2, -1)  # (N, P², d)
        out = read(self.memory, query).reshape(windows.shape)
        if not self.channels_first:
            out = out.permute(0, 3, 1, 2)  # (N·P², C, h/P, w/P)
        return self.shortcut(to_maps(out, self.per_side), x)


class ReducedPatchMemory(nn.Module):
    """V2: one query per patch, in a quarter of the channels. (B·P², C, h, w) → same, d = C/4 · h · w."""

    def __init__(
        self, per_side: int, channels: int, height: int, width: int, num_slots: int, addressing: Addressing,
        mask_ratio: float, space_aware: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.locations = per_side**2
        reduced = channels // 4
        self.reduce = nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU())
        self.memory = MemoryMatrix(
            self.locations if space_aware else 1, num_slots, reduced * height * width, addressing
        )
        self.expand = nn.Sequential(nn.Conv2d(reduced, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.reduce(x)  # (B·P², C/4, h, w)
        query = f.reshape(-1, self.locations, f[0].numel())  # (B, P², d)
        return self.shortcut(self.expand(read(self.memory, query).reshape(f.shape)), x)


class PatchMemory(nn.Module):
    """V3: a whole patch feature is one query. (B·P², C, h, w) → same, order (channel, row, column), d = C·h·w."""

    def __init__(
        self, per_side: int, channels: int, height: int, width: int, num_slots: int, addressing: Addressing,
        mask_ratio: float, space_aware: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.locations = per_side**2
        self.memory = MemoryMatrix(
            self.locations if space_aware else 1, num_slots, channels * height * width, addressing
        )
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = x.reshape(-1, self.locations, x[0].numel())  # (B, P², d)
        return self.shortcut(read(self.memory, query).reshape(x.shape), x)


class SharedMemory(nn.Module):
    """V4: one set of slots for all places, so not space-aware; each incoming map is one query.

    (N, C, h, w) → same, order (window row, window column, row, column, channel), d = C·h·w.
    """

    def __init__(
        self, per_side: int, channels: int, height: int, width: int, num_slots: int, addressing: Addressing,
        mask_ratio: float,
    ):  # fmt: skip
        super().__init__()
        self.per_side = per_side
        self.memory = MemoryMatrix(1, num_slots, channels * height * width, addressing)
        self.shortcut = MaskedShortcut(mask_ratio)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = to_patches(x, self.per_side).permute(0, 2, 3, 1)  # (N·P², h/P, w/P, C)
        query = windows.reshape(x.shape[0], 1, -1)  # (N, 1, d)
        out = self.memory(query).reshape(windows.shape).permute(0, 3, 1, 2)
        return self.shortcut(to_maps(out, self.per_side), x)


DECODER_MEMORIES = {"V1": WindowMemory, "V2": ReducedPatchMemory, "V3": PatchMemory, "V4": SharedMemory}
