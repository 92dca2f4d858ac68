"""SQUID against the numbers recorded from the released program (golden/squid)."""

import pytest
import torch
from conftest import Golden, assert_close

from configs.squid import SquidConfig
from dataloader.loader import Batch
from methods.squid import Squid, distillation_loss
from models import memory as memories
from models.blocks import MaskedShortcut
from models.inpaint import InpaintBlock
from models.memory import DECODER_MEMORIES, Addressing, MemoryQueue
from models.patches import position_bits, to_maps, to_patches
from tools.official_names import discriminator, squid_generator, translate

pytestmark = pytest.mark.usefixtures("golden_device")
NETWORKS = ["squid_4patch", "squid_9patch", "squid_hard_no_teacher"]
NAMES = {"reconstruction": "recon_loss", "adversarial": "g_loss", "teacher": "t_recon_loss",
         "distillation": "dist_loss", "generator": "loss", "discriminator": "d_loss"}  # fmt: skip


def load_block(block, state):
    """Load a recorded block's state, its names translated by the importer's own rules."""
    renamed = {"inpaint." + k: v for k, v in block.state_dict().items()}
    prefix = "inpaint_block."
    if not isinstance(block, InpaintBlock):
        renamed = {"student.memories.0." + k: v for k, v in block.state_dict().items()}
        prefix = "memory_blocks.0."
    targets = squid_generator(renamed, levels=1)
    ours = translate({prefix + k: v for k, v in state.items()}, renamed, targets)
    cut = "inpaint." if isinstance(block, InpaintBlock) else "student.memories.0."
    block.load_state_dict({k.removeprefix(cut): v for k, v in ours.items()})


def test_shrinkage_and_its_gradient():
    case = Golden("squid/functions")
    sim = case["sim"].requires_grad_()
    out = memories.gumbel_shrinkage(sim, 5)
    (out * case["upstream"]).sum().backward()
    assert_close(out, case["gumbel"])
    assert_close(sim.grad, case["gumbel_grad"])

    hard_in = case["hard_in"].requires_grad_()
    out = memories.hard_shrinkage(hard_in, 0.3)
    (out * case["upstream"]).sum().backward()
    assert_close(out, case["hard"])
    assert_close(hard_in.grad, case["hard_grad"])


def test_patches_and_position_bits():
    case = Golden("squid/functions")
    patches = to_patches(case["image"], 2)
    assert torch.equal(patches.permute(0, 2, 3, 1), case["windows"])
    assert torch.equal(to_maps(patches, 2).permute(0, 2, 3, 1), case["restored"])
    assert torch.equal(position_bits(4).double(), case["position_bits_4"])
    assert torch.equal(position_bits(9).double(), case["position_bits_9"])


@pytest.mark.parametrize("name", ["gumbel", "hard"])
def test_memory_queue(name):
    case = Golden(f"squid/memory_queue_{name}")
    threshold = case.info["shrink_thres"]
    addressing = Addressing(gumbel_top_k=threshold) if name == "gumbel" else Addressing(threshold=threshold)
    queue = MemoryQueue(1, case.info["slots"], case.info["dim"], addressing).double()
    queue.slots.copy_(case["init"].unsqueeze(0))
    for values, expected, pointer in zip(case["values"], case["queue"], case["ptr"], strict=True):
        queue(values.unsqueeze(1))
        queue.enqueue()
        assert_close(queue.slots[0], expected)
        assert queue.pointer == pointer
    query = case["query"].requires_grad_()
    out = queue(query.unsqueeze(1)).squeeze(1)
    (out * case["upstream"]).sum().backward()
    assert_close(out, case["out"])
    assert_close(query.grad, case["query_grad"])


def test_a_queue_takes_more_rows_than_it_has_slots():
    queue = MemoryQueue(1, 3, 2, Addressing(threshold=0.1))
    rows = torch.arange(10.0).reshape(5, 1, 2)
    queue(rows)
    queue.enqueue()
    one_by_one = MemoryQueue(1, 3, 2, Addressing(threshold=0.1))
    for row in rows:
        one_by_one(row.unsqueeze(0))
        one_by_one.enqueue()
    assert torch.equal(queue.slots, one_by_one.slots) and queue.pointer == one_by_one.pointer == 2


@pytest.mark.parametrize("version", DECODER_MEMORIES)
def test_memory_block(version):
    case = Golden(f"squid/memory_block_{version}")
    block = DECODER_MEMORIES[version](2, 4, 4, 4, 10, Addressing(gumbel_top_k=5), 0.95).double().eval()
    load_block(block, case.group("state/"))
    x = case["x"].requires_grad_()
    out = block(x)
    (out * case["upstream"]).sum().backward()
    assert_close(out, case["out"])
    if "x_grad" in case.arrays:
        assert_close(x.grad, case["x_grad"])
    grads = {"student.memories.0." + k: p.grad for k, p in block.named_parameters()}
    targets = squid_generator(grads, levels=1)
    recorded = case.group("grad/")
    for theirs, (ours, location) in targets.items():
        grad = grads[ours] if location is None else grads[ours][location]
        assert_close(grad, recorded.pop(theirs.removeprefix("memory_blocks.0.")))
    assert not recorded


def inpaint_case():
    case = Golden("squid/inpaint_block")
    block = InpaintBlock(2, 32, 2, 2, 12, Addressing(gumbel_top_k=5), mask_ratio=1.0).double()
    load_block(block, case.group("state/"))
    return case, block


def test_inpaint_block():
    case, block = inpaint_case()
    assert_close(block.eval()(case["x"]), case["out_eval"])
    x = case["x"].requires_grad_()
    out = block.train()(x)
    (out * case["upstream"]).sum().backward()
    assert_close(out, case["out_train"])
    assert_close(x.grad, case["x_grad"])
    after = case.group("after/")
    for name in ("running_mean", "running_var"):
        assert_close(getattr(block.reduce[1], name), after[f"bottleneck_conv1.1.{name}"])
        assert_close(getattr(block.expand[1], name), after[f"bottleneck_conv2.1.{name}"])
    for j in range(4):
        assert torch.equal(block.memory.slots[j], after[f"memory.{j}.memMatrix"])


def test_masked_shortcuts(monkeypatch):
    def every_seventh_bypasses(self, x):
        n = x[:, :1].numel()
        return (torch.arange(n, device=x.device) % 7 != 0).reshape(x[:, :1].shape)

    monkeypatch.setattr(MaskedShortcut, "draw_mask", every_seventh_bypasses)
    case = Golden("squid/masked_shortcut")
    v1 = DECODER_MEMORIES["V1"](2, 4, 4, 4, 10, Addressing(gumbel_top_k=5), 0.95).double().train()
    load_block(v1, case.group("v1_state/"))
    assert_close(v1(case["v1_x"]), case["v1_out"])

    inpaint, block = inpaint_case()
    block.shortcut.ratio = 0.95
    assert_close(block.train()(inpaint["x"]), case["inpaint_out"])


def test_the_shortcut_draws_one_value_per_map_row_and_column():
    torch.manual_seed(0)
    shortcut = MaskedShortcut(0.95).train()
    replaced, x = torch.ones(64, 3, 16, 16), torch.zeros(64, 3, 16, 16)
    out = shortcut(replaced, x)
    assert torch.equal(out, out[:, :1].expand_as(out)) and set(out.unique().tolist()) == {0.0, 1.0}
    assert abs(out.mean() - 0.95) < 0.01
    assert torch.equal(shortcut.eval()(replaced, x), replaced)


def network(name: str, dtype=torch.float64) -> tuple[Golden, Squid]:
    case = Golden(f"squid/{name}")
    c = case.info["config"]
    kinds = {"MemoryMatrixBlock": "V1"}
    k = c["shrink_thres"]
    config = SquidConfig(
        image_size=c["img_size"], base_channels=c["features_root"], patches_per_side=c["num_patch"],
        levels=c["level"], initial_combine=c["initial_combine"], ops=c["ops"],
        decoder_memory=[kinds[m["type"]] if m else "none" for m in reversed(c["decoder_memory"])],
        queue_slots=c["num_slots"], matrix_slots=c["mem_num_slots"],
        gumbel_top_k=k if isinstance(k, int) else 0, shrink_threshold=0.0 if isinstance(k, int) else k,
        mask_ratio=1.0, teacher=c["dist"], n_critic=2, recon_weight=c["recon_w"], teacher_weight=c["t_w"],
        distill_weight=c["dist_w"], adversarial_weight=c["g_w"], discriminator_weight=c["d_w"],
    )  # fmt: skip
    method = Squid(config).to(dtype)
    for ours, part in ((method.generator, "model"), (method.discriminator, "disc")):
        state = ours.state_dict()
        targets = squid_generator(state, config.levels) if part == "model" else discriminator(state)
        ours.load_state_dict(translate(case.filled_state(part), state, targets))
    assert method.generator.inpaint.memory.slots.shape[2] == c["memory_channel"]
    return case, method


def check_evaluation(case, method, when, tolerance):
    images = case.batches()[0].to(next(method.parameters()).dtype)
    with torch.no_grad():
        scores = method.score(images)
        assert_close(scores.reconstruction, case[f"recon_{when}"], tolerance)
        assert_close(scores.columns["logit"], case[f"score_{when}"].squeeze(1), tolerance)
        running = method.discriminator.eval()(scores.reconstruction)
        assert_close(running, case[f"score_running_stats_{when}"], tolerance)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_evaluation_forward(name, dtype):
    case, method = network(name, dtype)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    check_evaluation(case, method, "before", tolerance)
    if method.config.teacher:
        with torch.no_grad():
            out = method.generator.eval()(case.batches()[0].to(dtype))
        assert_close(out.teacher_x_hat, case["teacher_recon_before"], tolerance)
        assert_close(distillation_loss(out.features, out.teacher_features), case["dist_loss_before"], tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_six_training_iterations(name):
    case, method = network(name)
    seen = []
    hook = method.generator.student.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    for step, (images, expected) in enumerate(zip(case.batches(), case.info["trajectory"], strict=True)):
        losses = {NAMES[k]: v for k, v in method.training_step(Batch.of(images, step)).items()}
        assert losses.keys() == expected.keys()
        for key, value in expected.items():
            assert losses[key].item() == pytest.approx(value, rel=1e-5), (step, key)
    hook.remove()
    assert_close(seen[0], case["first_train_recon"])
    memory = method.generator.inpaint.memory
    assert_close(memory.slots, case["queue_after"], 1e-5)
    assert case.info["queue_ptr_after"] == [memory.pointer.item()] * len(memory.slots)
    check_evaluation(case, method, "after", 1e-5)


def test_first_iteration_losses_in_float32():
    case, method = network("squid_4patch", torch.float32)
    losses = method.training_step(Batch.of(case.batches()[0].float()))
    for key, value in case.info["trajectory"][0].items():
        ours = next(k for k, v in NAMES.items() if v == key)
        assert losses[ours].item() == pytest.approx(value, rel=1e-4), key
