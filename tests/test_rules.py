"""The rules for the checkpoint: what each chooses among recorded epochs, and the table of them."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from tiny import command

from evaluation.tables import csv_text
from experiments.folder import Experiment
from tools import rules
from tools.results import RESULTS, read_rows

LABELS = np.array([0, 0, 1, 1])


def recorded(scores, errors=None):
    return rules.Recorded(LABELS, None, {"main": np.array(scores, float), "reconstruction": np.array(errors, float)})


def test_what_each_rule_takes_is_worked_out_by_hand():
    scores = [[0, 3, 1, 2], [0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]]  # AUC 0.5, 1, 1, 0
    errors = [[5, 5, 0, 0], [4, 4, 9, 9], [1, 2, 9, 9], [2, 2, 0, 0]]  # normal images: 5, 4, 1.5, 2
    taken = rules.choices(recorded(scores, errors), "main", "reconstruction")
    assert {rule: epochs.tolist() for rule, epochs in taken.items()} == {
        "last": [0, 1, 2, 3],
        "labelled": [0, 1, 1, 1],
        "least error": [0, 1, 2, 2],
        # Spearman: 0 and 1: 0.2, 0 and 2: −0.4, 1 and 2: 0.8, 0, 1 and 2 with 3: −0.2, −1, −0.8; of two the first
        "agreement": [0, 0, 1, 1],
    }
    tolerant = {share: rules.choices(recorded(scores, errors), "main", "", share)["tolerant"] for share in (0, 0.01, 2)}
    # another epoch is as good, one is within two
    assert {share: of.tolist() for share, of in tolerant.items()} == {
        0: [0, 1, 1, 1], 0.01: [0, 1, 2, 2], 2: [0, 1, 2, 3],
    }  # fmt: skip


def test_agreement_is_the_mean_rank_correlation_with_the_others():
    scores = np.array([[0, 1, 2, 3], [0, 10, 30, 20], [3, 2, 1, 0]])
    # Spearman: 1 − 6 Σ d² / (4 · 15); 0 and 1: 0.8, 0 and 2: −1, 1 and 2: −0.8
    assert rules.agreement(scores)[-1] == pytest.approx([-0.1, 0, -0.9])
    assert rules.agreement(scores)[1, :2] == pytest.approx([0.8, 0.8])
    assert rules.agreement(scores)[0, 0] == 0


def test_equal_scores_agree_with_nothing_in_whatever_order_the_images_come():
    labels = np.repeat([0, 1], 50)
    scores = labels + np.random.default_rng(0).normal(0, 0.5, (20, 100))
    scores[7] = 0.5  # an epoch that gives every image the same
    scores[3, 10:] = 0.5
    found = rules.agreement(scores)[-1]
    assert found[7] == 0 and found.argmax() not in (3, 7)
    shuffled = np.random.default_rng(1).permutation(100)
    assert rules.agreement(scores[:, shuffled])[-1] == pytest.approx(found)
    assert found[3] == pytest.approx(
        np.mean([spearmanr(scores[3], scores[i])[0] for i in range(20) if i not in (3, 7)]) * 18 / 19
    )


def test_labels_change_nothing_for_the_rules_without_labels():
    rng = np.random.default_rng(0)
    val = recorded(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)))
    other = val._replace(labels=np.array([0, 0, 1, 0]))
    before, after = (rules.choices(of, "main", "reconstruction") for of in (val, other))
    for rule in ("last", "agreement"):
        assert before[rule].tolist() == after[rule].tolist()
    # the reconstruction error looks at the normal images alone
    val.scores["reconstruction"][:, 2:] += 100 * rng.normal(size=(20, 2))
    assert rules.choices(val, "main", "reconstruction")["least error"].tolist() == before["least error"].tolist()


def test_scores_are_averaged_over_the_last_ten_epochs():
    scores = np.arange(24.0).reshape(12, 2)
    mean = rules.running_mean(scores)
    assert mean[-1].tolist() == scores[2:].mean(0).tolist() and mean[1].tolist() == [1, 2]
    assert rules.deviation(np.array([0.9, *[0.5, 0.6] * 5])) == pytest.approx(100 * np.std([0.5, 0.6] * 5, ddof=1))


def record(folder, epochs=14):
    """Other scores in place of an experiment's recorded ones: every epoch, split and kind of weights has its own."""
    rng = np.random.default_rng(0)
    tables = [read_rows(path) for path in sorted((folder / "epochs").iterdir())]
    names = [name for name in tables[0][0] if name not in rules.TEXT]
    for epoch in range(1, epochs + 1):
        rows = [row | {name: rng.normal() + 0.5 * int(row["label"]) for name in names} for row in tables[0]]
        (folder / "epochs" / f"{epoch:04d}.csv").write_text(csv_text(tables[0][0], rows))


def scores_of(folder, split, name):
    """The labels (N,) and every epoch's scores (E, N)."""
    tables = [read_rows(path) for path in sorted((folder / "epochs").iterdir())]
    labels = [int(row["label"]) for row in tables[0] if row["split"] == split]
    return np.array(labels), np.array([[float(row[name]) for row in t if row["split"] == split] for t in tables])


def test_every_rule_takes_validations_choice_and_gives_what_the_scores_say(trained, workspace):
    folder = trained("a", overrides=["average_decay=0.7", "record_scores=true", "best_rule=tolerance"])
    record(folder)
    assert command("rules", "--exp", "a", "--figure", workspace / "rules.png", module=rules) == 0
    assert (workspace / "rules.png").stat().st_size > 10_000
    rows = read_rows(RESULTS / "rules.csv")
    names = ["last", "labelled", "tolerant", "least error", "agreement", "mean of 10"]
    assert [(row["main"], row["score"], row["weights"], row["rule"]) for row in rows] == [
        (str(score == "reconstruction"), score, weights, rule)
        for score in ("reconstruction", "discriminator") for weights in ("trained", "averaged") for rule in names
    ]  # fmt: skip

    for row in rows:
        suffix = "_averaged" if row["weights"] == "averaged" else ""
        of = {split: scores_of(folder, split, row["score"] + suffix) for split in ("val", "test")}
        labels, val = of["val"]
        error = scores_of(folder, "val", f"reconstruction{suffix}")[1][:, labels == 0].mean(1)
        aucs = [roc_auc_score(labels, scores) for scores in val]
        agreement = spearmanr(val, axis=1)[0]

        def taken(stop, rule=row["rule"], aucs=aucs, error=error, agreement=agreement):
            """The epochs whose scores are averaged, where training stops after so many."""
            return {
                "last": [stop - 1],
                "labelled": [np.argmax(aucs[:stop])],
                "tolerant": [max(i for i in range(stop) if not i or aucs[i] > max(aucs[:i]) - 0.005)],
                "least error": [np.argmin(error[:stop])],
                "agreement": [np.argmax(agreement[:stop, :stop].mean(0))],
                "mean of 10": range(max(0, stop - 10), stop),
            }[rule]

        stops = range(1, 15)
        curves = {
            split: [roc_auc_score(own, scores[list(taken(stop))].mean(0)) for stop in stops]
            for split, (own, scores) in of.items()
        }
        assert row["epoch"] == ("" if row["rule"] == "mean of 10" else str(taken(14)[0] + 1))
        last = range(9, 14) if row["rule"] == "mean of 10" else range(4, 14)
        for split, column in (("val", "val_deviation_points"), ("test", "deviation_points")):
            assert float(row[f"{split}_auc"]) == pytest.approx(curves[split][-1])
            assert list(json.loads(row[f"{split}_auc_per_epoch"]).values()) == pytest.approx(curves[split], abs=1e-4)
            assert float(row[column]) == pytest.approx(100 * np.std([curves[split][i] for i in last], ddof=1))
        assert float(row["gap_points"]) == pytest.approx(100 * (curves["val"][-1] - curves["test"][-1]))
        assert float(row["test_auc_low"]) < float(row["test_auc"]) < float(row["test_auc_high"])


def test_the_table_is_of_the_recorded_scores(trained, workspace, capsys):
    folder = trained("a", overrides=["average_decay=0.7", "record_scores=true"])
    assert command("rules", "--exp", "a", module=rules) == 0
    rows = read_rows(RESULTS / "rules.csv")
    for checkpoint, weights in (("last", "trained"), ("averaged", "averaged")):
        assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", checkpoint) == 0
        printed = capsys.readouterr().out
        of_last = [row for row in rows if (row["weights"], row["rule"]) == (weights, "last")]
        assert [row["score"] for row in of_last] == ["reconstruction", "discriminator"]
        for row in of_last:
            assert row["epoch"] == "2"
            expected = f"{row['score']}: test AUC {100 * float(row['test_auc']):.1f} % [95 % interval "
            expected += f"{100 * float(row['test_auc_low']):.1f} – {100 * float(row['test_auc_high']):.1f}]"
            assert expected in printed
    assert 'id="rules"' in (RESULTS / "index.html").read_text(encoding="utf-8")
    text = (RESULTS / "rules.md").read_text()
    assert "## digit_quick, 2 epochs" in text and "average_decay: 0.0 → 0.7" in text

    # a second run keeps one set of rows
    assert command("rules", "--exp", "a", module=rules) == 0
    assert read_rows(RESULTS / "rules.csv") == rows

    lines = (folder / "epochs" / "0002.csv").read_text().splitlines()
    (folder / "epochs" / "0002.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert command("rules", "--exp", "a", module=rules) == 1
    assert "0002.csv: other images than in 0001.csv" in capsys.readouterr().err


@pytest.mark.parametrize("gone", ["val", "test"])
def test_without_validation_or_test_images_there_are_no_rules(trained, capsys, monkeypatch, gone):
    trained("a", overrides=["average_decay=0.7", "record_scores=true"])
    epochs, splits = rules.read(Experiment("a"))
    del splits[gone]
    monkeypatch.setattr(rules, "read", lambda experiment: (epochs, splits))
    assert command("rules", "--exp", "a", module=rules) == 1
    assert f"its data have no {gone} images" in capsys.readouterr().err


def test_a_figure_of_several_configurations_names_each_by_what_sets_it_apart(monkeypatch):
    drawn = []
    monkeypatch.setattr(rules, "save", lambda figure, path: drawn.append(figure))
    shared = ["precision: fp32 → bf16", "average_decay: 0.0 → 0.9"]
    rows = [
        {"config": "zhang_best", "settings": "; ".join(settings), "rule": rule, "weights": weights, "score": "main",
         "val_auc_per_epoch": f'{{"1": 0.5, "2": 0.{7 + i}}}', "test_auc_per_epoch": f'{{"1": 0.5, "2": 0.{6 + i}}}'}
        for i, settings in enumerate((shared, [*shared, "r1_weight: 0.0 → 10.0"], [*shared, "skip_dropout: 0.0 → 0.5"]))
        for rule in ("last", "labelled") for weights in ("trained", "averaged")
    ]  # fmt: skip
    rules.draw(rows, "several.png")
    legend = drawn[0].legends[0]
    names = ["zhang_best", "zhang_best, r1_weight: 0.0 → 10.0", "zhang_best, skip_dropout: 0.0 → 0.5"]
    assert [text.get_text() for text in legend.get_texts()] == names
    assert legend.get_title().get_text() == "all with " + "; ".join(shared)
    # each has its own curve, of the last epoch, in its own colour
    for axis, so in zip(drawn[0].axes, (7, 6, 7, 6), strict=True):
        curves = [line for line in axis.lines if len(line.get_xdata()) == 2 and line.get_xdata()[1] == 2]
        assert [line.get_ydata()[1] for line in curves] == pytest.approx([10 * (so + i) for i in range(3)])
        assert [line.get_color() for line in curves] == [line.get_color() for line in legend.get_lines()]

    rules.draw([row for row in rows if row["settings"] == "; ".join(shared)], "one.png")
    assert [text.get_text() for text in drawn[1].legends[0].get_texts()] == ["last", "labelled"]
    assert not drawn[1].legends[0].get_title().get_text()


def test_nothing_recorded_is_an_error_that_says_how(trained, capsys):
    trained("a")
    assert command("rules", "--exp", "a", module=rules) == 1
    assert "--set record_scores=true" in capsys.readouterr().err
