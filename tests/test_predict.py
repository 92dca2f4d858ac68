"""predict.py on other people's files: tables, pictures, maps, warnings."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_medad import needs_pydicom, write_dicom
from tiny import TINY, command, train

import configs
from dataloader import build_dataset, familiar
from dataloader.images import fitted, unfitted
from evaluation import files, pictures, plots
from system.files import FileError


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def noise(seed, size=(48, 48)):
    return np.random.RandomState(seed).randint(0, 256, size[::-1], np.uint8)


def predict(*arguments, exp="a"):
    return command("predict", "--exp", exp, "--device", "cpu", *arguments)


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digits_of(method):
    """Of the tiny experiment's test split: ids and uint8 images."""
    split = build_dataset(configs.build(*TINY[method])).split("test")
    return split.ids, split.images.numpy()


# -- maps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(90, 60), (40, 70), (48, 48), (31, 20)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_map_comes_back_to_its_place_in_the_image(fit, size):
    width, height = size
    pixels = np.zeros((height, width), np.uint8)
    row, column = height // 2 + 3, width // 2 - 6
    pixels[row : row + 4, column : column + 4] = 255
    seen = np.array(fitted(Image.fromarray(pixels), 48, Image.Resampling.BILINEAR, fit))  # a map that knows the answer
    found = unfitted(seen.astype(np.float32), size, fit)
    assert found.shape == (height, width) and found.dtype == np.float32
    shown = ~np.isnan(found)
    y, x = (np.average(grid[shown], weights=found[shown]) for grid in np.indices(found.shape))
    assert (y, x) == pytest.approx((row + 1.5, column + 1.5), abs=0.6)
    side = min(size)
    if fit == "crop":
        left, top = (width - side) // 2, (height - side) // 2
        assert shown.sum() == side**2 and shown[top : top + side, left : left + side].all()
    else:
        assert shown.all()


def test_what_pad_adds_is_cut_away():
    grid = np.full((40, 40), 9.0, np.float32)
    grid[10:30] = 1  # of an image of 80 × 40 pixels: the margins above and below are 9
    assert np.array_equal(unfitted(grid, (80, 40), "pad"), np.ones((40, 80), np.float32))


@pytest.mark.parametrize("method", ["squid", "ae", "patchcore"])
def test_maps_are_those_of_an_evaluation(workspace, trained, method, capsys):
    folder = trained("a", method)
    ids, images = digits_of(method)
    for name, image in zip(ids, images, strict=True):
        save(workspace / "in" / f"{name}.png", image)
    assert command("eval", "--exp", "a", "--device", "cpu", "--save-maps") == 0
    expected = np.load(folder / "maps.npz")
    capsys.readouterr()
    assert predict("in", "--csv", "p.csv", "--maps", "out") == 0
    scores = [name for name in expected.files if name != "id"]
    error = capsys.readouterr().err
    assert scores and all(re.search(rf"{score} \S+ – \S+", error) for score in scores)
    for score in scores:
        for i, name in enumerate(expected["id"]):
            found = np.load(workspace / "out" / f"{name}.{score}.npy")
            assert found.dtype == np.float32
            assert np.allclose(found, expected[score][i], rtol=1e-4, atol=1e-6 * expected[score].max())
    endings = (".npy", ".heat.png", ".overlay.png")
    wanted = {f"{name}.{score}{ending}" for name in ids for score in scores for ending in endings}
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("*.*")} == wanted


def test_all_pictures_of_a_run_have_one_scale(workspace, trained):
    trained("a", "ae", ["fit=crop"])
    dim, bright = (
        save(workspace / "in" / "dim.png", noise(0, (60, 90)) // 8),
        save(workspace / "in" / "b.png", noise(1)),
    )
    assert predict("in", "--csv", "p.csv", "--maps", "out") == 0
    maps = {name: np.load(f"out/{name}.reconstruction.npy") for name in ("b", "dim")}
    low, high = plots.scale(np.stack(list(maps.values())))  # 32 pixels: all of them are looked at
    for path, name in ((dim, "dim"), (bright, "b")):
        gray = np.asarray(Image.open(path))
        heat = unfitted(maps[name], gray.shape[::-1], "crop")
        assert np.array_equal(Image.open(f"out/{name}.reconstruction.heat.png"), plots.colours(heat, (low, high)))
        over = np.asarray(Image.open(f"out/{name}.reconstruction.overlay.png"))
        assert np.array_equal(over, plots.overlay(gray, heat, (low, high)))
    assert (np.asarray(Image.open("out/dim.reconstruction.heat.png"))[[0, -1], :, 3] == 0).all()  # cut off
    assert (over[0] != 0).any()


def test_colours_and_overlays_worked_out_by_hand():
    heat = np.array([[1.0, 2.0, 3.0, 9.0, np.nan]], np.float32)
    colours = plots.colours(heat, (1.0, 3.0))
    assert (colours[..., 3] == [[255, 255, 255, 255, 0]]).all()
    assert np.array_equal(colours[0, 2], colours[0, 3]) and colours[0, 0, :3].max() <= 4
    brightness = colours[0, :3, :3].astype(int).sum(1)
    assert brightness[0] < brightness[1] < brightness[2]
    over = plots.overlay(np.full((1, 5), 200, np.uint8), heat, (1.0, 3.0)).astype(int)
    assert (over[0, 0] == 200).all() and (over[0, 4] == 200).all()
    assert np.array_equal(over[0, 3], (0.7 * colours[0, 3, :3] + 0.3 * 200).round())
    flat = plots.colours(np.ones((2, 2), np.float32), (1.0, 1.0))
    assert (flat[..., 3] == 255).all() and np.array_equal(flat[0, 0], colours[0, 0])


def test_a_picture_of_a_map_that_is_the_same_everywhere(workspace):
    flat = np.full((8, 8), 0.5)
    title, captions = "a very long name " * 20, ["a score of 0.5", "a verdict", "and much else to say " * 4]
    plots.strip(title, captions, {"input": flat}, plots.Heat("distance", flat, plots.scale(flat)), workspace / "x.png")
    assert Image.open("x.png").size[0] // (plots.DPI * plots.PANEL) == 2
    assert plots.shortened("abcdefghij", 7) == "ab…ghij" and plots.shortened("abc", 3) == "abc"


def test_a_scale_is_of_the_median_and_what_few_pixels_exceed():
    assert plots.scale(np.arange(1001.0)) == (500.0, 995.0)


def test_a_method_without_maps_says_so_before_it_scores(workspace, trained, capsys, monkeypatch):
    trained("a", "dn2")
    save(workspace / "in" / "x.png", noise(0))
    monkeypatch.setattr(files, "score_images", lambda *args, **kwargs: pytest.fail("scored"))
    assert predict("in", "--maps", "out") == 1
    assert "--maps: dn2 has no maps, only scores of whole images: distance. Leave" in capsys.readouterr().err
    assert not (workspace / "out").exists()


# -- names, pictures, memory -------------------------------------------------------------------------------------------


@pytest.mark.pictures
def test_equal_names_get_numbers(workspace, trained):
    trained("a", "ae")
    for i, name in enumerate(("p/x.png", "q/x.png", "q/x.bmp", "q/x_2.png", "q/1.2.840.png")):
        save(workspace / name, noise(i))
    assert predict("p", "q", "q/x.png", "--csv", "p.csv", "--images", "pics", "--maps", "maps") == 0
    expected = {"x", "x_2", "x_3", "x_2_2", "1.2.840"}
    assert {path.name.removesuffix(".png") for path in (workspace / "pics").iterdir()} == expected
    arrays = sorted((workspace / "maps").glob("*.npy"))
    assert {path.name.removesuffix(".reconstruction.npy") for path in arrays} == expected
    assert len({path.read_bytes() for path in arrays}) == 5 == len(table("p.csv"))


@pytest.mark.pictures
def test_names_with_line_breaks_spaces_and_other_letters(workspace, trained, capsys):
    trained("a", "ae")
    names = ["a\nb.png", 'c\r"d",e.png', "  f .png", "Röntgen 胸部.png", "$x^{2$_.png", "g\\n.png"]
    for i, name in enumerate(names):
        save(workspace / "in" / name, noise(i))
    bad = save(workspace / "in" / "torn\nfile.png", noise(9))
    bad.write_bytes(bad.read_bytes()[:60])
    assert predict("in", "--csv", "p.csv", "--images", "pics", "--maps", "maps") == 1
    assert {row["path"] for row in table("p.csv")} == {f"in/{name}" for name in names}
    assert all(float(row["score"]) >= 0 for row in table("p.csv"))
    out = capsys.readouterr().out
    assert "in/a\\nb.png" in out and "胸部" in out and "b.png" not in out.splitlines()
    for name in names:
        stem = name.removesuffix(".png")
        assert Image.open(workspace / "pics" / name).size[0] > 900
        assert Image.open(workspace / "maps" / f"{stem}.reconstruction.heat.png").size == (48, 48)


def test_a_name_that_is_no_utf8_is_an_unreadable_file(workspace, trained, capsys):
    trained("a", "ae")
    good = save(workspace / "in" / "x.png", noise(0))
    (workspace / "in" / "x\udcff.png").write_bytes(good.read_bytes())
    assert predict("in", "--csv", "p.csv") == 1
    assert "its name is no UTF-8. Rename it." in capsys.readouterr().err and len(table("p.csv")) == 1


def test_unreadable_files_are_named_before_pictures_are(workspace, trained, capsys, monkeypatch):
    trained("a", "ae")
    save(workspace / "in" / "x.png", noise(0))
    (workspace / "in" / "torn.png").write_bytes(b"\x89PNG")

    def no_room(*_):
        raise FileError("pics: no space left")

    monkeypatch.setattr(pictures, "write", no_room)
    assert predict("in", "--csv", "p.csv", "--images", "pics") == 1
    assert "torn.png: not a readable image" in capsys.readouterr().err


def test_maps_are_not_written_among_the_images(workspace, trained, capsys):
    trained("a", "ae")
    save(workspace / "in" / "x.png", noise(0))
    for option in ("--images", "--maps"):
        assert predict("in", option, "in/out") == 1
        assert f"{option} in/out: would write among the images to score" in capsys.readouterr().err
    assert [path.name for path in (workspace / "in").iterdir()] == ["x.png"]


def test_files_are_read_and_scored_a_few_at_a_time(workspace, trained, monkeypatch):
    trained("a", "ae")
    for i in range(7):
        save(workspace / "in" / f"{i}.png", noise(i))
    (workspace / "in" / "3.png").write_bytes(b"no image")
    assert predict("in", "--csv", "whole.csv", "--maps", "whole") == 1
    at_once = []

    def counted(method, images, *args, score_images=files.score_images, **kwargs):
        at_once.append(len(images))
        return score_images(method, images, *args, **kwargs)

    monkeypatch.setattr(files, "AT_ONCE", 2)
    monkeypatch.setattr(files, "score_images", counted)
    assert predict("in", "--csv", "parts.csv", "--maps", "parts") == 1
    assert at_once == [2, 1, 2, 1]
    for row, again in zip(table("whole.csv"), table("parts.csv"), strict=True):
        assert row["path"] == again["path"] and float(again["score"]) == pytest.approx(float(row["score"]), rel=1e-6)
    for path in (workspace / "whole").glob("*.npy"):
        assert np.allclose(np.load(workspace / "parts" / path.name), np.load(path), atol=1e-6)


def test_pictures_say_the_score_and_the_verdict(workspace, trained, monkeypatch):
    trained("a", "ae")
    for i in range(6):
        save(workspace / "in" / f"{i}.png", noise(i, (20 + 9 * i, 40)) // (i + 1))
    drawn = {}
    monkeypatch.setattr(plots, "strip", lambda title, captions, *rest: drawn.update({title: captions}))
    assert predict("in", "--csv", "p.csv", "--images", "pics") == 0
    called = {"0": "normal", "1": "anomalous"}
    expected = {
        row["path"].removeprefix("in/"): [
            f"reconstruction {float(row['score']):.4g}",
            f"{called[row['anomalous_at_val_threshold']]} by the threshold chosen on validation",
        ]
        for row in table("p.csv")
    }
    assert drawn == expected and len(set(map(str, drawn.values()))) == 6
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert predict("in", "--csv", "p.csv", "--images", "pics", "--false-alarms", "0.1") == 0
    for row in table("p.csv"):
        more = (
            f"{called[row['anomalous_at_normals_threshold']]} at 10 % false alarms",
            f"p = {float(row['p_value']):.3g}",
        )
        assert drawn[row["path"].removeprefix("in/")] == [*expected[row["path"].removeprefix("in/")], *more]


# -- the screen --------------------------------------------------------------------------------------------------------


def test_the_screen_lists_the_highest_with_verdicts(workspace, trained, capsys):
    folder = trained("a", "ae")
    for i in range(12):
        save(workspace / "in" / f"{i}.png", noise(i) // (i + 1))
    best = torch.load(folder / "best.pt", weights_only=True)
    assert predict("in", "--csv", "p.csv") == 0
    ordered = sorted(table("p.csv"), key=lambda row: -float(row["reconstruction"]))
    best["val_thresholds"]["reconstruction"] = float(ordered[2]["reconstruction"]) * (1 - 1e-6)
    torch.save(best, folder / "best.pt")
    capsys.readouterr()
    assert predict("in", "--csv", "p.csv") == 0
    out = capsys.readouterr().out
    assert "12 images scored: p.csv\n3 of them are called anomalous by the threshold chosen on validation: recon" in out
    lines = out[out.index("The 10 highest scores") :].splitlines()[2:]
    assert [line.split() for line in lines] == [
        [f"{float(row['score']):.4g}", "anomalous" if i < 3 else "normal", row["path"]]
        for i, row in enumerate(ordered[:10])
    ]
    assert predict("in", "--csv", "p.csv", "--checkpoint", "last") == 0
    assert "None is called anomalous or normal. A threshold comes with --checkpoint best" in capsys.readouterr().out
    best["val_thresholds"] = {}  # of a run without anomalous validation images
    torch.save(best, folder / "best.pt")
    assert predict("in", "--csv", "p.csv") == 0
    assert "None is called" in capsys.readouterr().out and "anomalous_at" not in "".join(table("p.csv")[0])
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    capsys.readouterr()
    assert predict("in", "--csv", "p.csv", "--false-alarms", "0.25") == 0
    out, ordered = capsys.readouterr().out, sorted(table("p.csv"), key=lambda row: -float(row["reconstruction"]))
    assert " of them are called anomalous at 25 % false alarms: reconstruction ≥ " in out
    words = {"0": "normal", "1": "anomalous"}
    assert [line.split() for line in out[out.index("The 10 highest") :].splitlines()[2:]] == [
        [
            f"{float(row['score']):.4g}",
            f"{float(row['p_value']):.3g}",
            words[row["anomalous_at_normals_threshold"]],
            row["path"],
        ]
        for row in ordered[:10]
    ]


# -- DICOM -------------------------------------------------------------------------------------------------------------


@needs_pydicom
@pytest.mark.pictures
def test_nested_dicom_files_of_every_photometric_interpretation(workspace, trained, capsys):
    trained("a", "ae")
    gray = noise(0).astype(np.uint16) * 16
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": noise(1, (48, 144)).tobytes()}
    bright = write_dicom(workspace / "in" / "p1" / "bright.dcm", gray, PhotometricInterpretation="MONOCHROME2")
    dark = write_dicom(
        workspace / "in" / "p1" / "s 2" / "dark.DCM", gray.max() - gray, PhotometricInterpretation="MONOCHROME1"
    )
    refused = [
        write_dicom(workspace / "in" / f"{name}.dcm", noise(2), PhotometricInterpretation=name, **tags)
        for name, tags in {"RGB": colour, "YBR_FULL": colour, "PALETTE COLOR": {}}.items()
    ]
    assert predict("in", "--csv", "p.csv", "--images", "pics", "--maps", "maps") == 1
    error = capsys.readouterr().err
    assert all(re.search(rf"error: {path.relative_to(workspace)}: its pixels are", error) for path in refused)
    assert "3 of 5 files have no scores" in error
    scores = {row["path"]: float(row["score"]) for row in table("p.csv")}
    assert scores.keys() == {str(path.relative_to(workspace)) for path in (bright, dark)}
    assert len(set(scores.values())) == 1  # the same picture
    assert Image.open("pics/p1/s 2/dark.png").size[0] > 900
    overlays = [np.asarray(Image.open(f"maps/p1/{name}.reconstruction.overlay.png")) for name in ("bright", "s 2/dark")]
    assert np.array_equal(*overlays)


# -- warnings ----------------------------------------------------------------------------------------------------------


def test_looks_worked_out_by_hand():
    """Left half 0, right half 200: mean and deviation are 100; mirrored, the layout is the opposite."""
    image = torch.zeros(1, 16, 16, dtype=torch.uint8)
    image[:, :, 8:] = 200
    mean_image = familiar.coarse(image)[0].numpy()
    both = torch.cat([image, image.flip(2), torch.full_like(image, 7)])
    assert familiar.statistics(both, mean_image) == pytest.approx(np.array([[100, 100, 1], [100, 100, -1], [7, 0, 0]]))
    kept = {"images": 40, "mean_image": mean_image.tolist(), "low": [90, 90, 0.5], "high": [110, 98, 0.9]}
    shown = torch.cat([both, image // 2, image.clamp(20)])  # half as bright; mean 110, deviation 90
    assert familiar.unfamiliar(shown, kept).tolist() == [False, True, True, True, False]


def test_images_unlike_those_trained_on_are_warned_of(workspace, trained, capsys):
    folder = trained("a", "ae")
    ids, images = digits_of("ae")
    for name, image in zip(ids, images, strict=True):
        if "normal" in name:
            save(workspace / "in" / f"{name}.png", image)
    assert predict("in", "--csv", "p.csv") == 0
    assert "unlike" not in capsys.readouterr().err
    for name, pixels in (("in/inverted", 255 - images[0]), ("in/noise", noise(0)), ("in/white", images[0] // 9 + 220)):
        save(workspace / f"{name}.png", pixels)
    assert predict("in", "--csv", "p.csv") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "unlike" in line]
    assert line.startswith("warning: 3 of 19 images look unlike the training images") and "in/inverted.png" in line

    record = json.loads((folder / "data.json").read_text())
    del record["looks"]  # as an older experiment's
    for text in (json.dumps(record), None):
        (folder / "data.json").write_text(text) if text else (folder / "data.json").unlink()
        assert predict("in", "--csv", "p.csv") == 0
        assert "unlike" not in capsys.readouterr().err
    (folder / "data.json").write_text("{")
    assert predict("in", "--csv", "p.csv") == 1
    assert "data.json: damaged" in capsys.readouterr().err


def test_images_much_smaller_than_the_networks_are_warned_of(workspace, trained, capsys):
    trained("a", "ae")  # of 32 pixels
    for name, size in (("a", (15, 90)), ("b", (16, 16)), ("c", (90, 15)), ("d", (90, 60))):
        save(workspace / "in" / f"{name}.png", noise(0, size))
    assert predict("in", "--csv", "p.csv") == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "enlarged" in line]
    assert line.startswith("warning: 2 of 4 images have a side below half of the 32 pixels") and "in/a.png" in line


def test_training_records_how_its_images_look(workspace):
    for i in range(12):
        save(workspace / "mine" / f"{i}.png", noise(i) // 2)
    assert train("a", "--data-root", "mine", method="ae", overrides=["dataset=folder", "batch_size=4", "epochs=1"]) == 0
    looks = json.loads((workspace / "checkpoints" / "a" / "data.json").read_text())["looks"]
    assert looks["images"] == 8 and len(looks["mean_image"]) == 64
    assert 50 < looks["low"][0] <= looks["high"][0] < 80  # of the mean; noise of 0 … 127


# -- eval.py's pictures ------------------------------------------------------------------------------------------------


def test_masks_are_outlined_on_the_image():
    figure = plots.Figure()
    axis = figure.subplots()
    axis.imshow(np.zeros((8, 10)))
    mask = np.zeros((8, 10), bool)
    mask[2:5, 6:] = True  # to the border
    plots.outline(axis, None)
    plots.outline(axis, np.zeros_like(mask))
    assert not axis.collections
    plots.outline(axis, mask)
    corners = axis.collections[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == (5.5, 9.5, 1.5, 4.5)
    assert axis.get_xlim() == (-0.5, 9.5) and axis.get_ylim() == (7.5, -0.5)
