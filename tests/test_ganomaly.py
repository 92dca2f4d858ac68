"""GANomaly: networks, losses and turns as published."""

import pytest
import torch
from test_methods import build, images_of
from torch import nn

import configs
from dataloader.loader import Batch
from methods import METHODS
from models.ganomaly import Encoder


def changed(before, network):
    return [name for name, p in network.named_parameters() if not torch.equal(p, before[name])]


def test_networks_are_dcgans_at_64_pixels():
    method = METHODS["ganomaly"](configs.build("ganomaly"))
    encoder, decoder = method.generator.encoder, method.generator.decoder
    convs = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride[0], m.padding[0]) for m in convs] == [
        (1, 64, 2, 1), (64, 128, 2, 1), (128, 256, 2, 1), (256, 512, 2, 1), (512, 100, 1, 0),
    ]  # fmt: skip
    ups = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels, m.stride[0]) for m in ups] == [
        (100, 512, 1), (512, 256, 2), (256, 128, 2), (128, 64, 2), (64, 1, 2),
    ]  # fmt: skip
    assert not any(m.bias is not None for m in [*convs, *ups])
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == [128, 256, 512]  # none after the first convolution
    x = torch.rand(2, 1, 64, 64)
    out = method.generator(x)
    assert out.x_hat.shape == x.shape and out.z.shape == out.z_hat.shape == (2, 100, 1, 1)
    logits, f = method.discriminator(x)
    assert logits.shape == (2, 1, 1, 1) and f.shape == (2, 512, 4, 4)
    for name, module in method.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            bound = 0.1 / module.weight.numel() ** 0.5  # five standard errors
            assert abs(module.weight.std() - 0.02) < bound and abs(module.weight.mean()) < bound, name
    scales = torch.cat([m.weight for m in method.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(scales.mean() - 1) < 0.002 and abs(scales.std() - 0.02) < 0.002


def test_losses_are_worked_out_by_hand():
    method, loader = build("ganomaly")
    images = images_of(loader)
    reference, _ = build("ganomaly")
    reference.load_state_dict(method.state_dict())
    found = method.training_step(Batch.of(images))
    reference.train()
    x = 2 * images - 1
    z, _ = reference.generator.encoder(x)
    x_hat = reference.generator.decoder(z)
    z_hat, _ = reference.generator.second_encoder(x_hat)
    (real, f), (fake, f_hat) = reference.discriminator(x), reference.discriminator(x_hat)
    expected = {
        "features": (f - f_hat).square().mean(),
        "reconstruction": 50 * (x - x_hat).abs().mean(),
        "latent": (z - z_hat).square().mean(),
        "discriminator": -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 2,
    }
    expected["generator"] = expected["features"] + expected["reconstruction"] + expected["latent"]
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6, msg=name)


def test_each_players_step_leaves_the_other_alone(monkeypatch):
    method, loader = build("ganomaly")
    for skipped, moving in (("generator", "discriminator"), ("discriminator", "generator")):
        before = {name: p.clone() for name, p in method.named_parameters()}
        with monkeypatch.context() as patch:
            patch.setattr(method.optimizers[skipped], "step", lambda: None)
            method.training_step(Batch.of(images_of(loader)))
        assert {name.split(".")[0] for name in changed(before, method)} == {moving}


def test_batch_norm_moves_once_in_the_generator_and_four_times_in_the_discriminator():
    method, loader = build("ganomaly")
    method.training_step(Batch.of(images_of(loader)))
    counts = {name.split(".")[0]: int(b) for name, b in method.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {"generator": 1, "discriminator": 4}


@pytest.mark.parametrize(("threshold", "times"), [(0.0, 0), (1e-5, 0), (1e9, 3)])
def test_a_discriminator_that_has_won_is_drawn_anew(threshold, times):
    method, loader = build("ganomaly", f"redraw_below={threshold}")
    for step in range(3):
        before = {name: p.clone() for name, p in method.discriminator.named_parameters()}
        method.training_step(Batch.of(images_of(loader), step))
    assert method.redrawn == times
    if times:
        modules = dict(method.discriminator.named_modules())
        convs = [name for name, module in modules.items() if isinstance(module, nn.Conv2d)]
        assert all((modules[name].weight - before[f"{name}.weight"]).std() > 0.02 for name in convs)
        norm = next(module for module in modules.values() if isinstance(module, nn.BatchNorm2d))
        assert torch.all(norm.bias == 0) and norm.running_mean.abs().max() > 0
        moments = method.optimizers["discriminator"].state[norm.bias]
        assert moments["step"] == 3 and moments["exp_avg"].abs().max() > 0


def test_a_loss_that_is_nan_is_no_win():
    method, _ = build("ganomaly", "redraw_below=1e9")
    method.redraw_if_it_won(torch.tensor(torch.nan))
    assert method.redrawn == 0


def test_the_score_is_zero_where_the_latents_agree():
    method, loader = build("ganomaly")
    method.generator.second_encoder.load_state_dict(method.generator.encoder.state_dict())
    images = images_of(loader)
    method.generator.decoder.forward = lambda z: 2 * images - 1
    found = method.score(images)
    assert found.image["latent"].max() == 0 and found.maps["latent"].max() == 0
    torch.testing.assert_close(found.reconstruction, images)


@pytest.mark.parametrize("side", [8, 48])
def test_sides_that_are_no_power_of_two_are_refused(side):
    with pytest.raises(configs.ConfigError, match=f"image_size = {side}: must be 16, 32"):
        configs.build("ganomaly", [f"image_size={side}"])
    assert Encoder(32, 4, 2)(torch.rand(1, 1, 32, 32))[1].shape == (1, 16, 4, 4)
