"""The rules for the checkpoint: what each chooses among recorded epochs, and the table of them."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from tiny import command

from experiments.folder import Experiment
from tools import rules
from tools.results import RESULTS, read_rows

LABELS = np.array([0, 0, 1, 1])


def recorded(scores, errors=None):
    return rules.Recorded(LABELS, None, {"main": np.array(scores, float), "reconstruction": np.array(errors, float)})


def test_what_each_rule_chooses_is_worked_out_by_hand():
    scores = [[0, 3, 1, 2], [0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]]  # AUC 0.5, 1, 1, 0
    errors = [[5, 5, 0, 0], [4, 4, 9, 9], [1, 2, 9, 9], [2, 2, 0, 0]]  # normal images: 5, 4, 1.5, 2
    chosen = rules.chosen(recorded(scores, errors), "main", "reconstruction")
    assert chosen == {"last": 3, "labelled": 1, "least error": 2, "agreement": 1, "mean of 10": None}
    tolerant = {share: rules.chosen(recorded(scores, errors), "main", "", share)["tolerant"] for share in (0, 0.01, 2)}
    assert tolerant == {0: 1, 0.01: 2, 2: 3}  # another epoch is as good, one is within two


def test_agreement_is_the_mean_rank_correlation_with_the_others():
    scores = np.array([[0, 1, 2, 3], [0, 10, 30, 20], [3, 2, 1, 0]])
    # Spearman: 1 − 6 Σ d² / (4 · 15); 0 and 1: 0.8, 0 and 2: −1, 1 and 2: −0.8
    assert rules.agreement(scores) == pytest.approx([-0.1, 0, -0.9])
    assert rules.agreement(scores[:1]) == [0]


def test_equal_scores_agree_with_nothing_in_whatever_order_the_images_come():
    labels = np.repeat([0, 1], 50)
    scores = labels + np.random.default_rng(0).normal(0, 0.5, (20, 100))
    scores[7] = 0.5  # an epoch that gives every image the same
    scores[3, 10:] = 0.5
    found = rules.agreement(scores)
    assert found[7] == 0 and found.argmax() not in (3, 7)
    shuffled = np.random.default_rng(1).permutation(100)
    assert rules.agreement(scores[:, shuffled]) == pytest.approx(found)
    assert found[3] == pytest.approx(
        np.mean([spearmanr(scores[3], scores[i])[0] for i in range(20) if i not in (3, 7)]) * 18 / 19
    )


def test_labels_change_nothing_for_the_rules_without_labels():
    rng = np.random.default_rng(0)
    val = recorded(rng.normal(size=(20, 4)), rng.normal(size=(20, 4)))
    other = val._replace(labels=np.array([0, 0, 1, 0]))
    for rule in ("last", "agreement", "mean of 10"):
        assert rules.chosen(val, "main", "reconstruction")[rule] == rules.chosen(other, "main", "reconstruction")[rule]
    # the reconstruction error looks at the normal images alone
    val.scores["reconstruction"][:, 2:] += 100 * rng.normal(size=(20, 2))
    before = rules.chosen(val, "main", "reconstruction")["least error"]
    val.scores["reconstruction"][:, 2:] = 0
    assert rules.chosen(val, "main", "reconstruction")["least error"] == before


def test_scores_are_averaged_over_the_last_ten_epochs():
    scores = np.arange(24.0).reshape(12, 2)
    assert rules.taken(scores, None).tolist() == scores[2:].mean(0).tolist()
    assert rules.taken(scores, 3).tolist() == [6, 7]
    assert rules.deviation(np.array([0.9, *[0.5, 0.6] * 5])) == pytest.approx(100 * np.std([0.5, 0.6] * 5, ddof=1))


def test_the_table_is_of_the_recorded_scores(trained, workspace, capsys):
    folder = trained("a", overrides=["average_decay=0.7", "record_scores=true"])
    assert command("rules", "--exp", "a", "--figure", workspace / "rules.png", module=rules) == 0
    rows = read_rows(RESULTS / "rules.csv")
    assert [row["weights"] for row in rows] == ["trained"] * 6 + ["averaged"] * 6
    assert (workspace / "rules.png").stat().st_size > 10_000
    for row in (row for row in rows if row["rule"] == "last"):
        for column, split in (("val_deviation_points", "val"), ("deviation_points", "test")):
            aucs = list(json.loads(row[f"{split}_auc_per_epoch"]).values())
            assert float(row[column]) == pytest.approx(100 * np.std(aucs, ddof=1), abs=1e-3)

    for checkpoint, weights in (("last", "trained"), ("averaged", "averaged")):
        assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", checkpoint) == 0
        printed = capsys.readouterr().out
        (row,) = (row for row in rows if (row["weights"], row["rule"]) == (weights, "last"))
        assert row["epoch"] == "2" and row["score"] == "reconstruction"
        expected = f"reconstruction: test AUC {100 * float(row['test_auc']):.1f} % [95 % interval "
        expected += f"{100 * float(row['test_auc_low']):.1f} – {100 * float(row['test_auc_high']):.1f}]"
        assert expected in printed
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


def test_nothing_recorded_is_an_error_that_says_how(trained, capsys):
    trained("a")
    assert command("rules", "--exp", "a", module=rules) == 1
    assert "--set record_scores=true" in capsys.readouterr().err
