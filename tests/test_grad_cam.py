"""The discriminator's map: Grad-CAM as published, of each image alone, made where maps are wanted and only there."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_methods import build, images_of, train_a_bit
from test_simsid import VARIANTS
from tiny import command
from torch.nn.functional import interpolate, leaky_relu

from evaluation import plots
from evaluation.scoring import score_images
from experiments.folder import Experiment
from methods.base import Scores
from methods.grad_cam import grad_cam
from models.discriminator import SQUID_CHANNELS, Discriminator
from system.device import to_float

CPU = torch.device("cpu")


def test_the_map_is_the_one_worked_out_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [-1.0, 0.0]], [[4.0, 0.0], [2.0, -3.0]]]])
    slopes = torch.tensor([[[8.0, 0.0], [0.0, 0.0]], [[0.0, -1.0], [-3.0, 0.0]]])
    with torch.no_grad():
        found = grad_cam(torch.cat([features, 2 * features]), lambda of: (slopes * of).sum((1, 2, 3)))
    # the channels' weights are 2 and −1; 2 · (1, 2, −1, 0) − (4, 0, 2, −3) = (−2, 4, −4, 3)
    of_first = torch.tensor([[[0.0, 4.0], [0.0, 3.0]]])
    assert torch.equal(found, torch.stack([of_first, 2 * of_first])) and not found.requires_grad


@pytest.mark.parametrize(("size", "depth", "side"), [(48, 2, 12), (64, 3, 8), (96, 3, 12), (128, 4, 8), (256, 5, 8)])
def test_it_is_of_the_deepest_features_that_say_where(size, depth, side):
    features = Discriminator(size).eval().features(torch.rand(1, 1, size, size))
    assert features.shape == (1, SQUID_CHANNELS[depth - 1], side, side)


@pytest.mark.parametrize("lowers", [True, False])
def test_what_lowers_the_logit_lights_up_where_it_is(lowers):
    method, _ = build("squid")
    method.discriminator = Discriminator(48, (1, 1))  # of which the first features are the shown ones, 24 × 24
    with torch.no_grad():
        for conv in method.discriminator.convs:
            conv.weight.zero_()[..., 2, 2] = 1  # every second pixel
            conv.bias.zero_()
        method.discriminator.regressor.weight.fill_(-1.0 if lowers else 1.0)
    method.discriminator.shown = 1
    method.config.score_statistics = "running"
    method.eval()
    x_hat = torch.zeros(2, 1, 48, 48)
    x_hat[1, :, 8:16, 32:40] = 1
    dark, bright = method.discriminator(x_hat).squeeze(1)
    assert (bright < dark) == lowers
    found = method.extra_maps(x_hat, Scores(image={}, reconstruction=x_hat))["discriminator"]
    assert found.shape == x_hat.shape and found[0].max() == 0
    if not lowers:
        assert found.max() == 0
        return
    lit = found[1, 0] > found[1, 0].max() / 2
    assert torch.equal(lit, x_hat[1, 0] > 0)


def plain(network, x, per_image):
    """Grad-CAM of −logit of one image (1, 1, S, S), with batch norm's own evaluation mode on fixed statistics."""
    network = copy.deepcopy(network).requires_grad_(True)
    if per_image:
        counts = []
        for norm in network.norms:
            norm.momentum = 1.0  # the running statistics become the image's
            norm.register_forward_hook(lambda module, inputs, output: counts.append(output[0, 0].numel()))
        network.train()(x)
        for norm, count in zip(network.norms, counts, strict=True):
            norm.running_var *= (count - 1) / count  # what batch norm divides by
    network.eval()
    shown = None
    for i, conv in enumerate(network.convs):
        x = conv(x)
        x = leaky_relu(network.norms[i - 1](x) if i else x, 0.2)
        if x.shape[2] >= 8:
            shown = x
    shown.retain_grad()
    (-network.regressor(x.flatten(1))).backward()
    weights = shown.grad[0].flatten(1).mean(1)
    grid = torch.einsum("c,chw->hw", weights, shown[0]).clamp(min=0).detach()
    return interpolate(grid[None, None], size=48, mode="bilinear", align_corners=False)[0]


SIMSIDS = [("simsid", VARIANTS[name]) for name in ("queue", "sigmoid", "small discriminator", "hierarchical")]


@pytest.mark.parametrize(("name", "overrides"), [("squid", []), ("squid", ["score_statistics=running"]), *SIMSIDS])
def test_each_images_map_is_a_plain_grad_cam_of_what_the_discriminator_sees(name, overrides):
    method, loader = build(name, *overrides)
    train_a_bit(method, loader)
    images = images_of(loader)[:4].double()
    method.double()
    seen = []
    method.generator.register_forward_hook(lambda module, inputs, out: seen.append(out.x_hat))
    found = method.score(images, all_maps=True).maps["discriminator"]
    per_image = method.config.score_statistics == "image"
    expected = torch.stack([plain(method.discriminator, x_hat[None], per_image) for x_hat in seen[0]])
    assert found.dtype == torch.float64 and expected.flatten(1).amax(1).count_nonzero() > 1
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("per_image", [True, False])
def test_what_is_explained_is_the_logit(per_image):
    torch.manual_seed(0)
    network, x = Discriminator(64).eval(), torch.rand(3, 1, 64, 64)
    torch.testing.assert_close(network.judge(network.features(x, per_image), per_image), network(x, per_image))


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_scores_are_the_same_bit_for_bit_with_all_maps(name):
    method, loader = build(name)
    method.fit(loader)
    images = images_of(loader)[:4]
    without, found = method.score(images), method.score(images, all_maps=True)
    for part in ("image", "columns", "shown"):
        before, after = getattr(without, part), getattr(found, part)
        assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
    assert all(torch.equal(pixels, found.maps[key]) for key, pixels in without.maps.items())
    assert set(without.maps) == {"reconstruction"} and set(found.maps) == {"reconstruction", "discriminator"}


def test_nothing_is_made_of_it_where_no_maps_are_wanted(monkeypatch):
    method, _ = build("squid")
    images = torch.zeros(3, 48, 48, dtype=torch.uint8)
    monkeypatch.setattr(method, "extra_maps", lambda *_: pytest.fail("made"))
    score_images(method, images, CPU, "scoring")
    with pytest.raises(pytest.fail.Exception, match="made"):
        score_images(method, images, CPU, "scoring", keep_maps=True)


def test_it_is_evaluated_saved_and_shown(workspace, trained, monkeypatch):
    trained("exp", overrides=["epochs=1", "main_score=discriminator"])
    assert command("eval", "--exp", "exp", "--device", "cpu", "--save-maps") == 0
    results = json.loads(Path("checkpoints/exp/results.json").read_text())
    assert set(results["localisation"]) == {"discriminator", "reconstruction"}
    with np.load("checkpoints/exp/maps.npz") as saved:
        assert saved["discriminator"].shape == saved["reconstruction"].shape and saved["discriminator"].max() > 0

    pixels = np.random.RandomState(0).randint(0, 256, (48, 48), np.uint8)
    Image.fromarray(pixels).save("x.png")
    shown = []
    monkeypatch.setattr(plots, "strip", lambda title, captions, gray, heat, path: shown.append(heat))
    assert command("predict", "--exp", "exp", "x.png", "--images", "out", "--device", "cpu") == 0
    method, _ = build("squid")
    Experiment("exp").load_weights("best", method)
    image = to_float(torch.from_numpy(pixels)[None], CPU)
    expected = method.score(image, all_maps=True).maps["discriminator"]
    assert shown[0].name == "discriminator"
    torch.testing.assert_close(torch.from_numpy(shown[0].pixels), expected[0, 0])
