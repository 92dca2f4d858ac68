"""SimSID beyond the recorded numbers: its settings, every variant, what its memories say."""

import numpy as np
import pytest
import torch
from conftest import Golden, assert_close
from PIL import Image
from test_golden_simsid import settings
from tiny import TINY, command, train

import configs
from configs import ConfigError
from dataloader.loader import Batch
from methods.simsid import SimSid
from models.discriminator import simsid_channels
from models.memory import Addressing, MemoryMatrix, MemoryQueue, ReducedMatrix
from tools import import_official

HIERARCHICAL = ["hierarchical=true", "skip_weights="]
VARIANTS = {
    "queue": [], "matrix": ["bottleneck=matrix"], "no block": ["bottleneck=none"],
    "no attention": ["inpaint_attention=false"], "softmax": ["bottleneck=matrix", "gumbel_top_k=0", "decoder_top_k=0"],
    "plain queue": ["gumbel_top_k=0"], "hard": ["gumbel_top_k=0", "shrink_threshold=1e-4"],
    "reduced": ["dim_reduce=true", "slot_dim=6"], "teacher gradient": ["teacher_gradient=true"],
    "sigmoid": ["tanh=false"], "skips": ["ops=concat,concat,concat", "skip_weights=0.3,0.7,1"],
    "small discriminator": ["num_layers=3"], "masks": ["mask_ratio=0.9", "decoder_mask_ratio=0.9"],
    "no teacher": ["teacher=false"], "hierarchical": HIERARCHICAL,
}  # fmt: skip


def build(*overrides) -> SimSid:
    torch.manual_seed(0)
    return SimSid(configs.build(TINY["simsid"][0], [*TINY["simsid"][1], *overrides]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bottleneck=que"], "bottleneck = 'que': must be one of queue, matrix, none"),
        (["gumbel_top_k=17"], "gumbel_top_k = 17: must lie in 0 … the 16 slots"),
        (["decoder_top_k=9"], "decoder_top_k = 9: must lie in 0 … the 8 slots"),
        (["decoder_threshold=0.1"], "decoder_top_k and decoder_threshold: at most one"),
        (["shrink_threshold=-1", "gumbel_top_k=0"], "shrink_threshold = -1.0: must be at least 0"),
        (["decoder_memory=V2,none,none"], "unknown entry 'V2'; known are V1, V3, none"),
        (["decoder_memory=V1,V1,V3"], r"decoder_memory\[2\] = V3 reads patches.*use V1 there"),
        (["skip_weights=1"], "skip_weights: needs one entry per level, 3 in all"),
        (["decoder_memory=V3,none,none", "dim_reduce=true"], "dim_reduce reduces V1 memories"),
        (["num_layers=5"], "image_size must be above 64 with num_layers = 5"),
        (["hierarchical=true"], "skip_weights: the hierarchical variant has no skips"),
        ([*HIERARCHICAL, "ops=none,none,concat"], r"ops\[2\] = concat: the shallowest level"),
        ([*HIERARCHICAL, "hierarchical_slots=0"], "hierarchical_slots = 0"),
        ([*HIERARCHICAL, "image_size=56"], "not divisible"),
        (["train_normal_fraction=0"], r"train_normal_fraction = 0.0: must lie in \(0, 1\]"),
        (["train_normal_fraction=1.1"], "train_normal_fraction = 1.1"),
    ],
)
def test_bad_values_name_the_key(overrides, message):
    with pytest.raises(ConfigError, match=message):
        build(*overrides)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_trains_every_parameter_and_scores(name):
    method = build(*VARIANTS[name])
    images = torch.rand(4, 1, 48, 48)
    losses = method.training_step(Batch.of(images))
    assert all(loss.isfinite() for loss in losses.values())
    for entry, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), entry
        assert parameter.dim() == 1 or parameter.grad.abs().max() > 0, entry
    assert set(method.training_step(Batch.of(images, 1))) == {"discriminator"}
    scores = method.score(images)
    assert scores.reconstruction.min() >= 0 and scores.reconstruction.max() <= 1
    torch.testing.assert_close(
        scores.image["reconstruction"], (scores.reconstruction - images).square().mean((1, 2, 3)).double()
    )


def test_the_networks_see_minus_one_to_one_with_tanh():
    seen = []
    method = build()
    method.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    black_and_white = torch.stack([torch.zeros(1, 48, 48), torch.ones(1, 48, 48)])
    method.score(black_and_white)
    method.training_step(Batch.of(black_and_white))
    for x in seen:
        assert (x[0] == -1).all() and (x[1] == 1).all()


def test_without_shrinkage_a_matrix_is_read_with_a_softmax_and_the_others_plainly():
    query = torch.randn(2, 3, 4)
    for memory in (MemoryMatrix(3, 5, 4, Addressing()), MemoryQueue(3, 5, 4, Addressing())):
        products = torch.einsum("bjd,jsd->jbs", query, memory.slots)
        expected = products.softmax(-1) if isinstance(memory, MemoryMatrix) else products
        torch.testing.assert_close(memory.weights(query), expected)
        torch.testing.assert_close(memory(query), torch.einsum("jbs,jsd->bjd", expected, memory.slots))
    reduced = ReducedMatrix(3, 5, 4, 2, Addressing())
    expected = torch.einsum("bjd,jrd,jsr->jbs", query, reduced.down, reduced.slots)
    torch.testing.assert_close(reduced.weights(query), expected)
    torch.testing.assert_close(reduced(query), torch.einsum("jbs,jsr,jdr->bjd", expected, reduced.slots, reduced.up))


def test_slot_weights_say_what_an_image_was_rebuilt_from():
    method = build()
    images = torch.rand(3, 1, 48, 48)
    found = method.slot_weights(images)
    assert {name: tuple(weights.shape) for name, weights in found.items()} == {
        "inpaint.memory": (4, 3, 16),
        "student.memories.0.memory": (4, 12, 8),  # V1 cuts each of 4 patches again: 12 maps
        "student.memories.1.memory": (4, 3, 8),
    }
    for weights in found.values():
        assert ((weights > 1e-6).sum(-1) == 4).all()  # k − 1 of k = 5
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    torch.testing.assert_close(method.slot_weights(images[1:2])["inpaint.memory"], found["inpaint.memory"][:, 1:2])

    # a queue that holds an image's own feature rebuilds its patches from that row
    memory = method.generator.inpaint.memory
    with torch.no_grad():
        f, _ = method.generator.encoder(method.to_network(images))
        rows = method.generator.inpaint.reduce(f).reshape(3, 4, -1)
        memory.slots.zero_()
        memory.slots[:, 7] = rows[2]
    assert (method.slot_weights(images)["inpaint.memory"][:, 2].argmax(-1) == 7).all()


def test_hierarchical_slot_weights_have_a_location_per_cell():
    found = build(*HIERARCHICAL).slot_weights(torch.rand(2, 1, 48, 48))
    assert [tuple(weights.shape) for weights in found.values()] == [(4, 2, 20), (16, 2, 20), (64, 2, 20)]
    for weights in found.values():
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))


def test_discriminator_channels():
    assert simsid_channels(4) == (16, 32, 64, 128, 256)
    assert simsid_channels(6) == (16, 32, 64, 128, 256, 256, 256)


def test_skip_weights_act_in_training_only_and_on_the_teacher_too():
    faded, plain = (build("ops=concat,concat,concat", f"skip_weights={w}") for w in ("0,0.5,1", ""))
    plain.load_state_dict(faded.state_dict())
    x = torch.rand(4, 1, 48, 48)
    with torch.no_grad():
        for training in (False, True):
            ours, theirs = (network.generator.train(training)(x) for network in (faded, plain))
            assert torch.allclose(ours.x_hat, theirs.x_hat) != training
            assert torch.allclose(ours.teacher_x_hat, theirs.teacher_x_hat) != training


def test_sigma_is_never_zero():
    method = build()

    class OneImage:
        def in_order(self, epoch, count):
            return [torch.full((4, 1, 48, 48), 0.5, dtype=torch.float64)]

    method.double().fit(OneImage())
    assert method.sigma.item() == pytest.approx(1e-8, abs=1e-12)


@pytest.mark.parametrize(
    "overrides", [pytest.param([], marks=pytest.mark.slow), HIERARCHICAL], ids=["patches", "hierarchical"]
)
def test_trains_resumes_bit_identically_and_evaluates(workspace, overrides):
    for exp, epochs in (("whole", ["2"]), ("parts", ["1", "2"])):
        for n in epochs:
            assert train(exp, method="simsid", overrides=[*overrides, f"epochs={n}"]) == 0
    states = [torch.load(f"checkpoints/{exp}/last.pt", weights_only=True) for exp in ("whole", "parts")]
    for name, value in states[0]["method"].items():
        assert torch.equal(value, states[1]["method"][name]), name
    assert command("eval", "--exp", "parts", "--device", "cpu") == 0


@pytest.mark.parametrize(
    "name", ["simsid_queue", "simsid_dim_reduce", "simsid_hierarchical", "simsid_no_memory_sigmoid"]
)
def test_released_weights_are_imported_and_score_images(workspace, name):
    case = Golden(f"simsid/{name}")
    for part, file in (("model", "model.pth"), ("disc", "discriminator.pth")):
        torch.save({f"module.{k}": v for k, v in case.filled_state(part).items()}, file)
    values = settings(case.info["config"]).as_dict() | {"dataset": "zhang"}
    pairs = [f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in values.items()]
    assert command("import_official", "--config", "simsid_zhang", "--set", *pairs, "--exp", "e", "--model",
                   "model.pth", "--discriminator", "discriminator.pth", module=import_official) == 0  # fmt: skip
    images = case.batches(200)[0]
    method = SimSid(settings(case.info["config"])).double()
    method.load_state_dict(torch.load("checkpoints/e/best.pt", weights_only=True)["method"])
    scores = method.score(images)
    assert_close(scores.columns["logit"], case["score_before"].squeeze(1))

    Image.fromarray((images[0, 0].numpy() * 255).astype(np.uint8)).save("a.png")
    assert command("predict", "--exp", "e", "--device", "cpu", "a.png", "--images", "pictures") == 0


def test_weights_of_another_variant_are_refused_with_the_difference(workspace, capsys):
    case = Golden("simsid/simsid_queue")
    for part, file in (("model", "model.pth"), ("disc", "discriminator.pth")):
        torch.save(case.filled_state(part), file)
    assert command("import_official", "--config", "simsid_hierarchical", "--exp", "e", "--model", "model.pth",
                   "--discriminator", "discriminator.pth", module=import_official) == 1  # fmt: skip
    shown = capsys.readouterr().err
    assert "extra: inpaint_block.memory.0.memMatrix" in shown and "missing: memory_blocks.0.memMatrix" in shown
