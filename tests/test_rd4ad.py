"""RD4AD: networks, loss and map as published."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from test_initial import assert_uniform
from test_methods import build, images_of, train_a_bit
from torch import nn

import configs
from dataloader.loader import Batch
from methods import METHODS
from models.rd4ad import Bottleneck, Decoder

RESNET = ["backbone=resnet18"]


def convolutions(network):
    """(channels in, out, side, stride) of all convolutions; a transposed one's side is negative."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    layers = [m for m in network.modules() if isinstance(m, kinds)]
    assert all(m.bias is None for m in layers)
    assert all(m.padding[0] == (m.kernel_size[0] // 2 if isinstance(m, nn.Conv2d) else 0) for m in layers)
    sign = {nn.Conv2d: 1, nn.ConvTranspose2d: -1}
    return [(m.in_channels, m.out_channels, sign[type(m)] * m.kernel_size[0], m.stride[0]) for m in layers]


def faked(method, teacher, restored):
    """Layers (B, C, h, w) in the place of the teacher's, and in that of what is restored."""
    method.features.forward = lambda images: dict(zip(method.config.layers, teacher, strict=True))
    method.bottleneck.forward = lambda *layers: None
    method.decoder.forward = lambda embedding: restored


def random_layers(seed=0, count=2, signed=False):
    rng = torch.Generator().manual_seed(seed)
    shapes = [(count, 6, 16, 16), (count, 8, 8, 8), (count, 10, 4, 4)]
    return [torch.randn(shape, generator=rng) if signed else torch.rand(shape, generator=rng) for shape in shapes]


# -- networks ---------------------------------------------------------------------------------------------------------


def test_networks_on_wide_resnet_50_are_the_published_ones():
    with torch.device("meta"):
        method = METHODS["rd4ad"](configs.build("rd4ad"))
        f = [torch.rand(2, 256, 64, 64), torch.rand(2, 512, 32, 32), torch.rand(2, 1024, 16, 16)]
        embedding = method.bottleneck(*f)
        restored = method.decoder(embedding)
    assert embedding.shape == (2, 2048, 8, 8)
    assert [r.shape for r in restored] == [each.shape for each in f]
    keep = [(2048, 1024, 1, 1), (1024, 1024, 3, 1), (1024, 2048, 1, 1)]
    assert convolutions(method.bottleneck) == [
        (256, 512, 3, 2), (512, 1024, 3, 2), (512, 1024, 3, 2),
        (3072, 1024, 1, 1), (1024, 1024, 3, 2), (1024, 2048, 1, 1), (3072, 2048, 1, 2), *keep, *keep,
    ]  # fmt: skip
    expected = []
    for c, w, o, blocks in ((2048, 512, 1024, 3), (1024, 256, 512, 4), (512, 128, 256, 6)):
        expected += [(c, w, 1, 1), (w, w, -2, 2), (w, o, 1, 1), (c, o, -2, 2)]
        expected += [(o, w, 1, 1), (w, w, 3, 1), (w, o, 1, 1)] * (blocks - 1)
    assert convolutions(method.decoder) == expected


def test_a_block_is_added_to_its_skip_with_a_norm_after_every_convolution():
    block = Decoder([4, 8, 12]).stages[0][0]  # 24 channels → 12
    kinds = [type(m).__name__ for m in block.branch]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "ConvTranspose2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert [type(m).__name__ for m in block.skip] == ["ConvTranspose2d", "BatchNorm2d"]
    x = torch.randn(2, 24, 4, 4)
    torch.testing.assert_close(block.eval()(x), (block.branch(x) + block.skip(x)).relu())
    same = Decoder([4, 8, 12]).stages[0][1].eval()
    y = torch.randn(2, 12, 4, 4)
    torch.testing.assert_close(same(y), (same.branch(y) + y).relu())


def test_the_embedding_sees_every_layer_at_the_deepests_size():
    bottleneck = Bottleneck([4, 8, 12]).eval()
    f = [torch.rand(1, 4, 16, 16), torch.rand(1, 8, 8, 8), torch.rand(1, 12, 4, 4)]
    seen = []
    bottleneck.embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert bottleneck(*f).shape == (1, 24, 2, 2)
    expected = [bottleneck.from_layer1(f[0]), bottleneck.from_layer2(f[1]), f[2]]
    assert torch.equal(seen[0], torch.cat(expected, dim=1)) and seen[0].shape == (1, 36, 4, 4)
    kinds = [type(m).__name__ for m in bottleneck.from_layer1]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 and len(bottleneck.from_layer2) == 3


def test_weights_start_as_resnets_and_transposed_ones_as_pytorchs():
    torch.manual_seed(0)
    parts = [Bottleneck([32, 64, 128]), Decoder([32, 64, 128])]
    for module in (module for part in parts for module in part.modules()):
        if isinstance(module, nn.Conv2d):
            z = module.weight / math.sqrt(2 / (module.out_channels * module.kernel_size[0] ** 2))  # N(0, 1)
            off = 5 / math.sqrt(z.numel())  # standard errors
            assert abs(z.mean()) < off and abs(z.square().mean() - 1) < math.sqrt(2) * off
            assert z.abs().max() > 2.5  # not a uniform one
        elif isinstance(module, nn.ConvTranspose2d):
            assert_uniform(module.weight, 1 / math.sqrt(module.weight[0].numel()))
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()


@pytest.mark.parametrize(("backbone", "signed"), [("resnet18", False), ("efficientnet_lite0", True)])
def test_what_is_restored_has_the_teachers_shapes_and_signs(backbone, signed):
    method, loader = build("rd4ad", f"backbone={backbone}")
    inner = []
    for stage in method.decoder.stages:
        stage[-1].register_forward_pre_hook(lambda module, args: inner.append(args[0].min()))
    for t, s in method.compared(images_of(loader)).values():
        assert t.shape == s.shape
        assert (t.min() < 0) == (s.min() < 0) == signed
    assert all(least >= 0 for least in inner)  # every block but a stage's last


# -- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cosine", ["map", "location"])
def test_losses_are_worked_out_by_hand(cosine):
    method, loader = build("rd4ad", *RESNET, f"cosine={cosine}")
    images = images_of(loader)
    reference, _ = build("rd4ad", *RESNET)
    reference.load_state_dict(method.state_dict())
    reference.train()
    found = method.training_step(Batch.of(images))
    expected = {}
    for layer, (t, s) in reference.compared(images).items():
        dims = (1, 2, 3) if cosine == "map" else 1
        product, norms = (t * s).sum(dims), t.square().sum(dims).sqrt() * s.square().sum(dims).sqrt()
        expected[layer] = 1 - (product / norms).mean()
    expected["loss"] = sum(expected.values())
    assert list(found) == ["layer1", "layer2", "layer3", "loss"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-5, msg=name)


def test_the_teacher_stays_as_it_is_and_the_loss_falls():
    method, loader = build("rd4ad", *RESNET)
    before = {name: value.clone() for name, value in method.features.state_dict().items()}
    images = images_of(loader)
    losses = [method.training_step(Batch.of(images, step))["loss"].item() for step in range(8)]
    assert all(torch.equal(value, before[name]) for name, value in method.features.state_dict().items())
    assert losses[-1] < losses[0] / 2


def test_a_last_batch_of_one_image_can_be_trained_on():
    method, loader = build("rd4ad")
    assert method.training_step(Batch.of(images_of(loader)[:1]))["loss"].isfinite()
    assert not configs.build("rd4ad").stages()[0].drop_last


# -- scores -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.2, 1.0, 50.0])
def test_what_is_restored_is_no_anomaly_whatever_its_length(factor):
    method, _ = build("rd4ad", "blur=0")
    teacher = random_layers()
    faked(method, teacher, [factor * f for f in teacher])
    found = method.score(torch.rand(2, 1, 64, 64))
    assert found.image["distance"].max() < 1e-5 and found.maps["distance"].min() >= 0


def test_the_map_lies_between_0_and_3_for_layers_after_a_relu():
    method, loader = build("rd4ad", *RESNET, "blur=0")
    train_a_bit(method, loader)
    found = method.score(images_of(loader)).maps["distance"]
    assert found.min() >= 0 and found.max() <= 3
    one, other = torch.zeros(2, 4, 16, 16), torch.zeros(2, 4, 16, 16)
    one[:, 0], other[:, 1] = 1, 1
    faked(method, [one] * 3, [other] * 3)
    torch.testing.assert_close(method.score(torch.rand(2, 1, 64, 64)).maps["distance"], torch.full((2, 1, 64, 64), 3.0))


def enlarged(grid, side):
    """Bilinear, the corners of the grid on the corners of the map."""
    for _ in range(2):
        at = np.linspace(0, len(grid) - 1, side)
        grid = np.stack([np.interp(at, np.arange(len(grid)), column) for column in grid.T])
    return grid


def test_the_score_is_the_maximum_of_the_blurred_sum():
    method, _ = build("rd4ad")
    teacher, restored = random_layers(1, signed=True), random_layers(2, signed=True)
    faked(method, teacher, restored)
    found = method.score(torch.rand(2, 1, 64, 64))
    for i in range(2):
        expected = np.zeros((64, 64))
        for t, s in zip(teacher, restored, strict=True):
            t, s = t[i].double().numpy(), s[i].double().numpy()
            expected += enlarged(1 - (t * s).sum(0) / np.sqrt((t * t).sum(0) * (s * s).sum(0)), 64)
        expected = gaussian_filter(expected, 4.0)
        np.testing.assert_allclose(found.maps["distance"][i, 0], expected, atol=1e-5)
        assert found.image["distance"][i].item() == pytest.approx(expected.max(), abs=1e-5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image_size=48", "image_size = 48: must be 64, 96"),
        ("image_size=32", "image_size = 32: must be 64, 96"),
        ("layers=layer1,layer2", "layers = layer1,layer2: RD4AD restores layer1,layer2,layer3"),
        ("layers=layer2,layer3,layer4", "RD4AD restores layer1,layer2,layer3"),
        ("cosine=patch", "cosine = 'patch': must be one of map, location"),
        ("blur=-1", "blur = -1.0: must be at least 0"),
    ],
)
def test_what_the_networks_cannot_take_is_refused(override, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build("rd4ad", [override])
