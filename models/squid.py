"""SQUID's generator: a residual encoder on patches, the in-painting bottleneck, student and teacher decoders."""

from typing import NamedTuple

import torch
from torch import nn

from models.blocks import ResidualBlock
from models.inpaint import InpaintBlock
from models.memory import DECODER_MEMORIES, Shrinkage
from models.patches import to_maps, to_patches

CHANNEL_FACTORS = (1, 2, 4, 8, 16, 16)


class Generated(NamedTuple):
    """What the generator makes of images (B, 1, H, W) in [0, 1]."""

    x_hat: torch.Tensor  # (B, 1, H, W) in [0, 1]: the student's reconstruction
    features: list[torch.Tensor]  # the student's feature after each level's memory, deepest first
    teacher_x_hat: torch.Tensor | None = None
    teacher_features: list[torch.Tensor] | None = None


class Encoder(nn.Module):
    """(B, 1, H, W) → bottleneck (B·P², C_L, h, w) and the input of every down block as skips."""

    def __init__(self, patches_per_side: int, levels: int, base_channels: int, initial_combine: int):
        super().__init__()
        channels = [base_channels * f for f in CHANNEL_FACTORS[: levels + 1]]
        self.patches_per_side = patches_per_side
        self.initial_combine = initial_combine
        self.input_block = ResidualBlock(1, channels[0])
        self.down_blocks = nn.ModuleList(ResidualBlock(channels[i], channels[i + 1], stride=2) for i in range(levels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        f = self.input_block(to_patches(x, self.patches_per_side))  # (B·P², C_0, H/P, W/P)
        skips = []
        for i, down in enumerate(self.down_blocks):
            # shallow skips feed decoder blocks that see whole maps
            skips.append(to_maps(f, self.patches_per_side) if i < self.initial_combine else f)
            f = down(f)  # (B·P², C_{i+1}, H/P/2^(i+1), …)
        return f, skips


class Decoder(nn.Module):
    """Bottleneck (B·P², C_L, h, w) and skips → image (B, 1, H, W) and the feature of every level.

    ``ops`` and ``memories`` run deepest first; ``memories`` holds a module or None for every level.
    """

    def __init__(self, patches_per_side, levels, base_channels, initial_combine, ops, memories):
        super().__init__()
        channels = [base_channels * f for f in CHANNEL_FACTORS[: levels + 1]]
        self.patches_per_side = patches_per_side
        self.initial_combine = initial_combine
        self.ops = tuple(ops)
        self.up_blocks = nn.ModuleList()
        for i, op in enumerate(self.ops):
            deep, shallow = channels[levels - i], channels[levels - 1 - i]
            self.up_blocks.append(ResidualBlock(deep + shallow if op == "concat" else deep, shallow))
        self.memories = nn.ModuleList(memory or nn.Identity() for memory in memories)
        self.output = nn.Conv2d(channels[0], 1, 1)

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features = []
        for i, (op, up, memory) in enumerate(zip(self.ops, self.up_blocks, self.memories, strict=True)):
            if len(self.ops) - i == self.initial_combine:
                x = to_maps(x, self.patches_per_side)
            skip = skips[-1 - i]
            x = nn.functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            if op == "concat":
                x = torch.cat([skip, x], dim=1)
            elif op == "add":
                x = skip + x
            x = memory(up(x))  # (B·P² or B, C_{L−1−i}, …)
            features.append(x)
        return torch.sigmoid(self.output(x)), features


class Generator(nn.Module):
    """SQUID's encoder, in-painting block, student generator and (with ``teacher``) teacher generator.

    Args:
        image_size: side H = W of the images; patches_per_side · 2^levels divides it.
        ops: how each up block joins its skip, deepest first: ``concat``, ``add`` or ``none``.
        decoder_memory: the memory after each up block, deepest first: a name of DECODER_MEMORIES or ``none``.
    Raises:
        ValueError: where the sizes cannot be built.
    """

    def __init__(
        self, image_size, patches_per_side, levels, base_channels, initial_combine, ops, decoder_memory,
        queue_slots, matrix_slots, shrinkage: Shrinkage, mask_ratio, dropout=0.0, teacher=True,
    ):  # fmt: skip
        super().__init__()
        check_sizes(image_size, patches_per_side, levels, base_channels, initial_combine, ops, decoder_memory)
        shape = (patches_per_side, levels, base_channels, initial_combine)
        patch = image_size // patches_per_side
        memories = []
        for i, name in enumerate(decoder_memory):
            level = levels - 1 - i
            side = (patch if levels - i > initial_combine else image_size) // 2**level
            channels = base_channels * CHANNEL_FACTORS[level]
            memories.append(
                DECODER_MEMORIES[name](patches_per_side, channels, side, side, matrix_slots, shrinkage, mask_ratio)
                if name != "none"
                else None
            )
        side = patch // 2**levels
        channels = base_channels * CHANNEL_FACTORS[levels]
        self.encoder = Encoder(*shape)
        self.inpaint = InpaintBlock(patches_per_side, channels, side, side, queue_slots, shrinkage, mask_ratio, dropout)
        self.student = Decoder(*shape, ops, memories)
        self.teacher = Decoder(*shape, ops, [None] * levels) if teacher else None

    def forward(self, x: torch.Tensor, with_teacher: bool = True) -> Generated:
        f, skips = self.encoder(x)
        student = self.student(self.inpaint(f), skips)
        if self.teacher is None or not with_teacher:
            return Generated(*student)
        # the teacher reads detached features, so that nothing of it reaches the encoder
        return Generated(*student, *self.teacher(f.detach(), [skip.detach() for skip in skips]))


def check_sizes(image_size, patches_per_side, levels, base_channels, initial_combine, ops, decoder_memory) -> None:
    """Raise a ValueError that names the setting where a network of these sizes cannot be built."""
    if not 1 <= levels < len(CHANNEL_FACTORS):
        raise ValueError(f"levels = {levels}: 1 to {len(CHANNEL_FACTORS) - 1} levels can be built.")
    step = patches_per_side * 2**levels
    if image_size % step:
        raise ValueError(
            f"image_size = {image_size} is not divisible by patches_per_side · 2^levels = {step}; "
            f"take {max(image_size // step, 1) * step} or {(image_size // step + 1) * step}."
        )
    if not 1 <= initial_combine <= levels:
        raise ValueError(f"initial_combine = {initial_combine}: must lie in 1 … levels = {levels}.")
    for name, entries, known in (
        ("ops", ops, ("concat", "add", "none")),
        ("decoder_memory", decoder_memory, (*DECODER_MEMORIES, "none")),
    ):
        if len(entries) != levels:
            raise ValueError(f"{name} = {','.join(entries)}: needs one entry per level, {levels} in all.")
        for entry in entries:
            if entry not in known:
                raise ValueError(f"{name}: unknown entry {entry!r}; known are {', '.join(known)}.")
    for i, (op, name) in enumerate(zip(ops, decoder_memory, strict=True)):
        if op == "add" and CHANNEL_FACTORS[levels - i] != CHANNEL_FACTORS[levels - 1 - i]:
            raise ValueError(f"ops[{i}] = add: the channels differ at this level; use concat or none.")
        if name != "none" and DECODER_MEMORIES[name].needs_patches and levels - i <= initial_combine:
            raise ValueError(
                f"decoder_memory[{i}] = {name} reads patches, but with initial_combine = {initial_combine} "
                "this level sees whole maps; use V1 or V4 there."
            )
    if base_channels % 4 and (base_channels * CHANNEL_FACTORS[levels]) % 4:
        raise ValueError(f"base_channels = {base_channels}: the bottleneck's channels must divide by 4.")
