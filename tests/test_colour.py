"""Images in colour: read, told apart by it, scored and shown, by the methods that can."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_methods import build, images_of, train_a_bit
from tiny import TINY, command, train

import configs
from configs import ConfigError
from dataloader import build_dataset, familiar
from dataloader.images import read_image, read_images
from methods import METHODS
from system.device import to_float

CAN = ("padim", "patchcore", "dn2", "panda", "rd4ad", "mkd")


def test_who_can():
    having = {name for name in METHODS if "colour" in configs.SETTINGS[name].keys()}  # noqa: SIM118
    assert having == set(CAN)
    with pytest.raises(ConfigError, match="Unknown configuration key 'colour'"):
        configs.build("ae", ["dataset=folder", "colour=true"])
    with pytest.raises(ConfigError, match="colour = true: the images of dataset = digit are gray. Leave it out"):
        build_dataset(configs.build("padim", ["dataset=digit", "colour=true"]))


def test_files_keep_their_colours(tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 200
    files = {"red": Image.fromarray(red), "gray": Image.new("L", (6, 4), 90), "deep": Image.new("I;16", (6, 4), 25700)}
    files["glass"] = Image.new("RGBA", (6, 4), (0, 100, 0, 128))
    for name, image in files.items():
        image.save(tmp_path / f"{name}.png")
    expected = {"red": (200, 0, 0), "gray": (90, 90, 90), "deep": (100, 100, 100), "glass": (0, 50, 0)}
    for name, levels in expected.items():
        pixels = read_image(tmp_path / f"{name}.png", 2, "bilinear", colour=True)
        assert pixels.shape == (3, 2, 2) and [set(channel.ravel()) for channel in pixels] == [{v} for v in levels], name
    paths = [tmp_path / f"{name}.png" for name in expected]
    images = read_images(paths, 2, "x", "bilinear", colour=True)
    assert images.shape == (4, 3, 2, 2) and images.dtype == torch.uint8
    assert torch.equal(to_float(images, torch.device("cpu")), images.float() / 255)


def test_what_is_kept_in_colour_is_not_taken_for_gray(tmp_path, monkeypatch):
    monkeypatch.setenv("ANOMALY_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr("dataloader.cache.LEAST", 1)
    Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / "a.png")
    for colour, shape in ((False, (1, 4, 4)), (True, (1, 3, 4, 4)), (False, (1, 4, 4)), (True, (1, 3, 4, 4))):
        found = read_images([tmp_path / "a.png"], 4, "train", "bilinear", root=tmp_path, colour=colour)
        assert found.shape == shape and found.max() == (200 if colour else 60)


def test_how_images_look_is_by_luma():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[0, 0], images[1, 1] = 200, 100
    assert [set(image.ravel().tolist()) for image in familiar.gray(images)] == [{60}, {59}]
    of_gray = torch.randint(0, 256, (12, 4, 4), dtype=torch.uint8)
    assert familiar.record(of_gray[:, None].expand(-1, 3, -1, -1)) == familiar.record(of_gray)


def rings(path, colour, number):
    """A disc of one luma (about 90) on gray, in one of two colours."""
    y, x = np.mgrid[:64, :64]
    disc = (y - 32) ** 2 + (x - 32) ** 2 < (12 + number % 5) ** 2
    pixels = np.full((64, 64, 3), 90 + number % 3, np.uint8)
    pixels[disc] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


GREEN, RED = (60, 120, 16), (180, 50, 60)  # of the same luma, 90


@pytest.mark.parametrize("method", CAN)
def test_anomalies_of_colour_alone_are_seen_in_colour_alone(workspace, method, capsys):
    for i in range(24):
        rings(workspace / f"mine/train/good/{i}.png", GREEN, i)
    for i in range(6):
        rings(workspace / f"mine/test/good/{i}.png", GREEN, 24 + i)
        rings(workspace / f"mine/test/red/{i}.png", RED, 24 + i)
    own = [*TINY[method][1], "dataset=folder", "image_size=64"]
    own = [pair for pair in own if not pair.startswith(("digits_per_epoch", "digit_source", "dataset=digit"))]
    aucs = {}
    for colour in ("false", "true"):
        settings = [*own, f"colour={colour}", "held_out=0.35"]
        assert train(f"x_{colour}", "--data-root", "mine", method=method, overrides=settings) == 0
        assert command("eval", "--exp", f"x_{colour}", "--device", "cpu", "--save-maps") == 0
        folder = workspace / "checkpoints" / f"x_{colour}"
        results = json.loads((folder / "results.json").read_text())
        aucs[colour] = results["scores"][results["main_score"]]["auc"]
    # M-KD's student knows nothing yet: where it is compared with its teacher, either colour may be the worse
    assert aucs["false"] == 0.5 and (aucs["true"] > 0.9 or (method, aucs["true"]) == ("mkd", 0))
    with np.load(folder / "maps.npz") as maps:
        assert all(maps[name].shape == (12, 64, 64) for name in maps.files if name != "id")
    predicted = ["--csv", "p.csv", "--images", "pics", *([] if method in ("dn2", "panda") else ["--maps", "maps"])]
    assert command("predict", "--exp", "x_true", "mine/test", "--device", "cpu", *predicted) == 0
    with open(workspace / "p.csv", newline="") as file:
        scores = {row["path"].removeprefix("mine/"): row["score"] for row in csv.DictReader(file)}
    with open(folder / "scores.csv", newline="") as file:
        assert scores == {row["id"]: row["score"] for row in csv.DictReader(file)}
    assert len(list((workspace / "pics").rglob("*.png"))) == 12


@pytest.mark.parametrize("name", CAN)
def test_a_gray_image_scores_as_its_three_equal_colours(name):
    method, loader = build(name)
    train_a_bit(method, loader)
    method.fit(loader)
    method.double()
    gray = images_of(loader)[:3].double()
    once, thrice = method.score(gray, all_maps=True), method.score(gray.expand(-1, 3, -1, -1), all_maps=True)
    for key, values in once.image.items():
        torch.testing.assert_close(thrice.image[key], values, rtol=1e-6, atol=1e-9)
    for key, pixels in once.maps.items():
        torch.testing.assert_close(thrice.maps[key], pixels, rtol=1e-6, atol=1e-9)
