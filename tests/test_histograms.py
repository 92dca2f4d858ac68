"""Histograms of several experiments' scores in one figure."""

import json

import numpy as np
import pytest
from PIL import Image
from test_compare import evaluated, made
from tiny import command

from evaluation import plots
from tools import histograms


def run(*arguments):
    return command("histograms", *arguments, module=histograms)


@pytest.mark.pictures
def test_a_row_for_every_score_and_a_panel_for_every_experiment(workspace, monkeypatch):
    labels, (one, two, three) = made(gains=(2.0, 1.0, 0.5))
    backwards = np.arange(len(labels))[::-1]
    evaluated("a", labels, {"inter": one, "rec": two, "intra": three})
    folder = evaluated("b", labels, {"rec": three, "inter": two}, order=backwards)
    found = json.loads((folder / "results.json").read_text())
    found["scores"]["rec"] |= {"chi2_distance": 0.25, "at_val_threshold": {"threshold": 0.7}}
    (folder / "results.json").write_text(json.dumps(found))
    drawn, save = [], plots.save
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
    assert run("A=a", "b", "--out", "x.png", "x.pdf") == 0
    panels = drawn[0].axes
    assert [panel.get_xlabel().partition(" score")[0] for panel in panels] == [
        "A, inter",
        "b, inter",
        "A, rec",
        "b, rec",
    ]
    assert [panel.get_title() for panel in panels] == ["", "", "", "χ² distance 0.25"]
    assert [len(panel.lines) for panel in panels] == [0, 0, 0, 1] and panels[3].lines[0].get_xdata()[0] == 0.7
    for panel, scores in zip(panels, (one, two, two, three), strict=True):
        bins = np.histogram_bin_edges(scores, 100)
        for bars, label in zip(panel.containers, (0, 1), strict=True):
            expected = np.histogram(scores[labels == label], bins, density=True)[0]
            np.testing.assert_allclose([bar.get_height() for bar in bars], expected)
    with Image.open("x.png") as picture:
        assert picture.width > picture.height
    with open("x.pdf", "rb") as file:
        assert file.read(4) == b"%PDF"
    assert run("a", "--score", "intra", "--out", "x.png") == 0 and len(drawn[-1].axes) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "c", "--out", "x.png"], "a, c: have no score in common"),
        (["a", "none", "--out", "x.png"], "none/results.json: not there. Evaluate it first"),
        (["a", "--score", "rec", "--out", "x.png"], "has no score 'rec'. It has distance"),
        (["a", "d", "--out", "x.png"], "other images"),
        (["a", "--out", "x.jpg"], "--out must end in .png or .pdf"),
    ],
)
def test_what_cannot_be_shown_is_named(workspace, capsys, arguments, message):
    labels, scores = made(gains=(2.0, 1.0))
    evaluated("a", labels, scores[0])
    evaluated("c", labels, {"rec": scores[1]})
    evaluated("d", labels[:-1], scores[1][:-1])
    assert run(*arguments) != 0
    assert message in capsys.readouterr().err
