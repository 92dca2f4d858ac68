"""IGD: networks, losses, centres and scores as published, without the released program's slips."""

import copy

import pytest
import torch
from test_initial import assert_uniform, expected_bounds
from test_methods import build, images_of
from test_published import learning_rates
from torch import nn

import configs
from dataloader.loader import Batch
from methods import METHODS
from models.igd import Critic, Decoder, Descriptor
from models.residual import DownBlock, UpBlock
from models.ssim import multi_scale_similarity

PARTS = ("global", "local")


def in_stage(stage, *overrides):
    method, loader = build("igd", *overrides)
    method.start_stage(stage)
    return method, images_of(loader, next(each for each in method.stages if each.name == stage)), loader


def by_hand_patches(images):
    """Of 32 × 32 images the 16 × 16 patches at every 8 pixels, image by image, row by row."""
    corners = [(i, j) for i in (0, 8, 16) for j in (0, 8, 16)]
    return torch.stack([image[:, i : i + 16, j : j + 16] for image in images for i, j in corners])


# -- networks ---------------------------------------------------------------------------------------------------------


def test_networks_at_256_pixels_and_of_a_patch():
    with torch.device("meta"):
        method = METHODS["igd"](configs.build("igd"))
    ups = {"global": [(512, 512), (512, 256), (256, 128), (128, 64)], "local": [(128, 64)]}
    downs = {"global": [(64, 128), (128, 256), (256, 512), (512, 512)], "local": [(64, 128)]}
    for name, side, deepest in (("global", 256, 512), ("local", 32, 256)):
        part = method.parts[name]
        assert (part.encoder.in_features, part.encoder.out_features) == (512, 128)
        assert part.centre.shape == (128,) and part.sigma.shape == ()
        blocks = [m.shortcut[0] for m in part.decoder.modules() if isinstance(m, UpBlock)]
        assert [(m.in_channels, m.out_channels) for m in blocks] == ups[name]
        blocks = [m.shortcut[1] for m in part.critic.modules() if isinstance(m, DownBlock)]
        assert [(m.in_channels, m.out_channels) for m in blocks] == downs[name]
        assert part.decoder.layers[0].out_features == part.critic.layers[-1].in_features == deepest * 16
        x = part.decoder(torch.empty(2, 128, device="meta"))
        assert x.shape == (2, 1, side, side) and part.critic(x).shape == (2,)
        norms = {type(m) for m in part.critic.modules() if "Norm" in type(m).__name__}
        assert norms == {nn.GroupNorm}  # of all channels: an image's verdict is its own
        assert {m.num_groups for m in part.critic.modules() if isinstance(m, nn.GroupNorm)} == {1}
        assert nn.BatchNorm2d in {type(m) for m in part.decoder.modules()}


@pytest.mark.parametrize("side", [16, 32, 64])
def test_any_power_of_two_can_be_built(side):
    x = Decoder(side, 2, 5)(torch.randn(3, 5))
    assert x.shape == (3, 1, side, side) and x.abs().max() <= 1
    assert Critic(side, 2)(x).shape == (3,)


def test_weights_start_as_pytorchs():
    torch.manual_seed(0)
    part = Descriptor(32, 32, 8, 16)
    bounds = expected_bounds(part)
    for name, value in part.named_parameters():
        if name in bounds and bounds[name] > 0:
            assert_uniform(value, bounds[name], name)
        else:
            assert value.unique().tolist() == [float(name.endswith("weight"))], name
    method, _ = build("igd")
    one, other = (method.parts[name].encoder.weight for name in PARTS)
    assert not torch.equal(one, other)


def test_the_gaussian_is_zero_at_the_centre_and_grows_to_one():
    part = Descriptor(4, 16, 1, 2)
    part.centre.copy_(torch.tensor([1.0, -1.0]))
    part.sigma.fill_(5.0)
    z = part.centre + torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [50.0, 0.0]])
    found = part.strangeness(z)
    torch.testing.assert_close(found, 1 - torch.exp(-torch.tensor([0.0, 1.0, 4.0, 500.0])))
    assert found.diff().min() > 0 and found[0] == 0 and found[2] < 1


# -- a step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", PARTS)
def test_losses_are_worked_out_by_hand(stage):
    method, images, _ = in_stage(stage)
    part = method.parts[stage]
    part.centre.fill_(0.1)
    part.sigma.fill_(9.0)
    part = copy.deepcopy(part).train()
    torch.manual_seed(3)
    found = method.training_step(Batch.of(images))

    torch.manual_seed(3)
    if stage == "local":
        images = by_hand_patches(images)
    n = len(images)
    assert n == {"global": 8, "local": 6 * 9}[stage]
    z = part.encoder(method.features(images)["layer4"].mean((2, 3)))
    alpha = torch.rand(n, 1) / 2
    mixed = torch.stack([alpha[i] * z[i] + (1 - alpha[i]) * z[n - 1 - i] for i in range(n)])
    x_hat, x_mixed = part.decoder(torch.cat([z, mixed])).split(n)
    x = 2 * images - 1
    rebuilt = (x_hat + 1) / 2
    expected = {
        "reconstruction": 0.85 * (1 - multi_scale_similarity(rebuilt, images).mean())
        + 0.15 * (rebuilt - images).abs().mean(),
        "gaussian": (1 - torch.exp(-(z - 0.1).square().sum(1) / 9)).mean(),
        "mixture": 0.1 * part.critic(x_mixed).square().mean(),
        # one share for each image: a difference of (n,) and (n, 1) would be (n, n)
        "critic_mixed": sum((part.critic(x_mixed)[i] - alpha[i, 0]) ** 2 for i in range(n)) / n,
        "critic_plain": part.critic(0.2 * x + 0.8 * x_hat).square().mean(),
    }
    expected["autoencoder"] = expected["reconstruction"] + expected["gaussian"] + expected["mixture"]
    expected["critic"] = expected["critic_mixed"] + expected["critic_plain"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-5, msg=name)


def test_every_image_has_another_to_be_mixed_with():
    method, loader = build("igd", "digits_per_epoch=25")
    sizes = [[len(batch.indices) for batch in loader.epoch(0, stage).batches()] for stage in method.stages]
    assert sizes == [[8, 8, 8], [6, 6, 6, 6, 1]]  # a single image's patches have each other


@pytest.mark.parametrize("stage", PARTS)
def test_each_players_step_leaves_all_others_alone(stage, monkeypatch):
    method, images, _ = in_stage(stage)
    for skipped, moving in (("autoencoder", {"critic"}), ("critic", {"encoder", "decoder"})):
        before = {name: p.clone() for name, p in method.named_parameters()}
        with monkeypatch.context() as patch:
            patch.setattr(method.optimizers[skipped], "step", lambda: None)
            method.training_step(Batch.of(images))
        moved = {name for name, p in method.named_parameters() if not torch.equal(p, before[name])}
        assert {tuple(name.split(".")[:3]) for name in moved} == {("parts", stage, network) for network in moving}


def test_an_error_is_absolute_and_of_images_in_zero_to_one():
    method, _, _ = in_stage("global", "ssim_weight=0")
    images = torch.full((2, 1, 32, 32), 0.5)
    x_hat = torch.full((2, 1, 32, 32), 0.2)
    x_hat[:, :, ::2] = -0.2  # as often too dark as too bright
    torch.testing.assert_close(method.reconstruction_error(x_hat, images), torch.full((2,), 0.1))


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_the_optimizers_and_the_rate_of_every_epoch():
    with torch.device("meta"):
        method = METHODS["igd"](configs.build("igd"))
    expected = [1e-4 * (1 - epoch / 256) ** 0.9 for epoch in range(256)]
    for stage in PARTS:
        method.start_stage(stage)
        part = method.parts[stage]
        for player, networks in (("autoencoder", (part.encoder, part.decoder)), ("critic", (part.critic,))):
            (group,) = method.optimizers[player].param_groups
            assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.0, 0.9), 1e-6)
            assert len(group["params"]) == sum(len(list(network.parameters())) for network in networks)
        assert type(method.optimizers["critic"]) is torch.optim.Adam
        found = learning_rates(method, 256)
        assert found == {"autoencoder": pytest.approx(expected), "critic": pytest.approx(expected)}


# -- centre and sigma -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", PARTS)
@pytest.mark.parametrize("scale", [4.0, 0.01])  # with the second the mean code is the bias
def test_the_centre_is_the_mean_kept_from_zero_and_sigma_is_taken_around_it(stage, scale):
    method, _, loader = in_stage(stage, "batch_size=5")
    part = method.parts[stage]
    with torch.no_grad():
        part.encoder.weight.mul_(scale)
        part.encoder.bias.copy_(torch.tensor([3.0, -3.0, 0.05, -0.05, 0, 0, 1, 1]))
    part.centre.fill_(7.0)
    method.refresh(loader)

    images = torch.cat(list(loader.unaugmented()))
    codes = []
    for batch in images.split(5):
        seen = by_hand_patches(batch) if stage == "local" else batch
        codes.append(part.encoder(method.features(seen)["layer4"].mean((2, 3))).detach())
    mean = torch.cat(codes).mean(0)
    centre = torch.tensor([m if abs(m) >= 0.1 else 0.1 * (1 if m >= 0 else -1) for m in mean.tolist()])
    sigma = torch.stack([(z - centre).square().sum(1).mean().clamp(min=1) for z in codes]).mean()
    torch.testing.assert_close(part.centre, centre, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(part.sigma, sigma, rtol=1e-4, atol=1e-5)
    assert part.centre.abs().min() >= 0.1 - 1e-6 and part.centre[1] < 0
    other = method.parts["local" if stage == "global" else "global"]
    assert other.centre.abs().max() == 0 and other.sigma == 1


def test_a_batch_closer_than_one_counts_as_one():
    method, _, loader = in_stage("global")
    with torch.no_grad():
        method.parts["global"].encoder.weight.zero_()
        method.parts["global"].encoder.bias.fill_(0.5)
    method.refresh(loader)
    assert method.parts["global"].sigma == 1 and torch.all(method.parts["global"].centre == 0.5)


def test_they_are_taken_anew_every_ten_epochs_of_each_part(monkeypatch):
    method, _, loader = in_stage("global", "epochs=13", "local_epochs=12")
    taken = []
    monkeypatch.setattr(method, "refresh", lambda loader: taken.append((method.stage, epoch)))
    for epoch in range(25):
        if epoch == 13:
            method.start_stage("local")
        method.start_epoch(loader, epoch)
    assert taken == [("global", 0), ("global", 10), ("local", 13), ("local", 23)]


def test_the_decoder_is_trained_in_training_mode_after_a_centre_was_taken():
    method, images, loader = in_stage("global")
    method.score(images)
    method.start_epoch(loader, 0)
    before = method.state_dict()
    norms = [name for name in before if name.startswith("parts.global.decoder") and name.endswith("running_mean")]
    before = {name: before[name].clone() for name in norms}
    method.training_step(Batch.of(images))
    assert norms and not any(torch.equal(method.state_dict()[name], before[name]) for name in norms)


# -- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_worked_out_by_hand(monkeypatch):
    monkeypatch.setattr("methods.igd.PATCHES_AT_ONCE", 10)
    method, images, loader = in_stage("global")
    images = images[:3]
    for name in PARTS:
        method.start_stage(name)
        method.refresh(loader)
    found = method.score(images)
    judged = {}
    for name, shown in (("global", images), ("local", by_hand_patches(images))):
        part = method.parts[name]
        z = part.encoder(method.features(shown)["layer4"].mean((2, 3)))
        x_hat = (part.decoder(z) + 1) / 2
        error = 0.85 * (1 - multi_scale_similarity(x_hat, shown)) + 0.15 * (x_hat - shown).abs().mean((1, 2, 3))
        judged[name] = error, 1 - torch.exp(-(z - part.centre).square().sum(1) / part.sigma), x_hat
    error, gaussian, x_hat = judged["global"]
    patch = (0.9 * judged["local"][0] + 0.1 * judged["local"][1]).reshape(3, 9)
    expected = {
        "detection": 0.5 * patch.max(1).values + 0.5 * (0.1 * error + 0.9 * gaussian),
        "global": 0.5 * error + 0.5 * gaussian,
        "local": patch.max(1).values,
    }
    assert found.image.keys() == expected.keys() and next(iter(found.image)) == "detection"
    for name, values in expected.items():
        torch.testing.assert_close(found.image[name], values.detach().double(), rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(found.reconstruction, x_hat.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.maps["global"], (x_hat - images).abs().detach(), rtol=1e-4, atol=1e-5)

    # a pixel's is the mean of its patches: rows and columns 0–7 are in the first alone, 8–15 in two of three, …
    for i, j in ((0, 0), (7, 12), (15, 16), (31, 31), (20, 3)):
        over = [k for k, (a, b) in enumerate((a, b) for a in (0, 8, 16) for b in (0, 8, 16))
                if a <= i < a + 16 and b <= j < b + 16]  # fmt: skip
        expected = patch[:, over].mean(1).detach()
        torch.testing.assert_close(found.maps["detection"][:, 0, i, j], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.maps["local"], found.maps["detection"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["image_size=48"], "image_size = 48: must be 16, 32, 64"),
        (["local_side=8"], "local_side = 8: must be 16, 32, 64"),
        (["image_size=16"], "local_side = 32, local_stride = 16: such patches do not cover images of 16 pixels"),
        (["local_stride=24"], "local_stride = 24: such patches do not cover images of 256 pixels evenly"),
        (["local_stride=64", "local_side=64", "image_size=128", "local_stride=128"], "do not cover"),
        (["epochs=300"], "poly_epochs = 256: the rate is 0"),
        (["layers=layer3,layer4"], "layers = layer3,layer4: one layer"),
        (["ssim_weight=1.5"], "ssim_weight = 1.5: must lie in"),
        (["lr_schedule=cosine"], "lr_schedule = 'cosine': must be one of poly"),
        (["batch_size=1"], "batch_size = 1: must be at least 2"),
        (["refresh_every=0"], "refresh_every = 0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("igd", settings)
