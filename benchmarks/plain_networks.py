"""SQUID's networks in the plain arrangement of the released program (squid.md), written out here, so that nothing that
makes the package's own fast gets in; :func:`plain_state` brings the package's weights into them.

The memories of the places are modules of their own, read one after another. Every patch's eight neighbours are gathered
and attended to by torch's nn.MultiheadAttention, all patches in one call.
"""

import torch
from torch import nn
from torch.nn import functional as F

from configs import BaseConfig
from models.patches import position_bits

FACTORS = (1, 2, 4, 8, 16, 16)


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int = 1):
        super().__init__()
        self.project = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1), nn.BatchNorm2d(c_out), nn.ReLU())
        self.refine = nn.Sequential(
            nn.Conv2d(c_out, c_out, 3, 1, 1), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1), nn.BatchNorm2d(c_out),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r = self.project(x)
        return F.relu(self.refine(r) + r)


class Place(nn.Module):
    """The memory of one place: slots (S, d), learned or a queue. (N, d) → (N, d)."""

    def __init__(self, num_slots: int, dim: int, config: BaseConfig, learned: bool):
        super().__init__()
        self.top_k, self.threshold = config.gumbel_top_k, config.shrink_threshold
        self.pointer = 0
        slots = torch.zeros(num_slots, dim)
        if learned:
            self.slots = nn.Parameter(slots)
        else:
            self.register_buffer("slots", slots)

    def forward(self, query: torch.Tensor) -> torch.Tensor:
        similarity = F.linear(query, self.slots)  # (N, S)
        if not self.top_k:
            return shrunk(similarity, self.threshold) @ self.slots
        soft = similarity.softmax(-1)
        hard = shrunk(soft, soft.topk(self.top_k, -1).values[:, -1:])
        return ((hard - soft).detach() + soft) @ self.slots

    def enqueue(self, rows: torch.Tensor) -> None:  # (N, d)
        size = len(self.slots)
        index = torch.arange(self.pointer, self.pointer + len(rows), device=rows.device) % size
        self.slots[index[-size:]] = rows[-size:]
        self.pointer = (self.pointer + len(rows)) % size


def shrunk(weights: torch.Tensor, threshold: float | torch.Tensor) -> torch.Tensor:
    kept = F.relu(weights - threshold) * weights / ((weights - threshold).abs() + 1e-12)
    return F.normalize(kept, p=1, dim=-1)


def mixed(module: nn.Module, replaced: torch.Tensor, x: torch.Tensor, ratio: float) -> torch.Tensor:
    """The masked shortcut: in training 1 − ratio of the positions stay as they were."""
    if not module.training:
        return replaced
    mask = torch.bernoulli(torch.full_like(x[:, :1], ratio))
    return mask * replaced + (1 - mask) * x


class Windows(nn.Module):
    """V1: each map is cut into windows, one place's memory after another rebuilds its own."""

    def __init__(self, channels: int, side: int, config: BaseConfig):
        super().__init__()
        self.per_side, self.side, self.ratio = (
            config.patches_per_side,
            side // config.patches_per_side,
            config.mask_ratio,
        )
        dim = channels * self.side**2
        self.places = nn.ModuleList(Place(config.matrix_slots, dim, config, True) for _ in range(self.per_side**2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, C, h, w) → same
        n, c, s = x.shape[0], x.shape[1], self.side
        rows = []
        for row in range(self.per_side):
            windows = []
            for column in range(self.per_side):
                window = x[:, :, row * s : (row + 1) * s, column * s : (column + 1) * s].permute(0, 2, 3, 1)
                read = self.places[row * self.per_side + column](window.reshape(n, -1))  # (N, d)
                windows.append(read.reshape(n, s, s, c).permute(0, 3, 1, 2))
            rows.append(torch.cat(windows, dim=3))
        return mixed(self, torch.cat(rows, dim=2), x, self.ratio)


class Inpaint(nn.Module):
    """(B·P², C, h, w) → same: reduce, read place after place, attend to the neighbours, mark the place, expand."""

    def __init__(self, channels: int, side: int, config: BaseConfig):
        super().__init__()
        self.per_side, self.ratio = config.patches_per_side, config.mask_ratio
        reduced = channels // 4
        dim = reduced * side**2
        bits = position_bits(self.per_side**2)  # (P², bits)
        self.reduce = nn.Sequential(nn.Conv2d(channels, reduced, 1, bias=False), nn.BatchNorm2d(reduced), nn.ReLU())
        self.places = nn.ModuleList(Place(config.queue_slots, dim, config, False) for _ in range(self.per_side**2))
        self.attention = nn.MultiheadAttention(dim, 8)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        drop = config.dropout
        self.ff = nn.Sequential(
            nn.Linear(dim, dim // 4), nn.Dropout(drop), nn.ReLU(), nn.Linear(dim // 4, dim), nn.Dropout(drop)
        )
        self.register_buffer("bits", bits, persistent=False)
        expanded = nn.Conv2d(reduced + bits.shape[1], channels, 1)
        self.expand = nn.Sequential(expanded, nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.reduce(x)  # (B·P², C/4, h, w)
        f = reduced.reshape(-1, len(self.places), reduced[0].numel())  # (B, P², d)
        if self.training:
            self.pending = f.detach()
        n = torch.stack([place(f[:, j]) for j, place in enumerate(self.places)], dim=1)  # (B, P², d)
        n = F.relu(self.norm1(self.attended(f, n)) + n)
        n = F.relu(self.norm2(self.ff(n)) + n).reshape(reduced.shape)
        bits = self.bits.repeat(len(f), 1)[:, :, None, None].expand(-1, -1, *n.shape[2:])  # (B·P², bits, h, w)
        return mixed(self, self.expand(torch.cat([n, bits], dim=1)), x, self.ratio)

    def attended(self, f: torch.Tensor, n: torch.Tensor) -> torch.Tensor:  # (B, P², d) twice → (B, P², d)
        b, _, d = n.shape
        grid = F.pad(n.transpose(1, 2).reshape(b, d, self.per_side, self.per_side), (1, 1, 1, 1))
        around = grid.unfold(2, 3, 1).unfold(3, 3, 1).permute(4, 5, 0, 2, 3, 1).reshape(9, -1, d)  # (9, B·P², d)
        neighbours = torch.cat([around[:4], around[5:]])
        found, _ = self.attention(f.reshape(1, -1, d), neighbours, neighbours, need_weights=False)  # (1, B·P², d)
        return found.reshape(f.shape)

    @torch.no_grad()
    def enqueue(self) -> None:
        for j, place in enumerate(self.places):
            place.enqueue(self.pending[:, j])


def to_patches(x: torch.Tensor, p: int) -> torch.Tensor:
    """(B, C, H, W) → (B·P², C, H/P, W/P), the patch index fastest in the batch."""
    b, c, h, w = x.shape
    cut = x.reshape(b, c, p, h // p, p, w // p).permute(0, 2, 4, 1, 3, 5)  # (B, P, P, C, h, w)
    return cut.reshape(-1, c, h // p, w // p)


def to_maps(x: torch.Tensor, p: int) -> torch.Tensor:
    """The inverse of :func:`to_patches`."""
    _, c, h, w = x.shape
    return x.reshape(-1, p, p, c, h, w).permute(0, 3, 1, 4, 2, 5).reshape(-1, c, p * h, p * w)


class Encoder(nn.Module):
    def __init__(self, channels: list[int], config: BaseConfig):
        super().__init__()
        self.per_side, self.combine = config.patches_per_side, config.initial_combine
        self.input_block = Residual(1, channels[0])
        self.down_blocks = nn.ModuleList(Residual(channels[i], channels[i + 1], 2) for i in range(config.levels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x = self.input_block(to_patches(x, self.per_side))  # (B·P², C_0, H/P, W/P)
        skips = []
        for i, down in enumerate(self.down_blocks):
            skips.append(to_maps(x, self.per_side) if i < self.combine else x)
            x = down(x)
        return x, skips


class Decoder(nn.Module):
    def __init__(self, channels: list[int], config: BaseConfig, with_memory: bool):
        super().__init__()
        self.per_side, self.combine, self.ops = config.patches_per_side, config.initial_combine, config.ops
        self.up_blocks, self.memories = nn.ModuleList(), nn.ModuleList()
        for i, (op, memory) in enumerate(zip(config.ops, config.decoder_memory, strict=True)):
            level = config.levels - 1 - i
            whole = level < self.combine
            side = config.image_size // (1 if whole else self.per_side) // 2**level
            skip = channels[level] if op == "concat" else 0
            self.up_blocks.append(Residual(channels[level + 1] + skip, channels[level]))
            remembers = with_memory and memory == "V1"
            self.memories.append(Windows(channels[level], side, config) if remembers else nn.Identity())
        self.output = nn.Conv2d(channels[0], 1, 1)

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = []
        for i, (op, up, memory) in enumerate(zip(self.ops, self.up_blocks, self.memories, strict=True)):
            if len(self.ops) - i == self.combine:
                x = to_maps(x, self.per_side)
            skip = skips[-1 - i]
            x = F.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = torch.cat([skip, x], dim=1) if op == "concat" else skip + x if op == "add" else x
            x = memory(up(x))
            features.append(x)
        return torch.sigmoid(self.output(x)), features


class Generator(nn.Module):
    def __init__(self, config: BaseConfig):
        super().__init__()
        channels = [config.base_channels * factor for factor in FACTORS[: config.levels + 1]]
        side = config.image_size // config.patches_per_side // 2**config.levels
        self.encoder = Encoder(channels, config)
        self.inpaint = Inpaint(channels[-1], side, config)
        self.student = Decoder(channels, config, with_memory=True)
        self.teacher = Decoder(channels, config, with_memory=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list, torch.Tensor, list]:
        f, skips = self.encoder(x)
        student = self.student(self.inpaint(f), skips)
        return *student, *self.teacher(f.detach(), [skip.detach() for skip in skips])


class Discriminator(nn.Module):
    def __init__(self, image_size: int):
        super().__init__()
        channels = (1, 16, 32, 64, 128, 128)
        self.convs = nn.ModuleList(nn.Conv2d(channels[i], channels[i + 1], 5, 2, 2) for i in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels[2:])
        side = -(-image_size // 32)
        self.regressor = nn.Linear(channels[-1] * side**2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.convs[0](x), 0.2)
        for conv, norm in zip(self.convs[1:], self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return self.regressor(x.flatten(1))


def plain_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The generator's state of :class:`methods.squid.Squid` → by the names here: an entry for each place."""
    found = {}
    for name, value in state.items():
        if name.endswith("memory.slots"):
            found |= {f"{name.removesuffix('memory.slots')}places.{j}.slots": slots for j, slots in enumerate(value)}
        elif name != "inpaint.memory.pointer":
            found[name.replace("attention.in_proj.", "attention.in_proj_")] = value
    return found
