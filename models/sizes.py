"""Which sizes of the networks can be built: numbers alone, so that settings are checked without building anything."""

from collections.abc import Sequence

CHANNEL_FACTORS = (1, 2, 4, 8, 16, 16)  # of the generator's levels, times its base channels
AUTOENCODER_CHANNELS = (16, 32, 64, 64)  # of the auto-encoders' four levels, times the multiplier
READS_PATCHES = {"V1": False, "V2": True, "V3": True, "V4": False}  # the decoder memories; the others cut whole maps


def check_sizes(
    image_size: int, patches_per_side: int, levels: int, base_channels: int, initial_combine: int, ops: Sequence[str]
) -> None:
    """Raise a ValueError that names the setting where a network of these sizes cannot be built."""
    if not 1 <= levels < len(CHANNEL_FACTORS):
        raise ValueError(f"levels = {levels}: 1 to {len(CHANNEL_FACTORS) - 1} levels can be built.")
    if patches_per_side < 1 or base_channels < 1:
        raise ValueError(f"patches_per_side = {patches_per_side}, base_channels = {base_channels}: at least 1 each.")
    step = patches_per_side * 2**levels
    if image_size % step:
        raise ValueError(
            f"image_size = {image_size} is not divisible by patches_per_side · 2^levels = {step}; "
            f"take {max(image_size // step, 1) * step} or {(image_size // step + 1) * step}."
        )
    if not 1 <= initial_combine <= levels:
        raise ValueError(f"initial_combine = {initial_combine}: must lie in 1 … levels = {levels}.")
    check_entries("ops", ops, ("concat", "add", "none"), levels)
    for i, op in enumerate(ops):
        if op == "add" and CHANNEL_FACTORS[levels - i] != CHANNEL_FACTORS[levels - 1 - i]:
            raise ValueError(f"ops[{i}] = add: the channels differ at this level; use concat or none.")
    if base_channels % 4 and (base_channels * CHANNEL_FACTORS[levels]) % 4:
        raise ValueError(f"base_channels = {base_channels}: the bottleneck's channels must divide by 4.")


def check_hierarchical_sizes(image_size: int, levels: int, base_channels: int, ops: Sequence[str]) -> None:
    """Raise a ValueError that names the setting where a hierarchical network of these sizes cannot be built."""
    # at every level a location is image_size / 2^(levels + 1) wide, as if there were two patches per side
    check_sizes(image_size, 2, levels, base_channels, levels, ops)
    if ops[-1] != "none":
        raise ValueError(f"ops[{levels - 1}] = {ops[-1]}: the shallowest level has no memory to join; use none.")


def check_inpainting(image_size: int, patches_per_side: int, levels: int, base_channels: int) -> None:
    """Raise a ValueError where the in-painting block's eight attention heads do not divide its dimension."""
    side = image_size // patches_per_side // 2**levels
    dim = base_channels * CHANNEL_FACTORS[levels] // 4 * side**2
    if dim % 8:
        raise ValueError(
            f"base_channels = {base_channels} with {side} × {side} patches at the bottleneck gives features of "
            f"{dim} dimensions, which eight attention heads do not divide; take more channels."
        )


def check_decoder_memory(
    decoder_memory: Sequence[str], image_size: int, patches_per_side: int, levels: int, initial_combine: int,
    known: Sequence[str] = tuple(READS_PATCHES),
) -> None:  # fmt: skip
    """Raise a ValueError for a list of decoder memories (names or ``none``, deepest first) that cannot be built."""
    check_entries("decoder_memory", decoder_memory, (*known, "none"), levels)
    for i, name in enumerate(decoder_memory):
        if name == "none":
            continue
        whole = levels - i <= initial_combine
        side = (image_size if whole else image_size // patches_per_side) // 2 ** (levels - 1 - i)
        if not READS_PATCHES[name] and side % patches_per_side:
            raise ValueError(
                f"decoder_memory[{i}] = {name} cuts {side} × {side} maps into {patches_per_side} × "
                f"{patches_per_side} windows, which does not come out even; use another memory or image_size."
            )
        if READS_PATCHES[name] and whole:
            raise ValueError(
                f"decoder_memory[{i}] = {name} reads patches, but with initial_combine = {initial_combine} "
                f"this level sees whole maps; use {' or '.join(n for n in ('V1', 'V4') if n in known)} there."
            )


def check_entries(name: str, entries: Sequence[str], known: Sequence[str], levels: int) -> None:
    """Raise a ValueError where a setting does not have one known entry for every level."""
    if len(entries) != levels:
        raise ValueError(f"{name} = {','.join(entries)}: needs one entry per level, {levels} in all.")
    for entry in entries:
        if entry not in known:
            raise ValueError(f"{name}: unknown entry {entry!r}; known are {', '.join(known)}.")


def check_autoencoder_sizes(image_size: int, multiplier: float) -> None:
    """Raise a ValueError that names the setting where a network of these sizes cannot be built."""
    if image_size < 16 or image_size % 16:
        below = max(image_size // 16, 1) * 16
        raise ValueError(f"image_size = {image_size} is not divisible by 16; take {below} or {below + 16}.")
    if int(AUTOENCODER_CHANNELS[0] * multiplier) < 1:
        raise ValueError(f"multiplier = {multiplier}: must be at least 1/{AUTOENCODER_CHANNELS[0]}.")
