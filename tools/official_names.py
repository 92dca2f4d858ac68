"""The names that the released programs give to our weights.

One direction only, ours → theirs, so that what a file must hold follows from the network we build.
"""

import re

import torch

SQUID_GENERATOR = (
    (r"^encoder\.input_block\.", "in_conv.conv."),
    (r"^encoder\.down_blocks\.(\d+)\.", r"down_blocks.\1.mpconv."),
    (r"^student\.up_blocks\.(\d+)\.", r"up_blocks.\1.conv."),
    (r"^student\.output\.", "out_conv.conv."),
    (r"^teacher\.up_blocks\.(\d+)\.", r"teacher_ups.\1.conv."),
    (r"^teacher\.output\.", "teacher_out.conv."),
    (r"^inpaint\.reduce\.", "inpaint_block.bottleneck_conv1."),
    (r"^inpaint\.expand\.", "inpaint_block.bottleneck_conv2."),
    (r"^inpaint\.attention\.in_proj\.", "inpaint_block.attention.in_proj_"),
    (r"^inpaint\.norm(\d)\.", r"inpaint_block.attn_norm\1."),
    (r"^inpaint\.", "inpaint_block."),
    (r"^(memory_blocks\.\d+\.)reduce\.", r"\1conv1."),
    (r"^(memory_blocks\.\d+\.)expand\.", r"\1conv2."),
    (r"\.project\.", ".conv1."),
    (r"\.refine\.", ".conv2."),
)

Target = tuple[str, int | None]  # our entry and, where theirs is one location of it, which


def squid_generator(state: dict[str, torch.Tensor], levels: int) -> dict[str, Target]:
    """Released name → our entry, for every entry of our generator's state but the queue's pointer."""
    targets: dict[str, Target] = {}
    for ours, value in state.items():
        if ours.endswith(("pointer", "num_batches_tracked")):
            continue  # the released files do without
        # their decoder memories are listed shallowest first
        name = re.sub(r"^student\.memories\.(\d+)\.", lambda m: f"memory_blocks.{levels - 1 - int(m[1])}.", ours)
        for pattern, replacement in SQUID_GENERATOR:
            name = re.sub(pattern, replacement, name)
        if not name.endswith("memory.slots"):
            targets[name] = (ours, None)
        elif name.startswith("memory_blocks") and len(value) == 1:  # V4: one memory, without an index
            targets[name.replace("memory.slots", "memory.memMatrix")] = (ours, 0)
        else:
            for j in range(len(value)):
                targets[name.replace("memory.slots", f"memory.{j}.memMatrix")] = (ours, j)
    return targets


def discriminator(state: dict[str, torch.Tensor]) -> dict[str, Target]:
    """Released name → our entry: theirs is one sequence of conv, norm and activation."""
    targets: dict[str, Target] = {}
    for ours in state:
        if ours.endswith("num_batches_tracked"):
            continue
        kind, _, rest = ours.partition(".")
        if kind == "regressor":
            targets[ours] = (ours, None)
            continue
        index, _, leaf = rest.partition(".")
        # 0 conv, 1 activation, then conv, norm, activation
        place = max(0, 3 * int(index) - 1) if kind == "convs" else 3 * int(index) + 3
        targets[f"conv_model.{place}.{leaf}"] = (ours, None)
    return targets


def translate(
    official: dict[str, torch.Tensor], state: dict[str, torch.Tensor], targets: dict[str, Target]
) -> dict[str, torch.Tensor]:
    """Their entries in our names, on top of our ``state``.

    Raises:
        ValueError: with the list of missing, extra and misshaped entries.
    """
    official = {re.sub(r"^module\.", "", k): v for k, v in official.items()}
    given = {k: v for k, v in official.items() if not k.endswith("num_batches_tracked")}
    wanted = {
        theirs: tuple(state[ours].shape if location is None else state[ours].shape[1:])
        for theirs, (ours, location) in targets.items()
    }
    problems = [f"missing: {k} {list(wanted[k])}" for k in wanted if k not in given]
    problems += [f"extra: {k} {list(given[k].shape)}" for k in given if k not in wanted]
    problems += [
        f"wrong shape: {k} is {list(given[k].shape)}, not {list(wanted[k])}"
        for k in wanted
        if k in given and tuple(given[k].shape) != wanted[k]
    ]
    if problems:
        raise ValueError("\n".join(f"  {p}" for p in problems))
    result = {k: v.clone() for k, v in state.items()}
    for theirs, (ours, location) in targets.items():
        (result[ours] if location is None else result[ours][location]).copy_(given[theirs])
    return result
