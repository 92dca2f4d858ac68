"""CutPaste: how views are drawn and pasted, the network, a step, and the densities of what it sees."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KernelDensity
from test_methods import build, images_of
from test_published import count, learning_rates, linear
from torch import nn
from torch.nn.functional import normalize
from torchvision.transforms.functional import adjust_brightness, adjust_contrast

import configs
import methods.cutpaste as cutpaste
from configs.base import Stage
from dataloader.loader import Batch
from methods import METHODS
from methods.cutpaste import Cuts, Jitter, draw_jitter, draw_patches, draw_scars, jittered, pasted, three_views
from models.cutpaste import CutPasteNet
from models.density import Density

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")

STILL = Jitter(torch.ones(1), torch.ones(1), torch.tensor([False]))  # changes nothing


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- as published -----------------------------------------------------------------------------------------------------


def test_an_epoch_is_of_256_steps():
    assert configs.build("cutpaste").stages() == (Stage("train", 100, 64, batches=256),)


def test_the_optimizer_and_its_rates():
    with torch.device("meta"):
        method = METHODS["cutpaste"](configs.build("cutpaste"))
    (optimizer,) = method.optimizers.values()
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.SGD and len(group["params"]) == len(list(method.parameters()))
    assert (group["momentum"], group["weight_decay"], group["nesterov"], group["dampening"]) == (0.9, 3e-5, False, 0)
    expected = [0.015 * (1 + math.cos(math.pi * epoch / 100)) for epoch in range(100)]
    assert learning_rates(method, 100)["network"] == pytest.approx(expected, rel=1e-6)


def test_the_network_is_a_resnet18_with_a_head_of_three_layers():
    torch.manual_seed(0)
    network = CutPasteNet()
    assert count(network.backbone) == 11_176_512  # torchvision's 11,689,512 less the classifier's 513,000
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [type(layer) for layer in network.head] == kinds
    assert count(network.head) == linear(512, 512) + 2 * 512 + linear(512, 128) + 2 * 128 + linear(128, 3)
    assert all(parameter.requires_grad for parameter in network.parameters())
    for module in network.modules():  # drawn as torchvision draws it, not loaded
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
        if isinstance(module, nn.Linear):
            assert module.weight.abs().max() <= 1 / math.sqrt(module.in_features)
    z, logits = network(torch.rand(2, 1, 64, 64))
    assert z.shape == (2, 512) and logits.shape == (2, 3)


def test_the_network_sees_the_gray_image_three_times_between_minus_one_and_one():
    method, loader = build("cutpaste")
    images, seen = images_of(loader), []
    method.network.backbone.conv1.register_forward_hook(lambda _, given, out: seen.append(given[0]))
    method.eval().seen(images)
    torch.testing.assert_close(seen[0], (2 * images - 1).repeat(1, 3, 1, 1))


# -- the views --------------------------------------------------------------------------------------------------------


def test_a_patch_is_copied_and_all_else_stays():
    image = noise(1, 1, 12, 12)
    cuts = Cuts(torch.tensor([[2, 5]]), torch.tensor([[1, 0]]), torch.tensor([[8.0, 9.5]]), torch.zeros(1))
    expected = image.clone()
    expected[..., 7:9, 7:12] = image[..., 1:3, 0:5]
    assert torch.equal(pasted(image, cuts, STILL), expected)


def test_a_scar_is_turned_about_its_centre():
    image = noise(1, 1, 12, 12)
    cuts = Cuts(torch.tensor([[2, 4]]), torch.tensor([[3, 5]]), torch.tensor([[6.0, 5.0]]), torch.tensor([math.pi / 2]))
    expected = image.clone()
    expected[..., 4:8, 4:6] = image[..., 3:5, 5:9].rot90(1, (2, 3))
    assert torch.equal(pasted(image, cuts, STILL), expected)
    cuts = cuts._replace(angle=torch.tensor([math.pi / 6]), size=torch.tensor([[6, 4]]))
    assert 20 <= (pasted(image, cuts, STILL) != image).sum() <= 28  # its area, 24


def test_the_piece_is_jittered_about_its_own_mean_and_the_rest_is_not():
    image = 0.3 + 0.4 * noise(1, 1, 12, 12)
    cuts = Cuts(torch.tensor([[3, 3]]), torch.tensor([[0, 0]]), torch.tensor([[7.5, 7.5]]), torch.zeros(1))
    found = pasted(image, cuts, Jitter(torch.ones(1), torch.tensor([0.9]), torch.tensor([False])))
    piece, expected = image[..., :3, :3], image.clone()
    expected[..., 6:9, 6:9] = 0.9 * piece + 0.1 * piece.mean()
    torch.testing.assert_close(found, expected)


def test_jitter_is_torchvisions():
    images = noise(3, 1, 20, 20)
    jitter = Jitter(torch.tensor([1.1, 0.9, 1.05]), torch.tensor([0.9, 1.1, 1.1]), torch.tensor([False, True, True]))
    found = jittered(images, jitter)
    for image, b, c, contrast_first, ours in zip(images, *jitter, found, strict=True):
        steps = [(adjust_brightness, float(b)), (adjust_contrast, float(c))]
        x = image
        for change, factor in steps[:: -1 if contrast_first else 1]:
            x = change(x, factor)
        torch.testing.assert_close(ours, x)


def test_jitter_is_drawn_within_a_tenth_and_in_both_orders():
    torch.manual_seed(0)
    jitter = draw_jitter(4000)
    for factors in jitter[:2]:
        assert 0.9 <= factors.min() < 0.901 and 1.099 < factors.max() <= 1.1 and abs(factors.mean() - 1) < 0.005
    assert abs(torch.corrcoef(torch.stack(jitter[:2]))[0, 1]) < 0.05
    assert 0.46 < jitter.contrast_first.float().mean() < 0.54


def test_patches_are_drawn_from_the_papers_ranges():
    torch.manual_seed(0)
    side, cuts = 224, draw_patches(4000, 224)
    height, width = cuts.size.double().T
    area, aspect = height * width / side**2, (width / height).log()
    assert 0.0195 < area.min() < 0.021 and 0.149 < area.max() < 0.1515 and abs(area.mean() - 0.085) < 0.003
    assert abs(aspect.min() - math.log(0.3)) < 0.05 and abs(aspect.max() - math.log(3.3)) < 0.05
    assert abs(aspect.mean() - math.log(0.3 * 3.3) / 2) < 0.04
    target = cuts.centre - cuts.size / 2
    for corner in (cuts.source, target):
        assert torch.equal(corner, corner.floor()) and corner.min() == 0
        room = side - cuts.size
        assert (corner <= room).all() and (corner == room).any()
        assert torch.all(((corner / room).mean(0) - 0.5).abs() < 0.02)
    assert abs(torch.corrcoef(torch.stack([cuts.source[:, 0] / room[:, 0], target[:, 0] / room[:, 0]]))[0, 1]) < 0.05
    assert not cuts.angle.any()


@pytest.mark.parametrize("side", [256, 128])
def test_scars_are_drawn_from_the_papers_ranges_scaled_and_lie_within_the_image(side):
    torch.manual_seed(0)
    cuts = draw_scars(4000, side)
    for sizes, (least, most) in zip(cuts.size.T, [(10, 25), (2, 16)], strict=True):
        assert sizes.min() == max(2, round(least * side / 256)) and sizes.max() == round(most * side / 256)
    degrees = cuts.angle.rad2deg()
    assert degrees.abs().max() <= 45 and degrees.min() < -44.5 and degrees.max() > 44.5 and abs(degrees.mean()) < 1.5
    cos, sin = cuts.angle.cos(), cuts.angle.sin()
    for up in (-0.5, 0.5):
        for right in (-0.5, 0.5):
            dy, dx = up * cuts.size[:, 0], right * cuts.size[:, 1]
            corner = cuts.centre + torch.stack([cos * dy - sin * dx, sin * dy + cos * dx], dim=1)
            assert corner.min() >= -1e-3 and corner.max() <= side + 1e-3
    assert (cuts.source >= 0).all() and (cuts.source + cuts.size <= side).all()


def test_views_are_a_function_of_the_seed_and_share_the_images_jitter():
    images = noise(20, 1, 64, 64)
    torch.manual_seed(3)
    views = three_views(images)
    torch.manual_seed(3)
    assert torch.equal(three_views(images), views)
    torch.manual_seed(4)
    assert not torch.equal(three_views(images), views)
    normal, patched, scarred = views.chunk(3)
    assert views.min() >= 0 and views.max() <= 1
    assert 0 < (normal - images).abs().max() <= 0.16 and len(set((normal / images).mean((1, 2, 3)).tolist())) == 20
    of_patches = (patched != normal).double().mean((1, 2, 3))
    assert of_patches.min() > 0.005 and of_patches.max() < 0.16  # a source may lie under its target
    of_scars = (scarred != normal).double().mean((1, 2, 3))
    assert of_scars.min() > 0 and of_scars.max() <= 6 * 4 / 64**2 * 1.5


# -- a step and the scores --------------------------------------------------------------------------------------------


def test_a_step_classifies_all_views_in_one_forward(monkeypatch):
    method, loader = build("cutpaste")
    images = images_of(loader)
    monkeypatch.setattr(cutpaste, "three_views", lambda x: torch.cat([x, x.flip(2), x.flip(3)]))
    network = copy.deepcopy(method.network).train()
    found = method.training_step(Batch.of(images))
    _, logits = network(2 * torch.cat([images, images.flip(2), images.flip(3)]) - 1)
    of_true = logits.log_softmax(1)[torch.arange(18), torch.arange(18) // 6]
    torch.testing.assert_close(found["classification"], -of_true.mean().detach())
    assert {int(b) for name, b in method.named_buffers() if name.endswith("num_batches_tracked")} == {1}


def test_an_epoch_has_its_steps_however_few_the_images_are():
    method, loader = build("cutpaste", "steps_per_epoch=9", "batch_size=10")
    batches = list(loader.epoch(0, method.stages[0]).batches())
    assert [len(batch.indices) for batch in batches] == [10] * 9  # of 24 images
    assert torch.cat([batch.indices for batch in batches]).bincount().tolist() == pytest.approx([90 / 24] * 24, abs=1)


def test_densities_are_scikit_learns():
    rows, z = noise(50, 6), noise(9, 6, seed=1)
    density = Density().double()
    density.fit(rows)
    expected = LedoitWolf().fit(rows.numpy())
    np.testing.assert_allclose(density.mahalanobis(z) ** 2, expected.mahalanobis(z.numpy()))
    assert density.mahalanobis(rows.mean(0, keepdim=True)) < 1e-6
    kernels = KernelDensity(bandwidth=0.3).fit(rows.numpy())
    np.testing.assert_allclose(density.log_density(z, 0.3), kernels.score_samples(z.numpy()))


def test_kernels_tell_features_apart_that_are_close_together():
    rows = normalize(noise(1, 512) + 3e-3 * noise(300, 512, seed=1)).float()  # as after a long training
    density = Density()
    density.fit(rows)
    found = density.log_density(rows, 1)
    expected = KernelDensity(bandwidth=1).fit(rows.double().numpy()).score_samples(rows.double().numpy())
    assert len(found.unique()) > 290 and spearmanr(found, expected).statistic > 0.999


def test_scores_are_of_features_of_length_one_in_evaluation_mode():
    method, loader = build("cutpaste")
    method.training_step(Batch.of(images_of(loader)))
    method.fit(loader)
    images = torch.cat(list(loader.unaugmented()))
    z, logits = method.network.eval()(2 * images - 1)
    z = z / z.norm(dim=1, keepdim=True)
    torch.testing.assert_close(method.density.rows, z.detach(), rtol=1e-4, atol=1e-6)
    found = method.score(images).image
    expected = LedoitWolf().fit(z.detach().double().numpy()).mahalanobis(z.detach().double().numpy()) ** 0.5
    np.testing.assert_allclose(found["gaussian"], expected, rtol=1e-2)
    np.testing.assert_allclose(found["classifier"], 1 - logits.softmax(1)[:, 0].detach(), rtol=1e-4, atol=1e-6)
    kernels = KernelDensity(bandwidth=1).fit(z.detach().double().numpy())
    np.testing.assert_allclose(found["kernel"], -kernels.score_samples(z.detach().double().numpy()), rtol=1e-5)
    assert method.main_score == "gaussian"


def test_images_of_which_the_classifier_is_sure_are_still_ranked():
    method, loader = build("cutpaste")
    method.fit(loader)
    logits = torch.tensor([[-20.0, 0.0, 1.0], [-20.0, 0.0, 2.0], [20.0, 0.0, 0.0]])
    seen = method.seen
    method.seen = lambda images: (seen(images)[0], logits)
    first, second, normal = method.score(images_of(loader)[:3]).image["classifier"].tolist()
    assert 1 > second > first > normal == pytest.approx(2 * math.exp(-20))


def test_scaled_features_have_the_same_density():
    method, loader = build("cutpaste")
    method.fit(loader)
    images = images_of(loader)
    before = method.score(images).image
    features = method.network.backbone.forward
    method.network.backbone.forward = lambda x: 7 * features(x)
    for name in ("gaussian", "kernel"):
        torch.testing.assert_close(method.score(images).image[name], before[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("image_size=31", "image_size = 31: must be at least 32"),
        ("bandwidth=0", "bandwidth = 0.0: must be above 0"),
        ("steps_per_epoch=0", "steps_per_epoch = 0: must be at least 1"),
        ("main_score=distance", "main_score = 'distance'"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("cutpaste", [setting])
