"""SimSID against the numbers recorded from the released program (golden/simsid)."""

import pytest
import torch
from conftest import GOLDEN, Golden, assert_close

from configs.simsid import SimSidConfig
from dataloader.loader import Batch
from methods.losses import distillation_loss
from methods.simsid import SimSid
from tools.official_names import discriminator, simsid_generator, translate, without_unused

pytestmark = pytest.mark.usefixtures("golden_device")
VARIANTS = sorted(path.stem for path in (GOLDEN / "simsid").glob("*.json"))
NAMES = {"reconstruction": "recon_loss", "adversarial": "g_loss", "teacher": "t_recon_loss",
         "distillation": "dist_loss", "generator": "loss", "discriminator": "d_loss"}  # fmt: skip
QUEUES = ["simsid_queue", "simsid_teacher_gradient"]


def settings(c: dict) -> SimSidConfig:
    inpaint, memory = c["inpaint_config"], c["memory_config"]
    hierarchical = "Patch" in c["decoder_memory"]
    block = "queue" if inpaint["use_memory_queue"] else "matrix"
    return SimSidConfig(
        image_size=c["img_size"], base_channels=c["features_root"], patches_per_side=c["num_patch"],
        levels=c["level"], initial_combine=c["initial_combine"], ops=c["ops"],
        decoder_memory=["none"] * c["level"] if hierarchical else c["decoder_memory"],
        tanh=c["normalize_tanh"], bottleneck=block if c["use_memory_inpaint_block"] else "none",
        inpaint_attention=inpaint["use_inpaint"], bottleneck_slots=inpaint["num_slots"],
        gumbel_top_k=inpaint["shrink_thres"], mask_ratio=inpaint["mask_ratio"], dropout=inpaint["drop"],
        decoder_slots=memory["num_slots"], decoder_top_k=memory["shrink_thres"],
        decoder_mask_ratio=memory["mask_ratio"], dim_reduce=memory["memory_layer_type"] == "dim_reduce",
        slot_dim=memory["slot_dim"], teacher=c["dist"], teacher_gradient=not c["teacher_stop_gradient"],
        skip_weights=c["fadein_weights"] or (), num_layers=c["num_layers"], hierarchical=hierarchical,
        n_critic=2, recon_weight=c["recon_w"], teacher_weight=c["t_w"], distill_weight=c["dist_w"],
        adversarial_weight=c["g_w"], discriminator_weight=c["d_w"],
    )  # fmt: skip


def network(name: str, dtype=torch.float64) -> tuple[Golden, SimSid]:
    case = Golden(f"simsid/{name}")
    method = SimSid(settings(case.info["config"])).to(dtype)
    state = method.generator.state_dict()
    official = without_unused(case.filled_state("model"), state)
    method.generator.load_state_dict(translate(official, state, simsid_generator(state)))
    state = method.discriminator.state_dict()
    method.discriminator.load_state_dict(translate(case.filled_state("disc"), state, discriminator(state)))
    return case, method


def check_evaluation(case, method, when, tolerance):
    images = case.batches(200)[0].to(next(method.parameters()).dtype)
    with torch.no_grad():
        scores = method.score(images)
        assert scores.reconstruction.min() >= 0 and scores.reconstruction.max() <= 1
        x_hat = method.to_network(scores.reconstruction)
        assert_close(x_hat, case[f"recon_{when}"], tolerance)
        assert_close(scores.columns["logit"], case[f"score_{when}"].squeeze(1), tolerance)
        assert_close(method.discriminator.eval()(x_hat), case[f"score_running_stats_{when}"], tolerance)
        assert_close(scores.maps["reconstruction"], (images - scores.reconstruction).square())


def test_all_ten_variants_are_recorded():
    assert len(VARIANTS) == 10


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_evaluation_forward(name, dtype):
    case, method = network(name, dtype)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    check_evaluation(case, method, "before", tolerance)
    with torch.no_grad():
        out = method.generator.eval()(method.to_network(case.batches(200)[0].to(dtype)))
    assert_close(out.teacher_x_hat, case["teacher_recon_before"], tolerance)
    assert_close(distillation_loss(out.features, out.teacher_features), case["dist_loss_before"], tolerance)


@pytest.mark.parametrize("name", VARIANTS)
def test_six_training_iterations(name):
    case, method = network(name)
    seen, gradients = [], []
    forward = method.generator.register_forward_hook(lambda module, args, out: seen.append(out.x_hat.detach()))
    first_conv = method.generator.encoder.input_block.project[0].weight
    first_conv.register_hook(lambda gradient: gradients.append(gradient.clone()))
    for step, (images, expected) in enumerate(zip(case.batches(200), case.info["trajectory"], strict=True)):
        losses = {NAMES[k]: v for k, v in method.training_step(Batch.of(images, step)).items()}
        assert losses.keys() == expected.keys()
        for key, value in expected.items():
            assert losses[key].item() == pytest.approx(value, rel=1e-5), (step, key)
    forward.remove()
    assert len(seen) == 6, "one generator forward per iteration"
    assert_close(seen[0], case["first_train_recon"])
    assert_close(gradients[0], case["first_conv_grad"])
    if name in QUEUES:
        memory = method.generator.inpaint.memory
        assert_close(memory.slots, case["queue_after"], 1e-5)
        assert case.info["queue_ptr_after"] == [memory.pointer.item()] * len(memory.slots)
    check_evaluation(case, method, "after", 1e-5)


def test_a_block_that_is_left_out_keeps_its_queue_as_it_was():
    case, method = network("simsid_no_memory_sigmoid")
    assert not any(name.startswith("inpaint") for name in method.generator.state_dict())
    filled = case.filled_state("model")
    for j, queue in enumerate(case["queue_after"]):
        assert torch.equal(queue, filled[f"inpaint_block.memory.{j}.memMatrix"].to(queue))


@pytest.mark.parametrize("name", VARIANTS)
def test_only_unused_entries_are_dropped_by_name(name):
    case = Golden(f"simsid/{name}")
    method = SimSid(settings(case.info["config"]))
    official = {f"module.{k}": v for k, v in case.filled_state("model").items()}
    kept = without_unused(official, method.generator.state_dict())
    dropped = {k.split(".")[2] for k in official if k not in kept}
    everything = {"conv", "attention", "attn_norm1", "attn_norm2", "ff", "bottleneck_conv1", "bottleneck_conv2"}
    expected = {
        "simsid_hierarchical": set(),
        "simsid_no_inpaint_attention": {"conv", "attention", "attn_norm1", "attn_norm2", "ff"},
        "simsid_no_memory_sigmoid": everything | {"memory"},
    }
    assert dropped == expected.get(name, {"conv"})


def test_first_iteration_losses_in_float32():
    case, method = network("simsid_queue", torch.float32)
    losses = method.training_step(Batch.of(case.batches(200)[0].float()))
    for ours, theirs in NAMES.items():
        assert losses[ours].item() == pytest.approx(case.info["trajectory"][0][theirs], rel=1e-4), ours
