"""SQUID's and SimSID's generator: a residual encoder on patches, an in-painted bottleneck, student and teacher."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from models.blocks import ResidualBlock, UpBlock, full_precision
from models.patches import to_maps, to_patches
from models.sizes import CHANNEL_FACTORS, check_sizes


class Generated(NamedTuple):
    """What the generator makes of images (B, 1, H, W) in [0, 1], or in [−1, 1] with a tanh at its end."""

    x_hat: torch.Tensor  # (B, 1, H, W) in the images' range: the student's reconstruction
    features: list[torch.Tensor]  # the student's after each level's memory, deepest first; [] without the teacher
    teacher_x_hat: torch.Tensor | None = None
    teacher_features: list[torch.Tensor] | None = None


class Encoder(nn.Module):
    """(B, 1, H, W) → bottleneck (B·P², C_L, h, w) and the inputs of the down blocks as skips.

    ``keeps``, shallowest first, says which skips are wanted; the others are None.
    """

    def __init__(
        self, patches_per_side: int, levels: int, base_channels: int, initial_combine: int, keeps: Sequence[bool]
    ):
        super().__init__()
        channels = [base_channels * f for f in CHANNEL_FACTORS[: levels + 1]]
        self.patches_per_side = patches_per_side
        self.initial_combine = initial_combine
        self.keeps = tuple(keeps)
        self.input_block = ResidualBlock(1, channels[0])
        self.down_blocks = nn.ModuleList(ResidualBlock(channels[i], channels[i + 1], stride=2) for i in range(levels))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        f = self.input_block(to_patches(x, self.patches_per_side))  # (B·P², C_0, H/P, W/P)
        skips = []
        for i, (keep, down) in enumerate(zip(self.keeps, self.down_blocks, strict=True)):
            skip = None
            if keep:  # shallow skips feed decoder blocks that see whole maps
                skip = to_maps(f, self.patches_per_side) if i < self.initial_combine else f
            skips.append(skip)
            f = down(f)  # (B·P², C_{i+1}, H/P/2^(i+1), …)
        return f, skips


class Decoder(nn.Module):
    """Bottleneck (B·P², C_L, h, w) and skips → image (B, 1, H, W) and the feature of every level.

    ``ops`` and ``memories`` run deepest first; ``memories`` holds a module or None for every level. The image ends
    in a sigmoid, or with ``tanh`` in that. In training ``skip_weights``, shallowest first, multiply the skips, and each
    map's skip is left out with probability ``skip_dropout``, else divided by 1 − that.
    """

    def __init__(
        self, patches_per_side: int, levels: int, base_channels: int, initial_combine: int, ops: Sequence[str],
        memories: Sequence[nn.Module | None] | None = None, tanh: bool = False, skip_weights: Sequence[float] = (),
        skip_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        channels = [base_channels * f for f in CHANNEL_FACTORS[: levels + 1]]
        self.patches_per_side = patches_per_side
        self.initial_combine = initial_combine
        self.ops = tuple(ops)
        self.skip_weights = tuple(skip_weights) or (1.0,) * levels
        self.skip_dropout = skip_dropout
        self.up_blocks = nn.ModuleList()
        for i, op in enumerate(self.ops):
            deep, shallow = channels[levels - i], channels[levels - 1 - i]
            self.up_blocks.append(UpBlock(deep, shallow, op))
        self.memories = nn.ModuleList(memory or nn.Identity() for memory in memories or [None] * levels)
        self.output = nn.Conv2d(channels[0], 1, 1)
        self.activation = nn.Tanh() if tanh else nn.Sigmoid()

    def forward(
        self, x: torch.Tensor, skips: Sequence[torch.Tensor | None], with_features: bool = True
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """A level whose op is ``none`` needs no skip. Features take much memory: where unwanted, there are none."""
        features = []
        for i, (op, up, memory) in enumerate(zip(self.ops, self.up_blocks, self.memories, strict=True)):
            if len(self.ops) - i == self.initial_combine:
                x = to_maps(x, self.patches_per_side)
            weight, skip = self.skip_weights[-1 - i], skips[-1 - i]
            if op != "none" and self.training and weight != 1:
                skip = weight * skip
            if op != "none" and self.training and self.skip_dropout:
                skip = skip * self.draw_kept(skip)
            x = memory(up(x) if op == "none" else up(x, skip))  # (B·P² or B, C_{L−1−i}, …), twice as large
            if with_features:
                features.append(x)
        with full_precision(x):  # bfloat16 has too few grey levels
            return self.activation(self.output(x.to(self.output.weight))), features

    def draw_kept(self, skip: torch.Tensor) -> torch.Tensor:
        """Factors (N, 1, 1, 1) of mean 1 that leave out each map of a skip (N, C, h, w) with probability p."""
        kept = 1 - self.skip_dropout
        return torch.bernoulli(skip.new_full((len(skip), 1, 1, 1), kept)) / kept


class Generator(nn.Module):
    """Encoder, bottleneck block, student generator and (with ``teacher``) teacher generator.

    Args:
        image_size: side H = W of the images; patches_per_side · 2^levels divides it.
        ops: how each up block joins its skip, deepest first: ``concat``, ``add`` or ``none``.
        inpaint: builds the bottleneck's block from (patches_per_side, channels, height, width); None leaves it out.
        decoder_memory: builds the memory after each up block from the same, deepest first; None leaves it out.
        teacher_gradient: the teacher's gradient goes through the bottleneck into the encoder (its skips stay detached).
        tanh: images in [−1, 1] and a tanh at the end; otherwise [0, 1] and a sigmoid.
        skip_weights: factors of the skips in training, shallowest first; empty is 1 everywhere.
        skip_dropout: the probability in training that a skip of the student is left out.
    Raises:
        ValueError: where the sizes cannot be built.
    """

    def __init__(
        self, image_size: int, patches_per_side: int, levels: int, base_channels: int, initial_combine: int,
        ops: Sequence[str], inpaint: Callable[..., nn.Module] | None,
        decoder_memory: Sequence[Callable[..., nn.Module] | None], teacher: bool = True,
        teacher_gradient: bool = False, tanh: bool = False, skip_weights: Sequence[float] = (),
        skip_dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        check_sizes(image_size, patches_per_side, levels, base_channels, initial_combine, ops)
        shape = (patches_per_side, levels, base_channels, initial_combine)
        patch = image_size // patches_per_side
        memories = []
        for i, build in enumerate(decoder_memory):
            level = levels - 1 - i
            side = (patch if levels - i > initial_combine else image_size) // 2**level
            channels = base_channels * CHANNEL_FACTORS[level]
            memories.append(build(patches_per_side, channels, side, side) if build else None)
        side = patch // 2**levels
        channels = base_channels * CHANNEL_FACTORS[levels]
        self.encoder = Encoder(*shape, keeps=[op != "none" for op in reversed(ops)])
        self.inpaint = inpaint(patches_per_side, channels, side, side) if inpaint else nn.Identity()
        self.student = Decoder(*shape, ops, memories, tanh, skip_weights, skip_dropout)
        self.teacher = Decoder(*shape, ops, None, tanh, skip_weights) if teacher else None
        self.teacher_gradient = teacher_gradient

    def forward(self, x: torch.Tensor, with_teacher: bool = True) -> Generated:
        return self.decode(*self.encoder(x), with_teacher)

    def decode(self, f: torch.Tensor, skips: list[torch.Tensor | None], with_teacher: bool = True) -> Generated:
        """What :meth:`forward` makes of the encoder's output: the bottleneck f (B·P², C_L, h, w) and the skips."""
        with_teacher = with_teacher and self.teacher is not None
        student = self.student(self.inpaint(f), skips, with_teacher)
        return Generated(*student, *(taught(self, f, skips) if with_teacher else ()))


def taught(
    generator: nn.Module, f: torch.Tensor, skips: list[torch.Tensor | None]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The teacher's image and features; nothing of them reaches the encoder, save through f by ``teacher_gradient``."""
    return generator.teacher(f if generator.teacher_gradient else f.detach(), detached(skips))


def detached(skips: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """The skips without the graph that they come from; those that are not kept stay None."""
    return [skip if skip is None else skip.detach() for skip in skips]
