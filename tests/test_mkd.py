"""M-KD: the student, the loss, and a map that is a gradient."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, grey_opening
from test_initial import assert_uniform
from test_methods import build, images_of
from torch import nn

import configs
from dataloader.loader import Batch
from methods import METHODS
from methods.mkd import opening
from models.mkd import Student

RAW = ["blur=0", "opening=1"]  # the map is the gradient's size
VGG16 = [(64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3]


def by_hand(t, s):
    """1 − cosine of the whole maps, and the mean squared difference, each (B,)."""
    t, s = (f.detach().double().flatten(1) for f in (t, s))
    cosine = (t * s).sum(1) / (t.square().sum(1) * s.square().sum(1)).sqrt()
    return 1 - cosine, (t - s).square().mean(1)


def both(method, images):
    """The layers of the teacher and of the student, shallowest first."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 1, 3, 1, 1)
    return list(method.features(images).values()), method.student((images - mean) / std)


# -- the student ------------------------------------------------------------------------------------------------------


def test_the_student_of_vgg16_is_the_published_one():
    with torch.device("meta"):
        method = METHODS["mkd"](configs.build("mkd"))
        found = method.student(torch.rand(2, 3, 128, 128))
    assert [tuple(f.shape) for f in found] == [(2, 128, 32, 32), (2, 256, 16, 16), (2, 512, 8, 8), (2, 512, 4, 4)]
    convs = [m for m in method.student.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [16, 16, 16, 128, 16, 16, 256, 16, 16, 512, 16, 16, 512]
    assert all(m.kernel_size == (3, 3) and m.padding == (1, 1) and m.bias is None for m in convs)
    layer = ["Conv2d", "BatchNorm2d", "ReLU"]
    last = ["Conv2d", "ReLU", "MaxPool2d"]
    kinds = [[type(m).__name__ for m in block] for block in method.student.blocks]
    assert kinds == [layer + last] * 2 + [layer * 2 + last] * 3
    assert list(method.features.channels.values()) == [128, 256, 512, 512]


def test_weights_start_as_xaviers():
    torch.manual_seed(0)
    for conv in (m for m in Student([(16, 16), (16, 32)]).modules() if isinstance(m, nn.Conv2d)):
        assert_uniform(conv.weight, math.sqrt(6 / (9 * (conv.in_channels + conv.out_channels))))


@pytest.mark.parametrize(("backbone", "signed"), [("resnet18", False), ("efficientnet_lite0", True)])
def test_the_student_has_the_teachers_shapes_and_signs(backbone, signed):
    method, loader = build("mkd", f"backbone={backbone}", "image_size=64")
    for t, s in zip(*both(method, images_of(loader)), strict=True):
        assert t.shape == s.shape
        assert (t.min() < 0) == (s.min() < 0) == signed


def test_a_student_that_is_the_teacher_finds_no_anomaly():
    method, loader = build("mkd", "backbone=vgg16")
    student = Student(VGG16)
    teachers = [m for m in method.features.modules() if isinstance(m, nn.Conv2d)]
    students = [m for m in student.modules() if isinstance(m, nn.Conv2d)]
    for own, theirs in zip(students, teachers, strict=True):
        assert torch.all(theirs.bias == 0)  # as random weights start
        own.weight = theirs.weight
    images = images_of(loader)
    other = method.score(images).image["discrepancy"]
    method.student = student
    same = method.score(images).image["discrepancy"]
    assert other.min() > 0.1 and same.abs().max() < 1e-5


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_losses_are_worked_out_by_hand():
    method, loader = build("mkd", "value_weight=0.3")
    images = images_of(loader)
    method.train()
    pairs = [by_hand(t, s) for t, s in zip(*both(method, images), strict=True)]
    found = method.training_step(Batch.of(images))
    expected = {"direction": sum(d.mean() for d, _ in pairs), "value": 0.3 * sum(v.mean() for _, v in pairs)}
    expected["loss"] = expected["direction"] + expected["value"]
    assert len(pairs) == 4 and found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-4), name


def test_the_direction_does_not_see_the_students_length():
    method, loader = build("mkd")
    images, layers = images_of(loader), method.config.layers
    before = method.eval().discrepancies(images, layers)
    student = method.student.forward
    method.student.forward = lambda x: [3 * f for f in student(x)]
    after = method.discrepancies(images, layers)
    torch.testing.assert_close(before["direction"], after["direction"])
    assert not torch.allclose(before["value"], after["value"])


def test_the_teacher_stays_as_it_is_and_the_loss_falls():
    method, loader = build("mkd")
    before = {name: value.clone() for name, value in method.features.state_dict().items()}
    images = images_of(loader)
    losses = [method.training_step(Batch.of(images, step))["direction"].item() for step in range(8)]
    assert all(torch.equal(value, before[name]) for name, value in method.features.state_dict().items())
    assert losses[-1] < 0.8 * losses[0]


# -- scores -----------------------------------------------------------------------------------------------------------


def test_the_score_is_the_loss_of_the_three_deepest_layers():
    method, loader = build("mkd", "value_weight=0.3")
    images = images_of(loader)
    method.training_step(Batch.of(images))
    found = method.score(images).image["discrepancy"]
    pairs = [by_hand(t, s) for t, s in zip(*both(method, images), strict=True)]
    torch.testing.assert_close(found, sum(d + 0.3 * v for d, v in pairs[1:]), rtol=1e-4, atol=1e-6)


def test_the_map_is_the_size_of_the_scores_slope():
    method, loader = build("mkd", *RAW)
    method.training_step(Batch.of(images_of(loader)))
    method, image, step = method.double(), images_of(loader)[:1].double(), 1e-6
    found = method.score(image).maps["discrepancy"]
    assert found.max() > 0
    for y, x in ((5, 7), (16, 16), (0, 31), divmod(int(found.argmax()), 32)):
        moved = image.repeat(2, 1, 1, 1)
        moved[0, 0, y, x] += step
        moved[1, 0, y, x] -= step
        up, down = method.score(moved).image["discrepancy"]
        assert found[0, 0, y, x].item() == pytest.approx(abs(up - down).item() / (2 * step), rel=1e-4, abs=1e-8)


def test_the_map_is_blurred_and_then_opened():
    method, loader = build("mkd", "blur=1.5", "opening=5")
    images = images_of(loader)
    found = method.score(images).maps["discrepancy"]
    method.config.blur, method.config.opening = 0.0, 1
    raw = method.score(images).maps["discrepancy"]
    expected = np.stack([grey_opening(gaussian_filter(image, 1.5), (5, 5)) for image in raw[:, 0].numpy()])
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4, atol=1e-9)
    assert found.abs().max() > 0


@pytest.mark.parametrize("draws", [0, 2])
def test_a_map_is_of_its_image_alone_and_leaves_no_gradient(draws):
    method, loader = build("mkd", f"smooth_draws={draws}")
    method, images = method.double(), images_of(loader)[:3].double()
    together = method.score(images).maps["discrepancy"]
    alone = torch.cat([method.score(image.unsqueeze(0)).maps["discrepancy"] for image in images])
    torch.testing.assert_close(alone, together, rtol=1e-8, atol=1e-12)
    assert not together.requires_grad and not images.requires_grad
    assert all(p.grad is None for p in method.parameters())


def test_a_smooth_map_is_of_the_mean_gradient_of_noisy_copies():
    method, loader = build("mkd", *RAW, "smooth_draws=3", "smooth_noise=0.2")
    images = images_of(loader)[:3]
    found = method.score(images)
    noises = method.noises(images)
    assert noises.shape == (3, 1, 1, 32, 32) and abs(noises.std() - 0.2) < 0.02
    assert not torch.equal(noises[0], noises[1])
    expected = torch.stack([method.score_and_gradient(images + noise)[1] for noise in noises]).mean(0).abs()
    torch.testing.assert_close(found.maps["discrepancy"], expected)
    assert torch.equal(found.maps["discrepancy"], method.score(images).maps["discrepancy"])
    method.config.smooth_draws = 0
    plain = method.score(images)
    assert torch.equal(found.image["discrepancy"], plain.image["discrepancy"])
    assert not torch.allclose(found.maps["discrepancy"], plain.maps["discrepancy"])


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_opening_is_scipys(size):
    image = np.random.RandomState(0).rand(20, 17)
    found = opening(torch.from_numpy(image)[None, None], size)[0, 0].numpy()
    assert np.array_equal(found, grey_opening(image, (size, size)))


def test_a_black_image_has_a_score():
    method, _ = build("mkd")
    found = method.score(torch.zeros(1, 1, 32, 32))
    assert found.image["discrepancy"].isfinite().all() and found.maps["discrepancy"].isfinite().all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image_size=48", "image_size = 48: must be a multiple of 32"),
        ("layers=layer2,layer3,layer4", "M-KD compares layer1,layer2,layer3,layer4"),
        ("opening=4", "opening = 4: must be odd"),
        ("width=0", "width = 0: must be at least 1"),
        ("value_weight=-1", "value_weight = -1.0: must be at least 0"),
        ("smooth_draws=-1", "smooth_draws = -1: must be at least 0"),
    ],
)
def test_what_it_cannot_take_is_refused(override, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("mkd", [override])
