"""SQUID without one of its parts: what the component study trains (scripts/components.sh)."""

from functools import partial

import pytest
import torch
from tiny import TINY

import configs
from configs import ConfigError
from dataloader.loader import Batch
from methods.squid import Squid
from models.inpaint import InpaintBlock
from models.memory import Addressing, MemoryMatrix, MemoryQueue, PatchMemory, ReducedPatchMemory, WindowMemory

PARTS = {  # what is left out → settings, and the memories of bottleneck and decoder that remain
    "memory": (["bottleneck=none", "decoder_memory=none,none,none"], None, []),
    "space-awareness": (["space_aware=false"], (MemoryQueue, 1), [1, 1]),
    "queue": (["bottleneck=matrix"], (MemoryMatrix, 9), [9, 9]),
    "in-painting": (["inpaint_attention=false"], (MemoryQueue, 9), [9, 9]),
    "Gumbel shrinkage": (["gumbel_top_k=0", "shrink_threshold=0.0005"], (MemoryQueue, 9), [9, 9]),
    "shrinkage": (["gumbel_top_k=8"], (MemoryQueue, 9), [9, 9]),
    "masked shortcut": (["mask_ratio=1"], (MemoryQueue, 9), [9, 9]),
    "teacher": (["teacher=false"], (MemoryQueue, 9), [9, 9]),
    "discriminator": (["adversarial_weight=0"], (MemoryQueue, 9), [9, 9]),
}


def build(*overrides: str) -> Squid:
    torch.manual_seed(0)
    return Squid(configs.build(TINY["squid"][0], [*TINY["squid"][1], *overrides]))


@pytest.mark.parametrize("part", PARTS)
def test_without_a_part_the_others_are_there_and_train(part):
    overrides, bottleneck, decoder = PARTS[part]
    method = build(*overrides)
    block = getattr(method.generator.inpaint, "memory", None)
    assert (block and (type(block), len(block.slots))) == bottleneck
    memories = [each.memory for each in method.generator.student.memories if hasattr(each, "memory")]
    assert [len(each.slots) for each in memories] == decoder
    losses = method.training_step(Batch.of(torch.rand(4, 1, 48, 48)))
    assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    if block is not None and isinstance(block, MemoryQueue):
        assert int(block.pointer) == (4 if len(block.slots) > 1 else 4 * 9 % 16)
    scores = method.score(torch.rand(2, 1, 48, 48))
    assert all(values.isfinite().all() for values in scores.image.values())


def test_the_discriminator_left_out_is_no_part_of_what_the_generator_learns():
    images, gradients = torch.rand(4, 1, 48, 48), []
    for scale in (1, 3):
        method = build("adversarial_weight=0")
        with torch.no_grad():
            for parameter in method.discriminator.parameters():
                parameter.mul_(scale)
        method.training_step(Batch.of(images))
        gradients.append([p.grad.clone() for p in method.generator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


SIZES = {"channels": 8, "height": 4, "width": 4, "num_slots": 6, "addressing": Addressing(3), "mask_ratio": 1.0}


@pytest.mark.parametrize(
    ("build", "maps"),
    [
        (InpaintBlock, 3 * 4),
        (ReducedPatchMemory, 3 * 4),
        (PatchMemory, 3 * 4),
        (WindowMemory, 3),
        (partial(WindowMemory, channels_first=True, slot_dim=5), 3),
    ],
)
def test_shared_slots_are_read_as_the_same_slots_at_every_place(build, maps):
    torch.manual_seed(0)
    shared, own = (build(2, **SIZES, space_aware=aware).eval() for aware in (False, True))
    of_places = {"memory.slots", "memory.up", "memory.down"}
    state = shared.state_dict()
    assert all(len(state[name]) == 1 and len(own.state_dict()[name]) == 4 for name in of_places & state.keys())
    alike = {name: value.expand(4, -1, -1) for name, value in state.items() if name in of_places}
    own.load_state_dict(state | alike)
    x = torch.randn(maps, 8, 4, 4)
    torch.testing.assert_close(shared(x), own(x))


def test_the_shared_queue_takes_the_features_of_all_places():
    block = InpaintBlock(2, 8, 2, 2, num_slots=16, addressing=Addressing(3), mask_ratio=1.0, space_aware=False).train()
    x = torch.randn(3 * 4, 8, 2, 2)
    block(x)
    block.memory.enqueue()
    block.train()
    assert int(block.memory.pointer) == 12
    torch.testing.assert_close(block.memory.slots[0, :12], block.reduce(x).flatten(1))


def test_what_cannot_be_is_named():
    with pytest.raises(ConfigError, match="exactly one of them"):
        build("gumbel_top_k=0")
    with pytest.raises(ConfigError, match="space_aware: would do nothing: the hierarchical"):
        configs.build("simsid_hierarchical", ["space_aware=false"])


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("zhang_best", ["dropout=0.1", "inpaint_attention=false"]),
        ("zhang_best", ["bottleneck=none", "inpaint_attention=false"]),
        ("zhang_best", ["bottleneck=none", "decoder_memory=none,none,none,none", "cosine_addressing=true"]),
        ("zhang_best", ["ops=none,none,none,none", "skip_dropout=0.5"]),
        ("simsid_zhang", ["teacher=false", "teacher_gradient=true"]),
        *(("simsid_hierarchical", [setting]) for setting in (
            "bottleneck=none", "mask_ratio=0.5", "decoder_top_k=3", "dim_reduce=true", "patches_per_side=4",
            "skip_dropout=0.5", "cosine_addressing=true", "dropout=0.1",
        )),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(config, overrides):
    with pytest.raises(ConfigError, match="would do nothing"):
        configs.build(config, overrides)
