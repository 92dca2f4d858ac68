"""VAE: network, losses, samples and scores as published."""

import json

import pytest
import torch
from test_methods import build, images_of
from tiny import command, train
from torch import nn
from torch.distributions import Normal, kl_divergence

import configs
from dataloader.images import DataError
from dataloader.loader import Batch
from methods import METHODS
from methods.vae import divergence
from models.vae import VariationalAutoEncoder


def layers(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def moved(name, *overrides):
    """A method whose batch norm has running statistics that do something, in float64, and images."""
    method, loader = build(name, *overrides)
    for step in range(3):
        method.training_step(Batch.of(images_of(loader), step))
    return method.double(), images_of(loader).double()


# -- the network ------------------------------------------------------------------------------------------------------


def test_the_network_is_the_published_one_at_64_pixels():
    network = METHODS["vae"](configs.build("vae")).network
    convs, ups = layers(network, nn.Conv2d), layers(network, nn.ConvTranspose2d)
    assert [(c.in_channels, c.out_channels) for c in convs] == [(1, 16), (16, 32), (32, 64), (64, 64)]
    assert [(c.in_channels, c.out_channels) for c in ups] == [(64, 64), (64, 32), (32, 16), (16, 1)]
    for conv in (*convs, *ups):
        assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((4, 4), (2, 2), (1, 1), None)
    dense = layers(network, nn.Linear)
    assert [(d.in_features, d.out_features) for d in dense] == [(1024, 1024), (1024, 32), (16, 1024), (1024, 1024)]
    assert all(d.bias is not None for d in dense)
    kinds = [[type(module) for module in part] for part in (network.to_latent, network.from_latent)]
    assert kinds == [[nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]] * 2
    assert [norm.num_features for norm in layers(network, nn.BatchNorm2d)] == [16, 32, 64, 64, 64, 32, 16]
    assert type(network.decoder[-1]) is nn.ConvTranspose2d  # no activation at its end
    out = network(torch.rand(2, 1, 64, 64))
    assert out.x_hat.shape == (2, 1, 64, 64) and out.mu.shape == out.log_var.shape == (2, 16)


@pytest.mark.parametrize("training", [True, False])
def test_a_sample_is_decoded_in_training_and_the_mean_in_evaluation(training):
    torch.manual_seed(0)
    network = VariationalAutoEncoder(32, 0.25, 3, 8).double().train(training)
    with torch.no_grad():
        network.to_latent[-1].bias[3:] = torch.tensor([1.0, -2.0, 0.5])  # deviations that differ from variances
    x = torch.rand(4, 1, 32, 32, dtype=torch.float64)
    torch.manual_seed(5)
    out = network(x)
    code = network.encode(x)
    torch.testing.assert_close((out.mu, out.log_var), (code[:, :3], code[:, 3:]))
    torch.manual_seed(5)
    noise = torch.randn(4, 3, dtype=torch.float64) if training else 0
    torch.testing.assert_close(out.x_hat, network.decode(code[:, :3] + torch.exp(code[:, 3:]).sqrt() * noise))


# -- the loss ---------------------------------------------------------------------------------------------------------


def test_the_divergence_is_the_mean_over_the_latent_and_zero_for_a_standard_gaussian_alone():
    rng = torch.Generator().manual_seed(0)
    mu, log_var = torch.randn(2, 5, 16, generator=rng, dtype=torch.float64)
    expected = kl_divergence(Normal(mu, log_var.exp().sqrt()), Normal(0.0, 1.0)).mean(1)
    torch.testing.assert_close(divergence(mu, log_var), expected)
    zero = torch.zeros(1, 16)
    assert divergence(zero, zero).item() == 0
    assert divergence(zero + 0.1, zero).item() > 0 and divergence(zero, zero + 0.1).item() > 0


def test_losses_are_worked_out_by_hand():
    method, loader = build("vae", "kl_weight=0.3")
    reference, _ = build("vae")
    reference.load_state_dict(method.state_dict())
    images = images_of(loader)
    torch.manual_seed(7)
    found = method.training_step(Batch.of(images))
    torch.manual_seed(7)
    out = reference.network.train()(2 * images - 1)
    variance = out.log_var.exp()
    expected = {
        "reconstruction": (out.x_hat - (2 * images - 1)).square().mean(),
        "divergence": 0.3 * 0.5 * (out.mu.square() + variance - 1 - variance.log()).mean(),
    }
    expected["loss"] = expected["reconstruction"] + expected["divergence"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6, msg=name)


# -- scores -----------------------------------------------------------------------------------------------------------


def test_the_score_is_the_error_of_the_decoded_mean_and_repeats_to_the_bit():
    method, images = moved("vae")
    torch.manual_seed(1)
    first = method.score(images)
    torch.manual_seed(2)
    again = method.score(images)
    assert torch.equal(first.image["reconstruction"], again.image["reconstruction"])
    x = 2 * images - 1
    x_hat = method.network.decode(method.network.encode(x)[:, :16]).detach()
    torch.testing.assert_close(first.image["reconstruction"], (x - x_hat).square().mean((1, 2, 3)))
    torch.testing.assert_close(first.maps["reconstruction"], (x - x_hat).square())
    torch.testing.assert_close(first.reconstruction, ((x_hat + 1) / 2).clamp(0, 1))
    assert set(first.image) == {"reconstruction"}


def test_gradient_scores_are_those_of_each_image_by_finite_differences():
    method, images = moved("vae", "gradient_scores=true", "kl_weight=0.3")
    images = images[:3]
    scores = method.score(images)
    assert method.score_names == tuple(scores.image) == ("reconstruction", "elbo_gradient", "kl_gradient")

    def terms(x):
        code = method.network.encode(x)
        x_hat = method.network.decode(code[:, :16])
        apart = kl_divergence(Normal(code[:, :16], (code[:, 16:] / 2).exp()), Normal(0.0, 1.0)).mean(1)
        return ((x_hat - x).square().mean((1, 2, 3)) + 0.3 * apart).detach(), apart.detach()

    step = 1e-6
    for row, column in ((10, 20), (31, 7), (24, 24)):
        x = 2 * images - 1
        x[..., row, column] += step
        above = terms(x)
        x[..., row, column] -= 2 * step
        below = terms(x)
        of_loss, of_divergence = ((a - b).abs() / (2 * step) for a, b in zip(above, below, strict=True))
        at = (slice(None), 0, row, column)
        torch.testing.assert_close(scores.maps["elbo_gradient"][at], of_loss, rtol=1e-3, atol=1e-8)
        expected = of_divergence * scores.maps["reconstruction"][at]
        torch.testing.assert_close(scores.maps["kl_gradient"][at], expected, rtol=1e-3, atol=1e-8)
    for name, pixels in scores.maps.items():
        torch.testing.assert_close(scores.image[name], pixels.mean((1, 2, 3)))
        alone = torch.cat([method.score(image[None]).image[name] for image in images])
        torch.testing.assert_close(alone, scores.image[name])
    assert all(p.requires_grad for p in method.parameters()) and not scores.maps["elbo_gradient"].requires_grad


def test_gradient_scores_leave_the_parameters_gradients_alone():
    method, images = moved("vae", "gradient_scores=true")
    for parameter in method.parameters():
        parameter.grad = None
    method.score(images)
    assert all(parameter.grad is None for parameter in method.parameters())


def test_a_gradient_as_the_main_score_must_be_asked_for():
    with pytest.raises(configs.ConfigError, match="main_score = kl_gradient: needs gradient_scores = true"):
        configs.build("vae", ["main_score=kl_gradient"])


# -- batches and runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "sizes"), [(24, [8, 8, 8]), (25, [8, 8, 8]), (26, [8, 8, 8, 2]), (2, [2])])
def test_a_last_batch_of_one_image_is_left_out_and_a_larger_one_is_not(images, sizes):
    _, loader = build("vae", f"digits_per_epoch={images}")
    assert [len(batch.images) for batch in loader.epoch(0).batches()] == sizes


def test_a_single_training_image_is_an_error():
    _, loader = build("vae", "digits_per_epoch=1")
    with pytest.raises(DataError, match="the stage train trains on 1 images, fewer than its batch of 2. Add images."):
        loader.epoch(0)


def test_a_run_with_an_image_left_over_and_a_gradient_as_its_score(workspace, capsys):
    overrides = ["digits_per_epoch=17", "gradient_scores=true", "main_score=elbo_gradient", "epochs=1"]
    assert train("a", method="vae", overrides=overrides) == 0
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    results = json.loads((workspace / "checkpoints/a/results.json").read_text())
    assert results["main_score"] == "elbo_gradient"
    assert set(results["scores"]) == {"reconstruction", "elbo_gradient", "kl_gradient"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("kl_weight=-1", "kl_weight = -1.0: must be at least 0"),
        ("batch_size=1", "batch_size = 1: must be at least 2"),
        ("hidden_size=0", "hidden_size = 0: must be at least 1"),
        ("image_size=60", "image_size = 60 is not divisible by 16; take 48 or 64"),
    ],
)
def test_bad_values_name_the_key(override, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("vae", [override])
