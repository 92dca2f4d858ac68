"""FAE-SSIM: features, network, loss and both scores as published."""

import numpy as np
import pytest
import torch
from test_initial import assert_uniform, expected_bounds
from test_methods import build, images_of
from torch import nn
from torch.nn.functional import interpolate

import configs
from dataloader.loader import Batch
from methods import METHODS
from methods.fae_ssim import equalised, top_tenth
from models.fae_ssim import FeatureAutoEncoder
from models.ssim import similarity


def convolutions(network, kind):
    return [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0])
        for m in network.modules() if isinstance(m, kind)
    ]  # fmt: skip


def test_the_network_is_the_published_one():
    with torch.device("meta"):
        network = METHODS["fae_ssim"](configs.build("fae_ssim")).network
    assert convolutions(network, nn.Conv2d) == [
        (256, 100, 5, 2, 2), (100, 150, 5, 2, 2), (150, 200, 5, 2, 2), (200, 300, 5, 2, 2), (300, 300, 5, 1, 2),
        (256, 256, 1, 1, 0),
    ]  # fmt: skip
    assert convolutions(network, nn.ConvTranspose2d) == [
        (300, 200, 6, 2, 2), (200, 150, 6, 2, 2), (150, 100, 6, 2, 2), (100, 256, 6, 2, 2),
    ]  # fmt: skip
    kinds = [type(m).__name__ for m in (*network.encoder, *network.decoder)]
    after = ["BatchNorm2d", "LeakyReLU", "Dropout2d"]
    assert kinds == ["Conv2d", *after] * 4 + ["Conv2d"] + ["ConvTranspose2d", *after] * 4 + ["Conv2d"]
    assert all(m.bias is None for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)))
    assert {m.negative_slope for m in network.modules() if isinstance(m, nn.LeakyReLU)} == {0.01}
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout2d)} == {0.1}


def test_maps_keep_their_size_and_weights_start_as_pytorchs():
    network = FeatureAutoEncoder(12, (6, 8), 0.1)
    assert network(torch.rand(2, 12, 16, 16)).shape == (2, 12, 16, 16)
    bounds = expected_bounds(network)
    for name, value in network.state_dict().items():
        if bounds.get(name, 0) > 0:
            assert_uniform(value, bounds[name], name)


def test_features_are_the_stem_and_two_layers_on_the_stems_grid():
    method, loader = build("fae_ssim")
    images = images_of(loader)
    found, layers = method.seen(images), method.features(images)
    assert found.shape == (8, 64 + 64 + 128, 16, 16) and not found.requires_grad
    assert torch.equal(found[:, :64], layers["stem"]) and torch.equal(found[:, 64:128], layers["layer1"])
    up = interpolate(layers["layer2"], (16, 16), mode="bilinear", align_corners=True)
    assert torch.equal(found[:, 128:], up)
    other, _ = build("fae_ssim", "backbone=efficientnet_lite0")  # its stem is twice as large
    assert other.seen(images[:2]).shape == (2, 16 + 24 + 40, 16, 16)


def test_the_loss_is_worked_out_by_hand_and_the_backbone_stays():
    method, loader = build("fae_ssim", "dropout=0")
    images = images_of(loader)
    before = {name: value.clone() for name, value in method.features.state_dict().items()}
    f = method.seen(images)
    f_hat = method.network.train()(f)
    expected = 1 - similarity(f, f_hat, 5, 1.5, padding=2).whole.mean()
    method, _ = build("fae_ssim", "dropout=0")
    found = method.training_step(Batch.of(images))
    assert found.keys() == {"ssim"}
    torch.testing.assert_close(found["ssim"], expected.detach())
    after = method.features.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_is_rebuilt_exactly_scores_zero_and_any_image_has_a_score():
    method, loader = build("fae_ssim")
    images = images_of(loader)
    images[0], images[1] = 0, 1
    found = method.score(images)
    for name in ("ssim", "top_tenth"):
        assert found.image[name].isfinite().all() and found.maps[name].isfinite().all()
    assert found.image["ssim"].min() > 0.01
    method.network.forward = lambda f: f
    found = method.score(images)
    assert max(values.max() for values in (*found.image.values(), *found.maps.values())) < 1e-4


def test_the_score_is_the_mean_before_the_map_is_made_larger():
    method, loader = build("fae_ssim")
    images = images_of(loader)
    found = method.score(images)
    f = method.seen(images)
    small = 1 - similarity(f, method.network(f), 5, 1.5, padding=2).whole.mean(1, keepdim=True)
    assert small.shape == (8, 1, 16, 16)
    torch.testing.assert_close(found.image["ssim"], small.mean((1, 2, 3)).double(), rtol=1e-6, atol=1e-6)
    assert (found.maps["ssim"].mean((1, 2, 3)).double() - found.image["ssim"]).abs().max() > 1e-5
    torch.testing.assert_close(found.maps["ssim"][:, 0, ::63, ::63], small[:, 0, ::15, ::15])  # corners
    by_hand = top_tenth(found.maps["ssim"], images > 0)
    assert torch.equal(found.image["top_tenth"], by_hand.double())


def test_the_top_tenth_is_of_the_foreground_alone():
    pixels = torch.arange(100.0).reshape(1, 1, 10, 10)
    foreground = pixels < 50
    # the 0.9 quantile of 0 … 49 is 44.1
    assert top_tenth(pixels, foreground).tolist() == [47.0]
    assert top_tenth(pixels, pixels < 0).tolist() == [np.mean(range(90, 100))]  # no foreground
    assert top_tenth(torch.full_like(pixels, 0.25), foreground).tolist() == [0.25]


def test_the_releases_preprocessing():
    images = torch.tensor([[0.0, 0.0], [0.2, 1.0]]).reshape(1, 1, 2, 2)
    assert equalised(images).flatten().tolist() == [0.5, 0.5, 0.75, 1.0]
    method, loader = build("fae_ssim", "preprocessing=release")
    seen = []
    method.features.network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    images = images_of(loader)
    images[0] = 0
    found = method.score(images)
    expected = (2 * equalised(images) - 1).expand(8, 3, 64, 64)
    torch.testing.assert_close(seen[0], expected)
    by_hand = top_tenth(found.maps["top_tenth"], equalised(images) > 0.5)
    assert torch.equal(found.image["top_tenth"], by_hand.double()) and by_hand.isfinite().all()


def test_training_takes_ten_thousand_steps():
    (stage,) = configs.build("fae_ssim").stages()
    assert stage.epochs * stage.batches == 10_000
    method, loader = build("fae_ssim", "epoch_steps=7")  # of 24 images
    batches = [batch.indices for batch in loader.epoch(0, method.stages[0]).batches()]
    assert [len(indices) for indices in batches] == [8] * 7


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("image_size=96", "image_size = 96 is not divisible by 64; take 64 or 128"),
        ("channels=", "channels = : at least one number"),
        ("window=4", "window = 4, window_sigma = 1.5: an odd number"),
        ("window_sigma=0", "window_sigma = 0.0: an odd number and more than 0"),
        ("dropout=1", "dropout = 1.0: must lie in"),
        ("batch_size=1", "batch_size = 1: must be at least 2"),
        ("epoch_steps=0", "epoch_steps = 0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("fae_ssim", [setting])
