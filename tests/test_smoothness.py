"""What smoothness explains of a method's AUC, against the same by hand."""

import csv

import numpy as np
import pytest
from PIL import Image
from scipy.stats import rankdata
from tiny import command, train

from tools import smoothness


def write(path, height, side=64):
    """Stripes whose neighbours across differ by twice the height: a mean step, across and down, of the height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.tile(np.array([100 + height, 100 - height], np.uint8), (64, 32))
    Image.fromarray(stripes).resize((side, side), Image.Resampling.NEAREST).save(path)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_pairs_and_their_order_by_hand():
    labels = np.array([0, 1, 0, 1, 1])
    step = np.array([10.0, 10.9, 20.0, 25.0, 19.5])  # the normal ones deviate by 5: equal is closer than 1
    equal = smoothness.pairs(labels, step)
    assert equal.tolist() == [[True, False], [False, False], [False, True]]
    assert smoothness.matched_auc(labels, np.array([1.0, 2.0, 3.0, 0.0, 3.0]), equal) == 0.75  # in order, and a tie


def test_the_interval_draws_persons():
    """Two persons a class, two images each: with one of them drawn twice in each class, none or all are in order."""
    labels, persons = np.array([0] * 4 + [1] * 4), list("aabbccdd")
    scores = np.array([0.0, 0, 3, 3, 1, 1, 4, 4])
    everything = np.ones((4, 4), dtype=bool)
    low, high = smoothness.matched_interval(labels, scores, everything, persons)
    assert (low, high) == (0, 1) and smoothness.matched_auc(labels, scores, everything) == 0.75
    low, _ = smoothness.matched_interval(labels, scores, everything, None)
    assert low > 0.2


def test_an_experiment_beside_smoothness(workspace, capsys):
    for i in range(8):
        write(workspace / "mine" / "train" / "good" / f"{i}.png", 10 + i)
        write(workspace / "mine" / "val" / "good" / f"{i}.png", 10 + i)
        write(workspace / "mine" / "val" / "ill" / f"{i}.png", 10 + i)
        write(workspace / "mine" / "test" / "good" / f"{i}.png", 10 + 4 * i, side=64 if i else 128)
        write(workspace / "mine" / "test" / "ill" / f"{i}.png", 9 + 3 * i)
    data = ("--data-root", str(workspace / "mine"))
    assert train("a", *data, method="ae", overrides=["dataset=folder", "epochs=1", "val_every=1"]) == 0
    assert command("eval", "--exp", "a", "--device", "cpu", *data) == 0
    capsys.readouterr()
    assert command("smoothness", "--exp", "a", *data, module=smoothness) == 0
    assert "| smoothness alone | – | " in capsys.readouterr().out
    scored = {row["id"]: row for row in rows(workspace / "checkpoints" / "a" / "scores.csv")}
    good, ill = (
        [(steps * i + first, float(scored[f"test/{of}/{i}.png"]["reconstruction"])) for i in range(8)]
        for of, first, steps in (("good", 10, 4), ("ill", 9, 3))
    )
    deviation = np.std([step for step, _ in good])
    order = [
        (score > other) + (score == other) / 2
        for step, score in ill
        for other_step, other in good
        if abs(step - other_step) < 0.2 * deviation
    ]
    (row,) = rows(workspace / "results" / "smoothness.csv")
    assert int(row["pairs"]) == len(order) and float(row["matched_auc"]) == pytest.approx(np.mean(order))
    smoother = np.mean([[a < n for a, _ in ill] for n, _ in good])
    ties = np.mean([[a == n for a, _ in ill] for n, _ in good])
    assert float(row["smoothness_auc"]) == pytest.approx(smoother + ties / 2)
    ranks = [rankdata(values) for values in zip(*good, strict=True)]
    assert float(row["correlation_normal"]) == pytest.approx(-np.corrcoef(*ranks)[0, 1])
    assert "## folder, test" in (workspace / "results" / "smoothness.md").read_text(encoding="utf-8")

    (workspace / "mine" / "test" / "ill" / "5.png").rename(workspace / "mine" / "test" / "ill" / "6.png")
    assert command("smoothness", "--exp", "a", *data, module=smoothness) == 1
    assert "test/ill/5.png is not in" in capsys.readouterr().err


def test_digits_are_in_no_files(workspace):
    assert train("d", method="ae") == 0 and command("eval", "--exp", "d", "--device", "cpu") == 0
    assert command("smoothness", "--exp", "d", module=smoothness) == 0
    (row,) = rows(workspace / "results" / "smoothness.csv")
    assert row["dataset"] == "digit" and row["interval_by"] == "image"


def test_what_is_not_evaluated(workspace, capsys):
    assert train("d", method="ae") == 0
    assert command("smoothness", "--exp", "d", module=smoothness) == 1
    assert "eval.py --exp d" in capsys.readouterr().err
