"""f-AnoGAN: networks, turns, the penalty, TensorFlow's RMSProp, and an encoder that leaves the GAN alone."""

import math

import pytest
import torch
from test_methods import build, images_of
from torch import nn

import configs
from dataloader.loader import Batch
from methods import METHODS, fanogan
from methods.fanogan import TensorFlowRMSProp, lipschitz_penalty
from models.fanogan import Critic, standing_statistics, widths
from training.repeat import shared_until


@pytest.fixture(scope="module")
def full():
    """The method at its published size."""
    torch.manual_seed(0)
    return METHODS["fanogan"](configs.build("fanogan"))


def at_stage(name, *overrides):
    method, loader = build("fanogan", *overrides)
    method.start_stage(name)
    return method, images_of(loader)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


# -- networks ---------------------------------------------------------------------------------------------------------


def convolutions(network, side):
    return [
        (m.in_channels, m.out_channels, m.bias is not None)
        for m in network.modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size[0] == side
    ]


def test_networks_are_the_published_ones_at_64_pixels(full):
    generator, critic, encoder = full.generator, full.critic, full.encoder
    steps = [512, 512, 256, 128, 64]
    blocks = list(zip(steps, steps[1:], strict=False))
    expected = [(*pair, biased) for a, b in blocks for pair, biased in (((a, b), False), ((b, b), True))]
    assert convolutions(generator, 3) == [*expected, (64, 1, True)]
    assert convolutions(generator, 1) == [(a, b, True) for a, b in blocks]
    steps = [64, 128, 256, 512, 512]
    blocks = list(zip(steps, steps[1:], strict=False))
    expected = [(*pair, biased) for a, b in blocks for pair, biased in (((a, a), False), ((a, b), True))]
    for network, norm, out in ((critic, nn.GroupNorm, 1), (encoder, nn.BatchNorm2d, 128)):
        assert convolutions(network, 3) == [(1, 64, True), *expected]
        assert convolutions(network, 1) == [(a, b, True) for a, b in blocks]
        norms = [m for m in network.modules() if isinstance(m, (nn.GroupNorm, nn.BatchNorm2d))]
        assert all(type(m) is norm for m in norms)
        assert [len(m.weight) for m in norms] == [c for c in steps[:-1] for _ in range(2)]  # none after the last block
        assert (network.last.in_features, network.last.out_features) == (8192, out)
    assert all((m.num_groups, m.eps) == (1, 1e-5) for m in critic.modules() if isinstance(m, nn.GroupNorm))
    norms = [m for m in full.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 9 + 8 and all((m.eps, m.momentum) == (1e-3, 0.01) for m in norms)
    x = torch.rand(2, 1, 64, 64) * 2 - 1
    z = encoder(x)
    assert z.shape == (2, 128) and z.abs().max() < 1 and generator(z).shape == x.shape
    assert critic.features(x).shape == (2, 512, 4, 4) and critic(x).shape == (2, 1)
    assert critic.features(x).min() < 0 and generator(100 * z).abs().max() <= 1


def test_blocks_add_a_shortcut_of_the_raw_map():
    method, _ = build("fanogan")
    down, up = method.critic.features[1], method.generator.layers[2]
    x, y = torch.randn(2, 4, 8, 8), torch.randn(2, 32, 4, 4)
    pooled = x.unflatten(3, (4, 2)).unflatten(2, (4, 2)).mean((3, 5))
    raw, doubled = x.clone(), y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(down(x), down.shortcut[1](pooled) + down.layers(raw))
    torch.testing.assert_close(up(y), up.shortcut[0](doubled) + up.layers(y))
    assert torch.equal(x, raw)  # what is in place is not in the input
    kinds = [type(m).__name__ for m in down.layers]
    assert kinds == ["GroupNorm", "ReLU", "Conv2d", "GroupNorm", "ReLU", "Conv2d", "AvgPool2d"]
    kinds = [type(m).__name__ for m in up.layers]
    assert kinds == ["BatchNorm2d", "ReLU", "Upsample", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert up.layers[2].mode == "nearest"


def test_weights_start_uniformly_with_heuristic_variances(full):
    kinds = {4: [], 2: []}
    kinds[4] += [m for m in full.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    first = [network.features[0] for network in (full.critic, full.encoder)]
    kinds[4] = [m for m in kinds[4] if m not in first]
    kinds[2] += [m for m in full.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    kinds[2] += [*first, *(m for m in full.modules() if isinstance(m, nn.Linear))]
    assert len(kinds[4]) == 9 + 8 + 8 and len(kinds[2]) == 12 + 2 + 3
    for numerator, layers in kinds.items():
        for layer in layers:
            taps = math.prod(layer.weight.shape[2:])
            fans = (layer.weight.shape[0] + layer.weight.shape[1]) * taps
            bound, most = math.sqrt(3 * numerator / fans), layer.weight.abs().max()
            assert bound * (1 - 20 / layer.weight.numel()) < most <= bound * (1 + 1e-6)
            if layer.weight.numel() > 1000:
                assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert layer.bias is None or not layer.bias.any()


def test_the_critic_judges_every_image_alone_in_training_too():
    critic, x = Critic(16, 4).double().train(), torch.randn(3, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(critic(x)[:1], critic(x[:1]))
    with torch.no_grad():
        norm = next(m for m in critic.modules() if isinstance(m, nn.GroupNorm))
        y = norm(torch.randn(2, 4, 6, 6, dtype=torch.float64) * torch.arange(1, 5).reshape(1, 4, 1, 1))
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    assert y.square().mean((2, 3))[:, 0].max() < y.square().mean((2, 3))[:, 3].min()  # channels together


@pytest.mark.parametrize(
    ("side", "expected"), [(8, [2, 4]), (32, [2, 4, 8, 16]), (64, [2, 4, 8, 16, 16]), (128, [2, 4, 8, 16, 16, 16])]
)
def test_other_sides_have_as_many_blocks_as_lead_to_four(side, expected):
    assert widths(side, 2) == expected


# -- the GAN ----------------------------------------------------------------------------------------------------------


def test_the_penalty_of_a_linear_critic_is_the_squared_distance_of_its_slope_to_one():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(), nn.Linear(9, 1)).double()
    real, fake = torch.rand(2, 4, 1, 3, 3, dtype=torch.float64)
    penalty = lipschitz_penalty(critic, real, fake, torch.rand(4, 1, 1, 1, dtype=torch.float64))
    w = critic[1].weight.detach()
    assert penalty.item() == pytest.approx((w.norm() - 1).square().item(), rel=1e-12)
    penalty.backward()
    torch.testing.assert_close(critic[1].weight.grad, 2 * (w.norm() - 1) * w / w.norm())


def test_the_penalty_is_of_each_image_at_its_own_place_between_real_and_fake():
    alpha = torch.tensor([0.0, 0.25, 1.0]).reshape(3, 1, 1, 1)
    real, fake = torch.rand(2, 3, 1, 2, 2)
    mixed = (1 - alpha) * real + alpha * fake
    found = lipschitz_penalty(lambda x: x.square().sum((1, 2, 3)).unsqueeze(1), real, fake, alpha)
    torch.testing.assert_close(found, (2 * mixed.flatten(1).norm(dim=1) - 1).square().mean())


def test_the_penalty_of_a_flat_critic_has_a_finite_gradient():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    nn.init.zeros_(critic[1].weight)
    lipschitz_penalty(critic, torch.rand(2, 1, 2, 2), torch.rand(2, 1, 2, 2), torch.rand(2, 1, 1, 1)).backward()
    assert critic[1].weight.grad.isfinite().all()


def test_the_gans_losses_are_worked_out_by_hand():
    method, images = at_stage("gan", "learning_rate=0")
    reference, _ = at_stage("gan")
    reference.load_state_dict(method.state_dict())
    torch.manual_seed(1)
    found = method.training_step(Batch.of(images))
    torch.manual_seed(1)
    x, generator, critic = 2 * images - 1, reference.generator.train(), reference.critic
    fake = generator(torch.randn(len(x), 8)).detach()
    alpha = torch.rand(len(x), 1, 1, 1)
    mixed = (x + alpha * (fake - x)).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed)
    expected = {
        "distance": critic(fake).mean() - critic(x).mean(),
        "penalty": 10 * (gradient.square().sum((1, 2, 3)).sqrt() - 1).square().mean(),
        "generator": -critic(generator(torch.randn(len(x), 8))).mean(),  # of other noise
    }
    expected["critic"] = expected["distance"] + expected["penalty"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6, msg=name)


def test_the_generator_steps_every_fifth_time_and_only_then_moves_its_statistics():
    method, images = at_stage("gan", "n_critic=5", "epoch_batches=10")
    encoder = state(method.encoder)
    for step in range(10):
        generator, critic = state(method.generator), state(method.critic)
        found = method.training_step(Batch.of(images, step))
        weights = {name for name, _ in method.critic.named_parameters()}
        assert len(moved(critic, method.critic)) > 0.8 * len(weights)
        still = {name for name in moved(generator, method.generator) if not name.endswith("num_batches_tracked")}
        if step in (4, 9):
            assert still == {name for name in generator if not name.endswith("num_batches_tracked")}
        else:
            assert not still
        assert ("generator" in found) == (step in (4, 9))
    assert not moved(encoder, method.encoder)


def test_every_turn_draws_its_own_noise(monkeypatch):
    method, images = at_stage("gan")
    seen = []
    method.generator.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    torch.manual_seed(0)
    for step in range(2):
        method.training_step(Batch.of(images, step))
    assert len(seen) == 4 and not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    z = fanogan.draw_latents(torch.zeros(200, 1, 8, 8), 128)
    assert z.shape == (200, 128) and abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.03
    alpha = fanogan.draw_mixture(torch.zeros(2000, 1, 8, 8))
    assert alpha.shape == (2000, 1, 1, 1) and 0 <= alpha.min() < 0.01 and 0.99 < alpha.max() < 1


def test_forwards_within_leave_running_statistics_alone_and_compute_as_in_training():
    method, images = at_stage("gan")
    generator, z = method.generator.train(), torch.randn(4, 8)
    expected, before = generator(z), state(generator)
    with standing_statistics(generator):
        assert torch.equal(generator(z), expected)
    assert all(name.endswith("num_batches_tracked") for name in moved(before, generator))
    generator(z)
    assert any(name.endswith("running_mean") for name in moved(before, generator))


# -- the encoder ------------------------------------------------------------------------------------------------------


def test_the_encoders_losses_are_worked_out_by_hand():
    method, images = at_stage("encoder", "feature_weight=0.5")
    reference, _ = at_stage("encoder")
    reference.load_state_dict(method.state_dict())
    found = method.training_step(Batch.of(images))
    x = 2 * images - 1
    x_hat = reference.generator.eval()(reference.encoder.train()(x))
    f, f_hat = (reference.critic.features(each) for each in (x, x_hat))
    expected = {"reconstruction": (x - x_hat).square().mean(), "features": 0.5 * (f - f_hat).square().mean()}
    expected["encoder"] = sum(expected.values())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6, msg=name)


def test_the_encoder_learns_and_leaves_all_of_the_gan_as_it_is():
    method, images = at_stage("encoder")
    for name, p in method.named_parameters():
        assert p.grad is None, name
    generator, critic, encoder = (state(part) for part in (method.generator, method.critic, method.encoder))
    for step in range(3):
        method.training_step(Batch.of(images, step))
    assert not moved(generator, method.generator) and not moved(critic, method.critic)
    assert moved(encoder, method.encoder) == set(encoder)  # its batch norm too
    assert all(p.grad is None for part in (method.generator, method.critic) for p in part.parameters())


def test_rmsprop_is_tensorflows():
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(5, dtype=torch.float64))
    optimizer = TensorFlowRMSProp([p], lr=0.1)
    weights, mean_square = p.detach().numpy().copy(), 1.0
    for step in range(4):
        gradient = torch.linspace(-1, 2, 5, dtype=torch.float64) * 10.0 ** (-step) if step < 3 else torch.zeros(5)
        p.grad = gradient.to(p)
        optimizer.step()
        mean_square = 0.9 * mean_square + 0.1 * gradient.numpy() ** 2
        weights -= 0.1 * gradient.numpy() / (mean_square + 1e-10) ** 0.5
        assert p.detach().numpy() == pytest.approx(weights, rel=1e-12)
    (group,) = optimizer.param_groups
    group["eps"] = 8.0  # inside the root: √(1 + 8) = 3
    q = nn.Parameter(torch.zeros(1))
    optimizer = TensorFlowRMSProp([q], lr=0.3, decay=1.0, eps=8.0)
    q.grad = torch.ones(1)
    optimizer.step()
    assert q.item() == pytest.approx(-0.1)


# -- scores -----------------------------------------------------------------------------------------------------------


def test_the_score_is_the_pixels_error_and_kappa_times_the_features():
    method, images = at_stage("encoder", "feature_weight=3")
    method.training_step(Batch.of(images))
    found = method.score(images)
    x = 2 * images - 1
    with torch.no_grad():
        z = method.encoder(x)
        x_hat = method.generator(z)
        pixels = (x - x_hat).square().flatten(1).mean(1)
        features = (method.critic.features(x) - method.critic.features(x_hat)).square().flatten(1).mean(1)
        latent = (z - method.encoder(x_hat)).square().mean(1)
    torch.testing.assert_close(found.image["izi_f"], (pixels + 3 * features).double(), rtol=1e-5, atol=1e-8)
    for name, value in (("reconstruction", pixels), ("features", features), ("latent", latent)):
        torch.testing.assert_close(found.columns[name], value.double(), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(found.maps["izi_f"], (x - x_hat).abs())
    torch.testing.assert_close(found.reconstruction, (x_hat + 1) / 2)
    assert len(images) > 1 and features.std() > 0


def test_the_score_is_zero_where_the_image_comes_back_and_finite_where_it_is_black():
    method, images = at_stage("encoder")
    assert method.score(torch.zeros_like(images)).image["izi_f"].isfinite().all()
    method.generator.forward = lambda z: 2 * images - 1
    found = method.score(images)
    assert found.image["izi_f"].max() == 0 and found.maps["izi_f"].max() == 0


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image_size=4", "image_size = 4: must be 8, 16"),
        ("image_size=48", "image_size = 48: must be 8, 16"),
        ("epoch_batches=12", "epoch_batches = 12: must be a multiple of n_critic = 5"),
        ("max_batches=3", "max_batches = 3: must be a multiple of n_critic = 5"),
        ("n_critic=0", "n_critic = 0: must be at least 1"),
        ("encoder_epochs=0", "encoder_epochs = 0: must be at least 1"),
        ("feature_weight=-1", "feature_weight = -1.0: must be at least 0"),
        ("main_score=reconstruction", "main_score"),
    ],
)
def test_bad_values_name_the_key(override, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("fanogan", [override])


def test_encoders_of_another_kappa_share_the_gan():
    one, other = (configs.build("fanogan", [f"feature_weight={kappa}"]) for kappa in (1, 0.5))
    assert shared_until(one, other) == "encoder"
    assert shared_until(one, configs.build("fanogan", ["penalty_weight=1"])) is None


def test_budgets_are_in_steps_whatever_the_number_of_images():
    method, loader = build("fanogan", "n_critic=5", "epoch_batches=10", "digits_per_epoch=12")
    for stage in method.stages:
        batches = list(loader.epoch(0, stage).batches())
        assert [len(batch.images) for batch in batches] == [8] * 10
        assert {batch.step % 5 for batch in batches} == set(range(5))
