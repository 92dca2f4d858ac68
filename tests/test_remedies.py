"""The remedies that no published row has: what each computes, that it acts in training alone, and resumes exactly."""

from pkgutil import resolve_name

import pytest
import torch
from conftest import assert_same_run
from forks import kill_in_training
from test_methods import build, images_of
from tiny import EVERY_STEP, train

import configs
from methods.losses import adversarial_loss, gradient_penalty
from models.memory import Addressing, Memory, MemoryMatrix

REMEDIES = ["cosine_addressing=true", "skip_dropout=0.5", "r1_weight=10", "average_decay=0.9"]


def test_cosine_addressing_goes_by_direction_alone():
    query = torch.tensor([[[3.0, 4.0]]])  # J = B = 1
    slots = torch.tensor([[[0.6, 0.8], [100.0, 0.0], [-6.0, -8.0]]])
    assert torch.allclose(Addressing(cosine=True)(query, slots), torch.tensor([[[1.0, 0.6, -1.0]]]))
    assert torch.allclose(Addressing()(query, slots), torch.tensor([[[5.0, 300.0, -50.0]]]))


def test_a_long_slot_wins_by_products_but_not_by_cosines():
    torch.manual_seed(0)
    memories = [MemoryMatrix(2, 6, 4, Addressing(gumbel_top_k=2, cosine=cosine)).double() for cosine in (False, True)]
    query = torch.randn(30, 2, 4, dtype=torch.float64)
    used = []
    for memory in memories:
        with torch.no_grad():
            memory.slots.copy_(torch.nn.functional.normalize(torch.randn(2, 6, 4), dim=-1))
            memory.slots[:, 0] *= 50
        used.append(int((memory.weights(query) > 0.5).any(1).sum()))
        scaled = memory.weights(7 * query)
        assert torch.equal(scaled.argmax(-1), memory.weights(query).argmax(-1))
    assert used[1] > used[0]


def test_a_dropped_skip_is_zero_and_a_kept_one_keeps_the_mean():
    method, loader = build("squid", "skip_dropout=0.25")
    decoder = method.generator.student
    torch.manual_seed(0)
    kept = decoder.draw_kept(torch.ones(4000, 3, 2, 2))
    assert kept.shape == (4000, 1, 1, 1) and kept.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert kept.mean() == pytest.approx(1, abs=0.03)
    assert method.generator.teacher.skip_dropout == 0

    drawn, images = [], images_of(loader)
    decoder.draw_kept = lambda skip: drawn.append(len(skip)) or torch.zeros(len(skip), 1, 1, 1)
    method.train()
    method.generator(images)
    wanted = [op != "none" for op in method.config.ops]
    assert len(drawn) == sum(wanted)
    method.score(images)
    assert len(drawn) == sum(wanted), "a skip is dropped in evaluation"


def test_without_its_skips_the_student_is_decoded_from_the_bottleneck_alone():
    method, loader = build("squid", "skip_dropout=0.5", "mask_ratio=1")
    generator = method.generator.train()
    generator.student.draw_kept = lambda skip: torch.zeros(len(skip), 1, 1, 1)
    f, skips = generator.encoder(images_of(loader))
    dropped = generator.decode(f, skips, with_teacher=False).x_hat
    without = generator.decode(f, [None if s is None else 0 * s for s in skips], with_teacher=False).x_hat
    assert torch.equal(dropped, without)


def test_the_gradient_penalty_is_worked_out_by_hand():
    w = torch.tensor([1.0, -2.0, 3.0, 0.5]).reshape(1, 1, 2, 2).requires_grad_()
    x = torch.randn(5, 1, 2, 2, requires_grad=True)
    logits = (w * x.square() / 2).sum((1, 2, 3)).unsqueeze(1)  # whose gradient is w · x
    penalty = gradient_penalty(logits, x)
    assert torch.isclose(penalty, (w * x).square().sum((1, 2, 3)).mean())
    penalty.backward()
    assert torch.allclose(w.grad, 2 * w * x.square().mean(0))


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_beside_the_discriminators_loss_is_half_the_weighted_penalty(name):
    method, loader = build(name, "r1_weight=10")
    x, weight = images_of(loader), method.config.discriminator_weight
    x_hat = torch.rand_like(x)
    discriminator = method.discriminator.train()
    found = method.discriminator_losses(x, x_hat)
    real = x.clone().requires_grad_()
    logits = discriminator(real)
    expected = adversarial_loss(logits, real=True) + adversarial_loss(discriminator(x_hat), real=False)
    assert found.keys() == {"discriminator", "r1"}
    assert torch.isclose(found["discriminator"], weight * expected, rtol=1e-5)
    assert torch.isclose(found["r1"], weight * 5 * gradient_penalty(logits, real), rtol=1e-5)
    method.config.r1_weight = 0.0
    assert method.discriminator_losses(x, x_hat).keys() == {"discriminator"}


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_a_setting_reaches_every_memory_and_the_students_skips(name):
    for overrides, cosine, dropped in (((), False, 0), (("cosine_addressing=true", "skip_dropout=0.5"), True, 0.5)):
        generator = build(name, *overrides)[0].generator
        memories = [module for module in generator.modules() if isinstance(module, Memory)]
        assert len(memories) == 3 and {memory.addressing.cosine for memory in memories} == {cosine}
        assert generator.student.skip_dropout == dropped


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_the_penalty_trains_the_discriminator(name):
    method, loader = build(name, "r1_weight=10")
    x = images_of(loader)
    method.discriminator_losses(x, torch.rand_like(x))["r1"].backward()
    gradients = [p.grad for p in method.discriminator.parameters() if p.grad is not None]
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients)


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_a_remedy_that_is_off_is_nowhere_in_a_training(workspace, monkeypatch, name):
    """A draw that nothing comes of would shift all others after it, and a published row would be another."""
    called = []
    for place in (
        "models.generator:Decoder.draw_kept", "methods.squid:gradient_penalty", "methods.squid:estimating_batch_norm",
        "training.averaging:Average.__init__",
    ):  # fmt: skip
        original = resolve_name(place)
        watched = lambda *given, place=place, original=original: called.append(place) or original(*given)  # noqa: E731
        monkeypatch.setattr(place.replace(":", "."), watched)
    assert train("a", method=name) == 0
    assert called == []


def test_all_remedies_together_resume_exactly(workspace, trained_once):
    whole = trained_once("squid", REMEDIES)
    kill_in_training(workspace, "methods.squid.Squid", "update", 13, "squid", [*REMEDIES, EVERY_STEP])
    assert train("killed", overrides=REMEDIES) == 0
    assert_same_run(workspace / "checkpoints" / "killed", whole)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("skip_dropout=1", r"skip_dropout = 1.0: must lie in \[0, 1\)"),
        ("r1_weight=-1", "r1_weight = -1.0: must be at least 0"),
    ],
)
def test_a_remedy_out_of_range_is_refused(override, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("zhang_best", [override])


@pytest.mark.parametrize("override", ["skip_dropout=0.5", "cosine_addressing=true"])
def test_the_hierarchical_variant_refuses_what_it_has_no_place_for(override):
    with pytest.raises(configs.ConfigError, match="would do nothing: the hierarchical variant"):
        configs.build("simsid_hierarchical", [override])
