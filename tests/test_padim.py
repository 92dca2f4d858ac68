"""PaDiM: its channels, its Gaussians against numpy's covariances, its score and map, and a fit that is killed."""

import weakref

import numpy as np
import pytest
import torch
from conftest import assert_same_run
from forks import kill_in_training
from scipy.ndimage import gaussian_filter
from test_methods import build
from tiny import command, train

import configs
from dataloader.images import DataError
from methods import METHODS
from methods.maps import upsample
from models.gaussians import Gaussians, folded, paired, unfolded


def features(images=30, d=4, positions=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    mixed = torch.randn(positions, d, d, generator=rng, dtype=torch.float64)
    x = torch.randn(images, positions, d, generator=rng, dtype=torch.float64)
    return torch.einsum("npd,pde->nep", x, mixed) + 3  # (N, d, P)


def fitted(x, ridge=0.0, batch=7):
    gaussians = Gaussians().double()
    gaussians.fit(x.split(batch), ridge)
    return gaussians


def few_at_once(monkeypatch, pairs, d=4):
    monkeypatch.setattr("models.gaussians.ENTRIES_AT_ONCE", pairs * 2 * d * d)


# -- the Gaussians ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", [6, 5])  # an odd number has a last position without another
@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_what_is_summed_up_batch_by_batch_is_numpys_covariance(monkeypatch, positions, ridge):
    few_at_once(monkeypatch, pairs=2)
    x = features(positions=positions)
    gaussians = fitted(x, ridge)
    lower = torch.stack(unfolded(gaussians.factors), 1).flatten(0, 1).tril()[:positions]
    means = gaussians.means.flatten(0, 1)[:positions]
    for p in range(positions):
        expected = np.cov(x[:, :, p].numpy(), rowvar=False) + ridge * np.eye(4)
        np.testing.assert_allclose((lower[p] @ lower[p].T).numpy(), expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(means[p].numpy(), x[:, :, p].mean(0).numpy(), rtol=1e-12)


@pytest.mark.parametrize("positions", [6, 5])
def test_the_distance_is_the_root_of_the_quadratic_form(monkeypatch, positions):
    x, queries = features(positions=positions), features(3, positions=positions, seed=1)
    gaussians = fitted(x, 0.5)
    few_at_once(monkeypatch, pairs=2)  # the order of what is kept does not depend on it
    found = gaussians.distances(queries)
    assert found.shape == (3, positions)
    for p in range(positions):
        inverse = np.linalg.inv(np.cov(x[:, :, p].numpy(), rowvar=False) + 0.5 * np.eye(4))
        away = (queries[:, :, p] - x[:, :, p].mean(0)).numpy()
        np.testing.assert_allclose(found[:, p].numpy() ** 2, np.sum(away @ inverse * away, 1), rtol=1e-9)


def test_without_a_ridge_squared_distances_of_the_training_images_average_to_their_dimensions():
    """mean = d · (N − 1) / N at every position, for any features of more images than dimensions."""
    x = features(images=30, d=4)
    squares = fitted(x).distances(x).square()
    torch.testing.assert_close(squares.mean(0), torch.full((5,), 4 * 29 / 30, dtype=torch.float64))
    assert fitted(x, 0.5).distances(x).square().mean() < 4 * 29 / 30


def test_two_triangles_fill_a_rectangle():
    squares = torch.randn(3, 2, 4, 4)
    rectangle = folded(squares)
    assert rectangle.shape == (3, 5, 4) and (rectangle != 0).all()
    assert torch.equal(torch.stack(unfolded(rectangle), 1).tril(), squares.tril())


def test_moments_are_exact_where_the_mean_is_large_and_kept_in_float32():
    x = features() + 1e4
    gaussians = Gaussians()
    gaussians.fit(x.split(7), 0.0)
    assert gaussians.means.dtype == gaussians.factors.dtype == torch.float32
    lower = torch.stack(unfolded(gaussians.factors), 1).flatten(0, 1).tril().double()
    expected = np.cov(x[:, :, 0].numpy(), rowvar=False)
    np.testing.assert_allclose((lower[0] @ lower[0].T).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_no_batch_is_kept_and_what_is_kept_does_not_grow_with_the_images():
    seen = []

    def batches(count):
        for number in range(count):
            assert not any(batch() for batch in seen[:-1])
            x = features(7, seed=number)
            seen.append(weakref.ref(x))
            yield x

    gaussians = Gaussians()
    gaussians.fit(batches(6), 0.1)
    assert gaussians.factors.shape == (3, 5, 4) and gaussians.means.shape == (3, 2, 4)


# -- its features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimensions", "seed"), [(200, 0), (10, 1)])  # the latter has none of the first layer
def test_deeper_layers_are_replicated_and_the_chosen_channels_are_in_the_order_of_the_layers(dimensions, seed):
    method, _ = build("padim", f"dimensions={dimensions}", f"seed={seed}")
    images = torch.rand(2, 1, 64, 64)
    one, two, three = method.features(images).values()
    assert (one.shape[1:], two.shape[1:], three.shape[1:]) == ((64, 16, 16), (128, 8, 8), (256, 4, 4))
    two = two.repeat_interleave(2, 2).repeat_interleave(2, 3)
    three = three.repeat_interleave(4, 2).repeat_interleave(4, 3)
    found = method.embedded(images)
    assert found.shape == (2, dimensions, 16, 16) and (method.chosen.min() >= 64) == bool(seed)
    assert torch.equal(found, torch.cat([one, two, three], 1)[:, method.chosen])


def test_the_channels_are_drawn_once_from_all_and_saved():
    method, loader = build("padim", "dimensions=60")
    assert method.chosen.unique().numel() == 60 and method.chosen.max() < 448
    counts = [((method.chosen >= a) & (method.chosen < b)).sum() for a, b in ((0, 64), (64, 192), (192, 448))]
    assert min(counts) > 3
    other, _ = build("padim", "dimensions=60", "seed=1")
    assert not torch.equal(other.chosen, method.chosen)
    method.fit(loader)
    other.load_state_dict(method.state_dict())
    images = next(loader.unaugmented())
    assert torch.equal(other.score(images).image["distance"], method.score(images).image["distance"])


def test_the_published_networks_have_the_published_channels():
    for backbone, dimensions, total in (("resnet18", 100, 448), ("wide_resnet50_2", 550, 1792)):
        config = configs.build("padim", [f"backbone={backbone}", f"dimensions={dimensions}"])
        with torch.device("meta"):
            method = METHODS["padim"](config)
        assert sum(method.features.channels.values()) == total and method.chosen.shape == (dimensions,)


# -- its score --------------------------------------------------------------------------------------------------------


def test_the_score_is_the_largest_pixel_of_the_blurred_map():
    method, loader = build("padim")
    method.fit(loader)
    images = torch.cat([next(loader.unaugmented())[:2], torch.zeros(1, 1, 48, 48)])
    found = method.score(images)
    distances = method.gaussians.distances(method.embedded(images).flatten(2)).reshape(3, 1, 12, 12)
    pixels = upsample(distances, 48)[:, 0].numpy()
    expected = np.stack([gaussian_filter(image, 4.0, mode="reflect") for image in pixels])
    np.testing.assert_allclose(found.maps["distance"][:, 0].numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.image["distance"].numpy(), expected.max((1, 2)), rtol=1e-5)
    assert found.image["distance"].isfinite().all()


def test_the_fit_is_of_the_unaugmented_images():
    method, loader = build("padim", "augment=true")
    method.fit(loader)
    x = method.embedded(torch.cat(list(loader.unaugmented()))).flatten(2)
    torch.testing.assert_close(method.gaussians.means, paired(x).mean(3), rtol=1e-4, atol=1e-5)


# -- fewer images than dimensions -------------------------------------------------------------------------------------


def test_fewer_images_than_dimensions_need_the_ridge():
    method, loader = build("padim", "dimensions=60")  # and 24 images
    method.fit(loader)
    found = method.score(next(loader.unaugmented())).image["distance"]
    assert found.isfinite().all() and found.min() > 0
    for dimensions in (60, 24):
        method, loader = build("padim", f"dimensions={dimensions}", "ridge=0")
        with pytest.raises(configs.ConfigError, match=f"of {dimensions} dimensions are singular with 24 training"):
            method.fit(loader)
    method, loader = build("padim", "ridge=0")
    method.features.forward = lambda x: {"layer1": torch.ones(len(x), 448, 2, 2)}  # as where all is black
    with pytest.raises(configs.ConfigError, match=r"ridge = 0.0: a covariance is singular\. Give --set ridge=0.01"):
        method.fit(loader)


def test_one_image_has_no_covariance():
    method, loader = build("padim", "digits_per_epoch=1")
    with pytest.raises(DataError, match="at least 2 training images"):
        method.fit(loader)


def test_settings_that_cannot_be_are_refused(workspace, capsys):
    assert train("a", method="padim", overrides=["dimensions=449"]) == 1
    said = capsys.readouterr().err
    assert "dimensions = 449: layer1, layer2, layer3 of resnet18 have 448 channels together" in said
    for setting, message in (
        ("epochs=2", "PaDiM is fitted once"), ("image_size=16", "at least 32"), ("dimensions=0", "at least 1"),
        ("ridge=-1", "at least 0"),
    ):  # fmt: skip
        with pytest.raises(configs.ConfigError, match=message):
            configs.build("padim", [setting])


# -- a run ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # as test_patchcore.py's
def test_a_fit_that_is_killed_is_made_again(workspace, trained_once):
    kill_in_training(workspace, "methods.padim.Padim", "embedded", 1, "padim", [])
    assert train("killed", method="padim") == 0
    assert_same_run(workspace / "checkpoints" / "killed", trained_once("padim"))


def test_best_pt_holds_all_that_scoring_needs(trained):
    folder = trained("a", "padim")
    last, best = (torch.load(folder / f"{name}.pt", weights_only=True)["method"] for name in ("last", "best"))
    assert set(last) == {"chosen", "gaussians.means", "gaussians.factors"} and set(last) < set(best)
    assert last["gaussians.factors"].shape == (72, 11, 10)  # 12 × 12 positions
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
