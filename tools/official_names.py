"""The names that the released programs give to our weights.

One direction only, ours → theirs, so that what a file must hold follows from the network we build.
"""

import re

import torch

GENERATOR = (
    (r"^encoder\.input_block\.", "in_conv.conv."),
    (r"^encoder\.down_blocks\.(\d+)\.", r"down_blocks.\1.mpconv."),
    (r"^student\.up_blocks\.(\d+)\.", r"up_blocks.\1.conv."),
    (r"^student\.output\.", "out_conv.conv."),
    (r"^student\.memories\.", "memory_blocks."),
    (r"^teacher\.up_blocks\.(\d+)\.", r"teacher_ups.\1.conv."),
    (r"^teacher\.output\.", "teacher_out.conv."),
    (r"^inpaint\.reduce\.", "inpaint_block.bottleneck_conv1."),
    (r"^inpaint\.expand\.", "inpaint_block.bottleneck_conv2."),
    (r"^inpaint\.attention\.in_proj\.", "inpaint_block.attention.in_proj_"),
    (r"^inpaint\.norm(\d)\.", r"inpaint_block.attn_norm\1."),
    (r"^inpaint\.", "inpaint_block."),
    (r"^(memory_blocks\.\d+\.)reduce\.", r"\1conv1."),
    (r"^(memory_blocks\.\d+\.)expand\.", r"\1conv2."),
    (r"^memories\.(\d+)\.reduce\.", r"memory_blocks.\1.q_conv."),  # the hierarchical variant's
    (r"^memories\.(\d+)\.expand\.", r"memory_blocks.\1.out_conv."),
    (r"^memories\.(\d+)\.memory\.to_query\.", r"memory_blocks.\1.q_linear."),
    (r"^memories\.(\d+)\.memory\.to_key\.", r"memory_blocks.\1.k_linear."),
    (r"^memories\.(\d+)\.memory\.slots$", r"memory_blocks.\1.memMatrix"),
    (r"\.project\.", ".conv1."),
    (r"\.refine\.", ".conv2."),
)

Target = tuple[str, int | None]  # our entry and, where theirs is one location of it, which


def squid_generator(state: dict[str, torch.Tensor], levels: int) -> dict[str, Target]:
    """Released name → our entry, for every entry of our generator's state but the queue's pointer."""
    targets: dict[str, Target] = {}
    for ours, value in _of_interest(state):
        # their decoder memories are listed shallowest first
        flipped = re.sub(r"^(student\.memories\.)(\d+)", lambda m: f"{m[1]}{levels - 1 - int(m[2])}", ours)
        name = _renamed(flipped)
        if not name.endswith("memory.slots"):
            targets[name] = (ours, None)
        elif name.startswith("memory_blocks") and len(value) == 1:  # V4: one memory, without an index
            targets[name.replace("memory.slots", "memory.memMatrix")] = (ours, 0)
        else:
            for j in range(len(value)):
                targets[name.replace("memory.slots", f"memory.{j}.memMatrix")] = (ours, j)
    return targets


def simsid_generator(state: dict[str, torch.Tensor]) -> dict[str, Target]:
    """Released name → our entry, for every entry of our generator's state but the queue's pointer.

    Their decoder memories are listed deepest first, as ours are.
    """
    targets: dict[str, Target] = {}
    for ours, value in _of_interest(state):
        name = _renamed(ours)
        block, per_location, leaf = name.partition(".memory.")
        if not per_location:
            targets[name] = (ours, None)
            continue
        reduced = f"{ours.rpartition('.')[0]}.down" in state
        theirs = {"slots": "memory" if reduced else "memMatrix", "down": "down.weight", "up": "up.weight"}[leaf]
        for j in range(len(value)):
            targets[f"{block}.memory.{j}.{theirs}"] = (ours, j)
    return targets


def without_unused(official: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SimSID's released generator entries less those that no forward of a network with our ``state`` reads.

    That is always ``inpaint_block.conv`` (3×3, d→d: 38 of 84 million numbers at full size), the attention where
    it is off, and the whole in-painting block where that is off.
    """
    if any(name.startswith("memories.") for name in state):
        return official  # the hierarchical variant's files have no in-painting block
    unused = ["conv"]
    if not any(name.startswith("inpaint.attention.") for name in state):
        unused += ["attention", "attn_norm1", "attn_norm2", "ff"]
    if not any(name.startswith("inpaint.") for name in state):
        unused += ["bottleneck_conv1", "bottleneck_conv2", "memory"]
    pattern = re.compile(rf"(module\.)?inpaint_block\.({'|'.join(unused)})\.")
    return {name: value for name, value in official.items() if not pattern.match(name)}


def _of_interest(state: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """The entries that released files have too."""
    return [(k, v) for k, v in state.items() if not k.endswith(("pointer", "num_batches_tracked"))]


def _renamed(ours: str) -> str:
    for pattern, replacement in GENERATOR:
        ours = re.sub(pattern, replacement, ours)
    return ours


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


def autoencoder(state: dict[str, torch.Tensor]) -> dict[str, Target]:
    """Released name → our entry, of one of DDAD's networks."""
    targets: dict[str, Target] = {}
    for ours in state:
        theirs = ours.replace("to_latent.", "linear_enc.").replace("from_latent.", "linear_dec.")
        if ours == "memory.slots":
            targets["mem_rep.memory.weight"] = (ours, 0)
        elif not ours.endswith("num_batches_tracked"):
            targets[theirs] = (ours, None)
    return targets


def asrnet(state: dict[str, torch.Tensor]) -> dict[str, Target]:
    """Released name → our entry, of DDAD's refinement net."""
    kept = (ours for ours in state if not ours.endswith("num_batches_tracked"))
    return {ours.replace("layers.", "model."): (ours, None) for ours in kept}


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


def squid_weights(official: dict[str, torch.Tensor], state: dict[str, torch.Tensor], levels: int) -> dict:
    """SQUID's released generator in our names. Raises as :func:`translate` does."""
    return translate(official, state, squid_generator(state, levels))


def simsid_weights(official: dict[str, torch.Tensor], state: dict[str, torch.Tensor], levels: int) -> dict:
    """SimSID's released generator in our names, less what is not used. Raises as :func:`translate` does."""
    return translate(without_unused(official, state), state, simsid_generator(state))


def discriminator_weights(official: dict[str, torch.Tensor], state: dict[str, torch.Tensor], levels: int) -> dict:
    """Either's released discriminator in our names. Raises as :func:`translate` does."""
    return translate(official, state, discriminator(state))


def autoencoder_weights(official: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> dict:
    """One of DDAD's released networks in our names. Raises as :func:`translate` does."""
    return translate(official, state, autoencoder(state))


def asrnet_weights(official: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> dict:
    """DDAD's released refinement net in our names. Raises as :func:`translate` does."""
    return translate(official, state, asrnet(state))


GENERATOR_WEIGHTS = {"squid": squid_weights, "simsid": simsid_weights}
