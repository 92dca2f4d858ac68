"""The same test images as several experiments see them."""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import command

from commands import cli
from dataloader import build_dataset
from system.device import to_float
from tools import side_by_side


def test_the_figure_is_of_the_same_images_in_every_method(workspace, trained, monkeypatch):
    trained("a", "ae")
    trained("p", "padim")
    seen = []
    draw = side_by_side.draw
    monkeypatch.setattr(side_by_side, "draw", lambda *given: seen.append(given) or draw(*given))
    arguments = ["AE=a", "p", "--out", "x.png", "x.pdf", "--device", "cpu"]
    assert command("side_by_side", *arguments, module=side_by_side) == 0
    ((methods, kinds),) = seen
    assert kinds == ["normal", "missing", "misordered", "flipped", "zero"] and list(methods) == ["AE", "p"]
    assert [list(each.panels) for each in methods.values()] == [["reconstruction", "error"], ["distance map"]]
    assert [each.heat for each in methods.values()] == [False, True]
    with Image.open("x.png") as picture:
        assert picture.width > 500
    assert Path("x.pdf").read_bytes().startswith(b"%PDF")
    ae = methods["AE"]
    np.testing.assert_allclose(ae.panels["error"], np.abs(ae.inputs - ae.panels["reconstruction"]))


def test_many_methods_stand_in_blocks_and_can_be_read_on_a_page():
    images = np.random.RandomState(0).rand(2, 8, 8)
    pair = {"reconstruction": images, "error": images}
    names = [f"experiment_of_the_{count}th_method" for count in ("six", "seven", "eigh", "nin", "ten", "eleven")]
    seen = {name: side_by_side.Seen(images, pair, heat=False) for name in names}
    seen["M-KD"] = side_by_side.Seen(images, {"discrepancy map": images}, heat=True)
    figure = side_by_side.draw(seen, ["normal", "anomalous beyond doubt"])
    figure.draw_without_rendering()

    used = [axis for axis in figure.axes if axis.axison]
    titles = [axis.title for axis in used if axis.get_title()]
    said = [title.get_text().replace("\n", "") for title in titles]
    first, second = (name + panel for name in names[:2] for panel in pair), (names[-1] + panel for panel in pair)
    assert said[:5] == ["input", *first] and said[-4:] == ["input", *second, "M-KDdiscrepancymap"]
    assert said.count("input") == 2 and len(used) == 2 * (11 + 4) and all(len(axis.images) == 1 for axis in used)
    inputs = [axis for axis in used if axis.get_ylabel()]
    assert [axis.get_ylabel().replace("\n", " ") for axis in inputs] == ["normal", "anomalous beyond doubt"] * 2
    for axis, image in zip(inputs, [*images, *images], strict=True):
        assert np.array_equal(axis.images[0].get_array(), image)

    letters = [*titles, *(axis.yaxis.label for axis in inputs)]
    boxes = [text.get_window_extent() for text in letters]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    width, height = figure.bbox.size
    assert all(0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height for box in boxes)
    page = 900 / figure.get_figwidth() / 72  # pixels a point, on a page of 900 pixels
    assert all(text.get_fontsize() * page > 9 for text in letters)


def test_panels_are_what_the_method_gives(workspace, trained):
    folder = trained("a", "ae")
    args = argparse.Namespace(exp="a", checkpoint="best", precision=None, device="cpu")
    loaded = cli.load_trained(args)
    split = build_dataset(loaded.config, None).split("test")
    found = side_by_side.see(loaded, split, [3, 0])
    images = to_float(split.images[[3, 0]], torch.device("cpu"))
    assert np.array_equal(found.inputs, images[:, 0].numpy())
    expected = loaded.method.score(images).reconstruction[:, 0].numpy()
    assert np.array_equal(found.panels["reconstruction"], expected) and folder.is_dir()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--out", "x.png", "--ids", "test/nobody"], "--ids test/nobody: no test image is called so"),
        (["a", "--out", "x.jpg"], "--out must end in .png or .pdf"),
        (["b", "--out", "x.png"], "checkpoints/b"),
    ],
)
def test_what_cannot_be_shown_is_named(workspace, trained, capsys, arguments, message):
    trained("a", "ae")
    assert command("side_by_side", *arguments, module=side_by_side) != 0
    assert message in capsys.readouterr().err
