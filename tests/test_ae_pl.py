"""AE-PL: what image and reconstruction are compared by, the channels' statistics, and the score."""

import pytest
import torch
from test_initial import assert_uniform, expected_bounds
from test_methods import build, images_of
from torch import nn

import configs
from dataloader.loader import Batch
from methods import METHODS
from methods.maps import upsample
from models.autoencoder import AutoEncoder


def ready(*overrides):
    """With the statistics of its training images."""
    method, loader = build("ae_pl", *overrides)
    method.start_epoch(loader, 0)
    return method, loader


def test_networks_are_the_published_ones_at_64_pixels():
    method = METHODS["ae_pl"](configs.build("ae_pl"))
    network = method.network
    assert type(network) is AutoEncoder
    convs = [m.out_channels for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    dense = [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)]
    assert convs == [16, 32, 64, 64, 64, 32, 16, 1]
    assert dense == [(1024, 1024), (1024, 16), (16, 1024), (1024, 1024)]
    assert method.feature_mean.shape == method.feature_variance.shape == (512,)
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert method.seen(x).shape == (1, 512, 8, 8)  # relu4_2, an eighth of the side
        assert method.differences(x, 2 * x - 1).shape == (1, 1, 8, 8)


def test_the_auto_encoder_starts_as_pytorchs_layers_do():
    network = build("ae_pl")[0].network
    bounds = expected_bounds(network)
    for name, values in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if bounds[name] > 0:
            assert_uniform(values, bounds[name], name)
        else:
            assert torch.all(values == -bounds[name]), name


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_the_relative_difference_is_worked_out_by_hand(monkeypatch):
    method, _ = build("ae_pl")
    rng = torch.Generator().manual_seed(0)
    images, x_hat = torch.rand(2, 3, 1, 48, 48, generator=rng, dtype=torch.float64)
    x_hat = 4 * x_hat - 2  # beyond what an image can be
    f = {1: torch.rand(3, 64, 12, 12, generator=rng), 0: torch.rand(3, 64, 12, 12, generator=rng)}
    seen = []

    def features(shown):
        seen.append(shown)
        return f[len(seen) % 2]

    monkeypatch.setattr(method, "seen", features)
    mean, variance = torch.rand(2, 64, generator=rng) + 0.5
    method.feature_mean.copy_(mean)
    method.feature_variance.copy_(variance)
    found = method.differences(images, x_hat)
    torch.testing.assert_close(seen, [images, (x_hat + 1) / 2])  # in [0, 1], not clipped
    for i in range(3):
        whole, rebuilt = (
            torch.stack([(f[k][i, c] - mean[c]) / variance[c] for c in range(64)]) for k in (1, 0)
        )  # (64, 12, 12)
        expected = (whole - rebuilt).abs()
        torch.testing.assert_close(found[i, 0], expected.mean(0) / whole.abs().mean())
        torch.testing.assert_close(found[i].mean(), expected.mean() / whole.abs().mean())


def test_what_is_rebuilt_perfectly_costs_nothing():
    method, loader = ready()
    images = images_of(loader)
    assert method.differences(images, 2 * images - 1).max() < 1e-5  # rounding of (2x − 1 + 1) / 2
    method.rebuilt = lambda x: x
    assert method.score(images).image["perceptual"].max() < 1e-5


def test_the_step_minimises_the_mean_difference_in_training_mode():
    method, loader = ready()
    reference, _ = build("ae_pl")
    reference.load_state_dict(method.state_dict())
    images = images_of(loader)
    found = method.training_step(Batch.of(images))
    x_hat = reference.train().network(2 * images - 1).x_hat
    assert found.keys() == {"perceptual"}
    torch.testing.assert_close(found["perceptual"], reference.differences(images, x_hat).mean().detach())


def test_the_gradient_reaches_the_reconstruction_and_nothing_frozen():
    method, loader = ready()
    images = images_of(loader)
    x_hat = (4 * images - 2).requires_grad_()  # half of it beyond [−1, 1]
    before = {name: value.clone() for name, value in method.features.state_dict().items()}
    method.differences(images, x_hat).mean().backward()
    beyond = x_hat.detach().abs() > 1
    assert x_hat.grad[beyond].abs().max() > 0 and x_hat.grad[~beyond].abs().max() > 0
    method.training_step(Batch.of(images))
    assert all(parameter.grad is None for parameter in method.features.parameters())
    assert all(torch.equal(value, before[name]) for name, value in method.features.state_dict().items())


# -- the channels' statistics -----------------------------------------------------------------------------------------


def test_statistics_are_of_all_training_images_and_places():
    method, loader = ready("digits_per_epoch=13", "variance_floor=1e-9")  # a batch of 8 and one of 5
    f = torch.cat([method.seen(images) for images in loader.unaugmented()]).double()
    assert f.shape == (13, 64, 12, 12)
    f = f.movedim(1, 0).flatten(1).numpy()
    torch.testing.assert_close(method.feature_mean.double().numpy(), f.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.feature_variance.double().numpy(), f.var(1), rtol=1e-4, atol=1e-6)


def test_a_channel_that_hardly_varies_counts_as_if_it_varied_a_little():
    method, loader = build("ae_pl", "variance_floor=0.1")
    original = method.seen

    def dimmed(images):
        f = original(images)
        return torch.cat([torch.full_like(f[:, :1], 3.0), f[:, 1:]], dim=1)

    method.seen = dimmed
    method.start_epoch(loader, 0)
    f = torch.cat([dimmed(images) for images in loader.unaugmented()])
    variance = f.double().var((0, 2, 3), correction=0)
    expected = variance.clamp(min=0.1 * variance.mean()).float()
    assert variance[0] < 1e-9 and (expected > 1.5 * variance).sum() > 1
    torch.testing.assert_close(method.feature_variance, expected, rtol=1e-4, atol=1e-7)
    assert method.score(images_of(loader)).image["perceptual"].isfinite().all()


def test_statistics_are_taken_once_and_stay_with_the_weights():
    method, loader = build("ae_pl")
    method.start_epoch(loader, 1)  # a run that goes on has them in last.pt
    assert torch.all(method.feature_mean == 0) and torch.all(method.feature_variance == 1)
    assert {"feature_mean", "feature_variance"} <= set(method.without_frozen(method.state_dict()))


# -- scores -----------------------------------------------------------------------------------------------------------


def test_the_score_is_the_loss_and_the_map_its_places():
    method, loader = ready()
    images = images_of(loader)
    for step in range(3):
        method.training_step(Batch.of(images, step))
    found = method.score(images)
    x_hat = method.network(2 * images - 1).x_hat.detach()
    grid = method.differences(images, x_hat)
    torch.testing.assert_close(found.image["perceptual"], grid.mean((1, 2, 3)).double())
    torch.testing.assert_close(found.maps["perceptual"], upsample(grid, 48))
    torch.testing.assert_close(found.reconstruction, ((x_hat + 1) / 2).clamp(0, 1))


def test_an_empty_image_has_a_finite_score():
    method, _ = ready()
    assert method.score(torch.zeros(1, 1, 48, 48)).image["perceptual"].isfinite().all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("layers=layer3,relu4_2", "some of"),
        ("layers=layer2,relu4_2", "layers = layer2,relu4_2: AE-PL compares the features of one layer"),
        ("backbone=efficientnet_lite0", "layers = relu4_2: some of stem, layer1"),
        ("variance_floor=0", "variance_floor = 0.0: must lie in"),
        ("batch_size=1", "batch_size = 1: must be at least 2"),
    ],
)
def test_bad_values_name_the_key(override, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("ae_pl", [override])


def test_other_backbones_give_a_layer_too():
    assert configs.build("ae_pl", ["backbone=efficientnet_lite0", "layers=layer2"]).layers == ("layer2",)
