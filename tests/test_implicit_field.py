"""Implicit field: places, classes and codes; the network, a step, and how a code is fitted."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import minimum_filter, uniform_filter
from sklearn.cluster import KMeans
from test_initial import assert_uniform
from test_methods import build, images_of, start
from test_published import learning_rates
from torch.nn.utils.parametrize import is_parametrized

import configs
import methods.implicit_field as implicit_field
from configs.base import Stage
from dataloader.loader import Batch
from methods import METHODS
from methods.implicit_field import draw_points, most_frequent, smoothed, stretched
from models.implicit_field import Codes, Field, fourier_features

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trained(*overrides, steps=2):
    method, loader = build("implicit_field", *overrides)
    start(method, loader, method.stages[0])
    for step in range(steps):
        method.training_step(Batch.of(images_of(loader), step))
    return method, images_of(loader)


# -- as published -----------------------------------------------------------------------------------------------------


def test_a_stage_is_of_the_same_images():
    assert configs.build("implicit_field").stages() == (Stage("train", 100, 6, fixed=True),)


def test_the_published_rates():
    with torch.device("meta"):
        method = METHODS["implicit_field"](configs.build("implicit_field", ["lr_steps=499,999,1499,1999"]))
    (optimizer,) = method.optimizers.values()
    assert type(optimizer) is torch.optim.Adam
    field, codes = optimizer.param_groups
    assert (field["betas"], field["eps"], field["weight_decay"]) == ((0.9, 0.999), 1e-8, 0)
    assert (field["lr"], codes["lr"]) == (5e-4, 1e-3) and codes["params"][0] is method.codes.rows
    assert learning_rates(method, 2001)["field"] == pytest.approx([5e-4 * 0.5 ** (e // 500) for e in range(1, 2002)])
    assert codes["lr"] == pytest.approx(1e-3 / 16)


def test_the_network_starts_as_pytorchs_layers_do():
    torch.manual_seed(0)
    field = Field(64, 24, 256, 10, 0.2)
    for layer in (*field.hidden, field.last):
        bound = 1 / math.sqrt(layer.in_features)
        assert_uniform(layer.weight, bound)
        assert_uniform(layer.bias, bound)


def test_the_network_is_worked_out_by_hand():
    torch.manual_seed(0)
    field = Field(256, 40, 512, 10, 0.2)
    widths = [(layer.in_features, layer.out_features) for layer in field.hidden]
    assert widths == [(296, 512), (512, 512), (512, 512), (512, 216), *[(512, 512)] * 4]
    assert all(is_parametrized(layer, "weight") for layer in field.hidden) and not is_parametrized(field.last)
    assert (field.last.in_features, field.last.out_features, field.dropout.p) == (512, 10, 0.2)
    code, place = torch.rand(3, 256), torch.rand(3, 40)
    given = h = torch.cat([code, place], dim=1)
    for i, layer in enumerate(field.hidden):
        g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        h = (h @ (g * v / v.norm(dim=1, keepdim=True)).T + layer.bias).clamp(min=0)
        if i == 3:
            h = torch.cat([h, given], dim=1)
    torch.testing.assert_close(field.eval()(code, place), h @ field.last.weight.T + field.last.bias)


def test_every_hidden_layer_is_dropped_from_in_training():
    field, seen = Field(8, 16, 32, 4, 0.2), []
    field.dropout.register_forward_hook(lambda *args: seen.append(args[2]))
    field.train()(torch.rand(500, 8), torch.rand(500, 16))
    assert [out.shape[1] for out in seen] == [32, 32, 32, 8, 32, 32, 32, 32]


# -- places, classes, codes -------------------------------------------------------------------------------------------


def test_places_are_sines_then_cosines_of_pixel_centres():
    found = fourier_features(4, 3)
    assert found.shape == (16, 12)
    y, x = -0.25, 0.75  # the second row's last pixel, number 7
    angles = [math.pi * 2**j * c for c in (y, x) for j in range(3)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    assert found[7].tolist() == pytest.approx(expected, abs=1e-5)


def test_intensities_are_stretched_between_percentiles_of_what_is_above_zero():
    images = noise(3, 1, 20, 20).where(noise(3, 1, 20, 20, seed=1) > 0.4, 0)
    images[2] = 0
    found, low, high = stretched(images)
    for image, ours, lo, hi in zip(images[:2], found, low, high, strict=False):
        expected = np.percentile(image[image > 0].numpy(), [2, 98])
        assert [lo.item(), hi.item()] == pytest.approx(expected.tolist())
        by_hand = (image.numpy().clip(*expected) - expected[0]) / (expected[1] - expected[0])
        np.testing.assert_allclose(ours, by_hand, atol=1e-12)
    assert not found[2].any()


def test_the_most_frequent_class_of_each_pixel_and_those_before_it():
    classes = torch.tensor([[2, 2, 1], [1, 2, 1], [3, 3, 2]])[None, None]
    #  0 0 0 0       each pixel with those above, left and above left; ties go to the lowest
    #  0 2 2 1
    #  0 1 2 1
    #  0 3 3 2
    expected = [[0, 0, 0], [0, 2, 1], [0, 3, 2]]
    assert most_frequent(classes, 4)[0, 0].tolist() == expected


def test_classes_are_the_nearest_centres_before_they_are_pooled(monkeypatch):
    method, _ = build("implicit_field", "bins=4")
    method.centres.copy_(torch.tensor([0.0, 0.1, 0.6, 1.0]))
    images = noise(2, 1, 24, 24).float()
    monkeypatch.setattr(implicit_field, "most_frequent", lambda classes, count: classes)
    expected = (stretched(images)[0].unsqueeze(-1) - method.centres).abs().argmin(-1)
    assert torch.equal(method.classes(images), expected)


def test_classes_are_k_means_clusters_of_all_training_images():
    method, _ = build("implicit_field", "bins=3")
    rng = np.random.RandomState(0)
    values = np.concatenate([rng.normal(m, 0.03, 700) for m in (0.15, 0.45, 0.8)]).clip(0.01, 1)
    batches = torch.from_numpy(rng.permutation(values)).float().reshape(2, -1, 1, 21, 50)
    loader = SimpleNamespace(training_size=lambda: 2, unaugmented=lambda: iter(batches))
    method.start_epoch(loader, 0)
    pixels = torch.cat([stretched(images)[0].flatten() for images in batches]).unsqueeze(1)
    expected = KMeans(3, n_init=3, random_state=0).fit(pixels.numpy()).cluster_centers_.ravel()
    assert method.centres.tolist() == pytest.approx(sorted(expected), abs=2e-3)


def test_codes_are_drawn_once_for_every_training_image_and_kept_short():
    method, loader = build("implicit_field", "code_size=64", "width=128", "digits_per_epoch=200")
    assert method.codes.rows.shape == (0, 64)
    method.start_epoch(loader, 0)
    assert method.codes.rows.shape == (200, 64)
    assert method.codes.rows.std().item() == pytest.approx(1 / 16, rel=0.05)
    drawn = method.codes.rows.clone()
    method.start_epoch(loader, 1)
    assert torch.equal(method.codes.rows, drawn)
    again = METHODS["implicit_field"](method.config)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.codes.rows, drawn)
    assert again.optimizers["field"].param_groups[1]["params"][0] is again.codes.rows

    codes = Codes(4)
    codes.rows.data = torch.tensor([[3.0, 0, 4, 0], [0.1, 0.2, 0, 0]])
    codes.bound()
    torch.testing.assert_close(codes.rows.data, torch.tensor([[0.6, 0, 0.8, 0], [0.1, 0.2, 0, 0]]))


def test_an_image_keeps_its_code_where_a_dataset_makes_new_images_every_epoch():
    method, loader = build("implicit_field")
    (stage,) = method.stages
    first, later = (loader.epoch(epoch, stage) for epoch in (0, 3))
    assert torch.equal(first.images, later.images)
    assert not torch.equal(torch.cat(first.indices), torch.cat(later.indices))
    assert not torch.equal(loader.epoch(3, Stage("train", 1, 8)).images, first.images)


# -- a step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs_before", "grown"), [(0, 0.25), (2, 0.75), (9, 1.0)])
def test_losses_are_worked_out_by_hand(monkeypatch, epochs_before, grown):
    method, loader = build("implicit_field", "dropout=0", "prior_weight=0.1", "points=12")
    start(method, loader, method.stages[0])
    for _ in range(epochs_before):
        method.end_epoch()
    images = images_of(loader)
    points = draw_points(len(images), 12, 24 * 24)
    monkeypatch.setattr(implicit_field, "draw_points", lambda *args: points)
    indices = torch.arange(len(images)) + 5
    codes, classes = method.codes.rows[indices].detach().clone(), method.classes(images).flatten(1)
    expected = 0
    for code, own, of_image in zip(codes, points, classes, strict=True):
        for place in own:
            logits = method.field(code, method.places[place])
            expected -= logits.log_softmax(0)[of_image[place]] / (len(images) * 12)
    found = method.training_step(Batch(images, indices))
    torch.testing.assert_close(found["cross_entropy"], expected.detach())
    torch.testing.assert_close(found["prior"], 0.1 * grown * codes.norm(dim=1).mean())
    moved = (method.codes.rows.grad != 0).any(1).nonzero().flatten()
    assert torch.equal(moved, indices)
    assert method.codes.rows.norm(dim=1).max() <= 1 + 1e-6


def test_points_are_drawn_anew_for_every_image_and_over_all_pixels():
    torch.manual_seed(0)
    points = draw_points(4, 20_000, 576)
    assert points.unique().tolist() == list(range(576)) and not torch.equal(points[0], points[1])
    assert points.shape == (4, 20_000)


# -- fitting and scoring ----------------------------------------------------------------------------------------------


def test_constant_logits_leave_log_k_unexplained_everywhere():
    method, images = trained()
    torch.nn.init.zeros_(method.field.last.weight)
    torch.nn.init.zeros_(method.field.last.bias)
    errors, x_hat = method.explained(images)
    torch.testing.assert_close(errors, torch.full_like(images, math.log(10)))
    _, low, high = stretched(images)
    torch.testing.assert_close(x_hat, (low + (high - low) * method.centres.mean()).expand_as(images))


def test_a_code_is_fitted_by_adam_in_phases_that_start_anew(monkeypatch):
    method, images = trained("fit_iterations=3,2", "fit_points=50,80", "fit_learning_rate=0.01")
    method.eval()
    drawn = []
    monkeypatch.setattr(implicit_field, "draw_points", lambda *args: drawn.append(draw_points(*args)) or drawn[-1])
    start_codes = []
    initial = implicit_field.initial_codes
    monkeypatch.setattr(
        implicit_field, "initial_codes", lambda *args: start_codes.append(initial(*args)) or start_codes[-1]
    )
    classes = method.classes(images)
    found = method.fitted(classes)
    assert [tuple(points.shape) for points in drawn] == [(1, 50)] * 3 + [(1, 80)] * 2
    assert len({tuple(points[0, :9].tolist()) for points in drawn}) == 5

    for i in range(2):  # each image on its own
        code = start_codes[0].clone().requires_grad_()
        for phase in (drawn[:3], drawn[3:]):
            m, v = torch.zeros_like(code), torch.zeros_like(code)
            for t, points in enumerate(phase, 1):
                logits = method.field(code.expand(points.shape[1], -1), method.places[points[0]])
                target = classes[i].flatten()[points[0]]
                loss = -logits.log_softmax(1).gather(1, target.unsqueeze(1)).mean()
                (gradient,) = torch.autograd.grad(loss, code)
                m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
                step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
                code = (code - 0.01 * step).detach().requires_grad_()
        torch.testing.assert_close(found[i], code[0].detach(), rtol=1e-3, atol=1e-4)


def test_fitting_lowers_what_is_unexplained_and_leaves_the_field_alone():
    method, images = trained("fit_iterations=60", "fit_points=200", "fit_learning_rate=0.05", steps=40)
    before = copy.deepcopy(method.state_dict())
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in method.named_parameters()}
    random_state = torch.get_rng_state()
    fitted = method.score(images).image["cross_entropy"]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(p.requires_grad for p in method.parameters())
    for name, p in method.named_parameters():
        assert p.grad is grads[name] is None or torch.equal(p.grad, grads[name]), name
    method.config.fit_iterations = (1,)
    assert (fitted < method.score(images).image["cross_entropy"]).all()


def test_images_scored_in_parts_are_scored_as_one(monkeypatch):
    method, images = trained()
    whole = method.score(images)
    monkeypatch.setattr(implicit_field, "POINTS_AT_ONCE", 2 * 24 * 24)
    parts = method.score(images)
    torch.testing.assert_close(parts.maps, whole.maps)
    torch.testing.assert_close(parts.reconstruction, whole.reconstruction)


def test_the_map_is_the_least_of_neighbours_then_a_mean_and_the_score_its_mean():
    errors = noise(2, 1, 20, 20)
    found = smoothed(errors)
    for image, ours in zip(errors[:, 0].numpy(), found[:, 0].numpy(), strict=True):
        least = minimum_filter(image, 3, mode="constant", cval=np.inf)
        np.testing.assert_allclose(ours, uniform_filter(least, 15, mode="constant"), atol=1e-12)
    method, images = trained()
    scores = method.score(images)
    torch.testing.assert_close(scores.maps["cross_entropy"], smoothed(method.explained(images)[0]))
    torch.testing.assert_close(
        scores.image["cross_entropy"], scores.maps["cross_entropy"].mean((1, 2, 3)).double(), rtol=1e-5, atol=0
    )


def test_a_black_image_is_scored():
    method, images = trained()
    found = method.score(torch.zeros_like(images[:1]))
    assert found.image["cross_entropy"].isfinite().all() and not found.reconstruction.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["width=296"], "width = 296: must be above code_size \\+ 4 · frequencies = 296"),
        (["fit_points=5,6"], "fit_iterations and fit_points: a number of at least 1 in each"),
        (["fit_iterations=0"], "fit_iterations and fit_points"),
        (["fit_iterations=", "fit_points="], "fit_iterations and fit_points"),
        (["bins=1"], "bins = 1: must be at least 2"),
        (["dropout=1"], "dropout = 1.0"),
        (["average_decay=0.9"], "average_decay: codes are not averaged"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("implicit_field", settings)
