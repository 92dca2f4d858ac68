"""The same test images as several experiments see them."""

import argparse

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
    assert command("side_by_side", "AE=a", "p", "--out", "x.png", "--device", "cpu", module=side_by_side) == 0
    ((methods, kinds),) = seen
    assert kinds == ["normal", "missing", "misordered", "flipped", "zero"] and list(methods) == ["AE", "p"]
    assert [list(each.panels) for each in methods.values()] == [["reconstruction", "error"], ["distance map"]]
    assert [each.heat for each in methods.values()] == [False, True]
    with Image.open("x.png") as picture:
        assert picture.width > 300
    ae = methods["AE"]
    np.testing.assert_allclose(ae.panels["error"], np.abs(ae.inputs - ae.panels["reconstruction"]))


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
