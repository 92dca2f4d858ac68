"""What every registered method and configuration must do."""

import copy

import pytest
import torch
from tiny import TINY

import configs
from dataloader import build_dataset
from dataloader.loader import Batch, TrainLoader
from evaluation.scoring import score_batches
from methods import METHODS, NonFiniteLoss

CPU = torch.device("cpu")
# Method → learning rate, and by what factor 40 steps on one batch must lower its reconstruction error. The best
# constant image lowers it by 1.3 to 2, the mean of the batch by 3.4 to 5.4; a method must beat a constant by far.
# Found were 7, 5, 7, 6.5, 2.8, 6.5, 1.8 and 3.6.
OVERFITTING = {
    "squid": (1e-1, 4),  # its mask and dropout hide a part of every image in training, never in scoring
    "simsid": (3e-2, 4),
    "ae": (1e-2, 4),  # nothing stands in the way
    "aeu": (1e-2, 3),  # it may explain an error as variance instead of mending it
    "memae": (3e-2, 2),  # what it rebuilds is a mixture of the slots, which it must learn to tell apart first
    "ddad": (1e-2, 4),  # the mean of two auto-encoders
    "fanogan": (3e-3, 1.5),  # its generator never sees which image it is to make
    "igd": (5e-3, 1.5),  # its critic and the drawn codes pull at the decoder, back and forth where steps are longer
    "vae": (1e-2, 2.5),  # what it decodes in training has noise
}
LEAST = (1e-2, 1.5)  # of a method that is not listed


def build(name, *overrides):
    config = configs.build(TINY[name][0], [*TINY[name][1], *overrides])
    torch.manual_seed(0)
    method = METHODS[name](config)
    dataset = build_dataset(config)
    return method, TrainLoader(dataset, config, CPU)


def images_of(loader, stage=None):
    """The first batch of a stage; of one that only fits, the first training images."""
    batch = next(loader.epoch(0, stage).batches(), None)
    return next(loader.unaugmented()) if batch is None else batch.images


def stepping(method):
    """The stages that train; the others only fit."""
    return [stage for stage in method.stages if stage.batches != 0]


def start(method, loader, stage):
    """As the loop does before a stage's first iteration."""
    method.start_stage(stage.name)
    method.start_epoch(loader, 0)


def train_a_bit(method, loader, steps=3):
    for stage in stepping(method):
        start(method, loader, stage)
        for step in range(steps):
            method.training_step(Batch.of(images_of(loader, stage), step))


def test_every_method_is_tested_and_has_settings():
    assert set(METHODS) == set(TINY) == set(configs.SETTINGS)


@pytest.mark.parametrize("name", configs.names())
def test_every_configuration_builds_its_method(name):
    config = configs.build(name)
    assert configs.from_dict(config.as_dict()).as_dict() == config.as_dict()
    with torch.device("meta"):
        method = METHODS[config.method](config)
    assert method.main_score in method.score_names


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_finite_and_reaches_every_parameter(name):
    method, loader = build(name)
    trained = set()
    for stage in stepping(method):
        start(method, loader, stage)
        before = {entry: p.clone() for entry, p in method.named_parameters()}
        losses = method.training_step(Batch.of(images_of(loader, stage)))
        assert losses and all(loss.isfinite() and not loss.requires_grad for loss in losses.values())
        own = {id(p) for o in method.optimizers.values() for group in o.param_groups for p in group["params"]}
        for entry, parameter in method.named_parameters():  # a stage leaves the other stages' parameters alone
            assert id(parameter) in own or torch.equal(parameter, before[entry]), entry
        trained |= own
    frozen = [parameter for part in method.frozen.values() for parameter in part.parameters()]
    assert not any(id(p) in trained or p.requires_grad or p.grad is not None for p in frozen)
    for entry, parameter in method.without_frozen(dict(method.named_parameters())).items():
        assert id(parameter) in trained, f"{entry} is in no optimizer"
        assert parameter.grad is not None and parameter.grad.isfinite().all(), entry
        if parameter.dim() > 1:
            assert parameter.grad.abs().max() > 0, f"{entry} receives no gradient"


@pytest.mark.parametrize("name", METHODS)
def test_scores_of_an_image_do_not_depend_on_the_batch_and_survive_saving(name, tmp_path):
    method, loader = build(name)
    images = images_of(loader)[:4]
    train_a_bit(method, loader)
    method.fit(loader)
    scores = method.score(images, all_maps=True)
    assert set(scores.image) == set(method.score_names) and method.main_score in method.score_names
    for values in scores.image.values():
        assert values.shape == (len(images),) and values.dtype == torch.float64 and values.isfinite().all()
    for picture in (scores.reconstruction, *scores.maps.values()):
        assert picture is None or (picture.shape == images.shape and picture.min() >= 0)
    assert scores.reconstruction is None or scores.reconstruction.max() <= 1
    black = method.score(torch.zeros_like(images), all_maps=True)
    assert all(values.isfinite().all() for values in (*black.image.values(), *black.maps.values()))

    torch.save(method.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(9)
    again = METHODS[name](method.config)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for key, values in scores.image.items():
        assert torch.equal(again.score(images).image[key], values)
    again, images = again.double(), images.double()  # where sigma is small, float32 shows rounding
    together = again.score(images, all_maps=True)
    alone = [again.score(image.unsqueeze(0), all_maps=True) for image in images]
    for key, values in together.image.items():
        torch.testing.assert_close(torch.cat([own.image[key] for own in alone]), values, rtol=1e-6, atol=1e-8)
    for key, pixels in together.maps.items():
        torch.testing.assert_close(torch.cat([own.maps[key] for own in alone]), pixels, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_one_batch_is_learnt_by_heart(name):
    learning_rate, factor = OVERFITTING.get(name, LEAST)
    method, loader = build(name, f"learning_rate={learning_rate}", "augment=false")
    images = next(loader.in_order(0, 8))
    if not stepping(method):
        pytest.skip(f"{name} is only fitted")
    method.fit(loader)  # without which some do not score

    def rebuilt():
        return method.score(images).reconstruction

    def error():
        return (rebuilt() - images).square().mean()

    if rebuilt() is None:
        pytest.skip(f"{name} makes no reconstruction")
    at_first = error()
    for stage in stepping(method):
        start(method, loader, stage)
        batch = images.repeat(stage.orders, 1, 1, 1)
        before = rebuilt()
        for step in range(40):
            torch.manual_seed(step)
            method.training_step(Batch.of(batch))  # the first iteration of an epoch is everybody's turn
            if step == 0 and torch.equal(rebuilt(), before):
                break  # the stage trains networks that reconstruct nothing
    assert error() < at_first / factor, f"{at_first:.4f} → {error():.4f}"


@pytest.mark.parametrize("name", METHODS)
def test_scoring_changes_nothing(name):
    method, loader = build(name)
    images = images_of(loader)
    method.fit(loader)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method.score(images, all_maps=True)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_that_is_not_finite_stops_before_the_update(name):
    method, loader = build(name)
    for stage in stepping(method):
        start(method, loader, stage)
        images = images_of(loader, stage)
        images[1, 0, 3, 3] = torch.nan
        before = {k: v.clone() for k, v in method.named_parameters()}
        with pytest.raises(NonFiniteLoss):
            method.training_step(Batch.of(images))
        assert all(torch.equal(v, before[k]) for k, v in method.named_parameters())


def test_squid_statistics_are_those_of_the_first_training_logits():
    method, loader = build("squid")
    method.fit(loader)
    batches = list(loader.in_order(0, 8))
    logits = torch.cat([method.score(images).columns["logit"] for images in batches])
    assert len(logits) == 8
    assert method.mu.item() == pytest.approx(logits.mean().item(), rel=1e-5)
    assert method.sigma.item() == pytest.approx(logits.std(correction=0).item(), rel=1e-4)
    scores = method.score(batches[0])
    by_hand = 1 - torch.sigmoid((scores.columns["logit"] - method.mu) / method.sigma)
    torch.testing.assert_close(scores.shown["discriminator"], by_hand, rtol=1e-6, atol=1e-6)
    assert (scores.image["discriminator"].argsort() == scores.columns["logit"].argsort(descending=True)).all()


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_all_images_score_alike_where_the_generator_gives_them_the_same_reconstruction(name):
    method, loader = build(name)
    with torch.no_grad():
        method.generator.student.output.weight.zero_()
    method.fit(loader)
    scores = method.score(images_of(loader))
    assert scores.image["discriminator"].isfinite().all()
    assert scores.image["discriminator"].unique().numel() == 1
    assert scores.image["reconstruction"].unique().numel() > 1


def test_squid_running_statistics_are_an_option():
    method, loader = build("squid")
    images = images_of(loader)
    own = method.score(images).columns["logit"]
    method.config.score_statistics = "running"
    running = method.score(images).columns["logit"]
    x_hat = method.score(images).reconstruction
    assert torch.equal(running, method.discriminator.eval()(x_hat).squeeze(1).detach().double())
    assert not torch.allclose(own, running)


def test_squid_teacher_sends_nothing_to_the_encoder():
    method, loader = build("squid")
    out = method.generator.train()(images_of(loader))
    out.teacher_x_hat.sum().backward()
    assert all(p.grad is None for p in method.generator.encoder.parameters())
    assert all(p.grad is None for p in method.generator.inpaint.parameters())
    assert all(p.grad is not None for p in method.generator.teacher.parameters())


@pytest.mark.parametrize("step, forwards", [(0, 2), (1, 1)])
def test_squid_encodes_once_but_counts_each_turn(step, forwards):
    """The encoder's running statistics are those of a forward per turn, though both turns share one."""
    method, loader = build("squid")
    images = images_of(loader)
    encoder = copy.deepcopy(method.generator.encoder).train()
    for _ in range(forwards):
        encoder(images)
    calls = []
    method.generator.encoder.register_forward_hook(lambda *_: calls.append(1))
    method.training_step(Batch.of(images, step))
    assert len(calls) == 1
    for name, buffer in encoder.named_buffers():
        torch.testing.assert_close(method.generator.encoder.get_buffer(name), buffer, rtol=1e-5, atol=1e-7, msg=name)
    norms = [m for m in method.generator.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all(norm.momentum == 0.1 and norm.num_batches_tracked == forwards for norm in norms)


def test_a_cpu_scores_fewer_large_images_at_once_and_never_a_few():
    def sizes(side, device):
        return [len(batch) for batch in score_batches(torch.zeros(40, side, side, dtype=torch.uint8), device)]

    assert sizes(32, CPU) == [32, 8] and sizes(96, CPU) == [14, 14, 12]
    assert sizes(128, CPU) == sizes(256, CPU) == [8] * 5
    assert sizes(256, torch.device("cuda")) == [32, 8]
