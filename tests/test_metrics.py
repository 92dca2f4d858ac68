"""Metrics against recorded figures and values worked out by hand."""

import json

import numpy as np
import pytest
from conftest import GOLDEN

from evaluation import metrics

CASES = json.loads((GOLDEN / "metrics.json").read_text())["cases"]


@pytest.mark.parametrize("name", CASES)
def test_the_papers_figures(name):
    case = CASES[name]
    logits, labels = np.array(case["logits"], np.float32), np.array(case["labels"])
    scores = 1 - 1 / (1 + np.exp(-(logits - np.float32(case["mean"])) / np.float32(case["std"])))
    expected = dict(case["results"])
    threshold = metrics.oracle_threshold(labels, scores)
    assert threshold == pytest.approx(float(expected.pop("threshold")), rel=1e-6)
    assert 100 * metrics.auc(labels, scores) == pytest.approx(expected.pop("auc"), abs=1e-9)
    found = metrics.at_threshold(labels, scores, threshold)
    found["acc"] = found.pop("accuracy")
    assert {k: 100 * v for k, v in found.items()} == pytest.approx(expected, abs=1e-9)


def test_figures_worked_out_by_hand():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert metrics.auc(labels, scores) == 0.75
    assert metrics.average_precision(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.oracle_threshold(labels, scores) == 0.8  # accuracy 3/4 there and at .35; the first counts
    assert metrics.at_threshold(labels, scores, 0.35) == pytest.approx(
        {"accuracy": 0.75, "f1": 0.8, "recall": 1.0, "precision": 2 / 3, "specificity": 0.5}
    )


def test_bootstrap_interval_covers_and_is_reproducible():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 200)
    scores = np.concatenate([rng.normal(0, 1, 200), rng.normal(1, 1, 200)])
    low, high = metrics.auc_interval(labels, scores)
    point = metrics.auc(labels, scores)
    # Hanley and McNeil's normal approximation for AUC ≈ .76 with 200 + 200
    q1, q2 = point / (2 - point), 2 * point**2 / (1 + point)
    half = 1.96 * np.sqrt((point * (1 - point) + 199 * (q1 - point**2) + 199 * (q2 - point**2)) / 200**2)
    assert low < point < high
    assert high - low == pytest.approx(2 * half, rel=0.15)
    assert [low, high] == metrics.auc_interval(labels, scores)


def test_ties_of_the_bootstrap_count_half():
    labels, scores = np.array([0, 0, 1, 1]), np.ones(4)
    assert metrics.auc_interval(labels, scores) == [0.5, 0.5]


def overlapping(normal=40, anomalous=60):
    """Labels and scores of two overlapping classes, in a mixed order, with ties."""
    rng = np.random.default_rng(2)
    labels = rng.permutation(np.repeat([0, 1], [normal, anomalous]))
    return labels, (rng.normal(labels, 1)).round(1)


def test_persons_of_one_image_each_are_images():
    labels, scores = overlapping()
    names = [f"person {i * 7 % len(labels)}" for i in range(len(labels))]
    assert metrics.auc_interval(labels, scores, names) == metrics.auc_interval(labels, scores)


@pytest.mark.parametrize("doubled", [(0,), (1,), (0, 1)])
def test_images_that_repeat_a_persons_tell_nothing_new(doubled):
    labels, scores = overlapping()
    again = np.isin(labels, doubled)
    more, names = np.append(labels, labels[again]), np.arange(len(labels))
    scores_of_more, persons = np.append(scores, scores[again]), np.append(names, names[again])
    by_person = metrics.auc_interval(more, scores_of_more, persons)
    assert by_person == pytest.approx(metrics.auc_interval(labels, scores), abs=1e-12)
    low, high = metrics.auc_interval(more, scores_of_more)
    assert by_person[1] - by_person[0] > 1.05 * (high - low)


def test_a_person_is_drawn_with_the_images_of_both_classes():
    labels, persons = np.array([0, 1, 0, 0, 1, 1, 0, 1]), [*"aabbccdd"]
    for times in metrics.draws(labels, persons, 50, seed=0):
        assert (times[0::2] == times[1::2]).all() and times[2:4].sum() == times[4:6].sum() == 2
        assert times[[0, 1, 6, 7]].sum() == 4


def test_kinds_are_set_against_all_normals():
    labels = np.array([0, 0, 1, 1, 1])
    scores = np.array([1.0, 2.0, 3.0, 0.0, 1.5])
    found = metrics.evaluate(labels, scores, ["normal", "normal", "a", "b", "b"], val_threshold=2.0)
    assert found["per_kind"] == {"a": {"auc": 1.0, "images": 1}, "b": {"auc": 0.25, "images": 2}}
    assert found["at_val_threshold"]["recall"] == pytest.approx(1 / 3)


def test_an_infinite_threshold_is_valid_json():
    found = metrics.evaluate(np.array([0, 0, 0, 1]), np.array([3.0, 2.0, 1.0, 0.0]), ["normal"] * 3 + ["a"])
    assert found["at_oracle_threshold"]["threshold"] == "inf"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    with pytest.raises(metrics.MetricError, match="1 of 2 scores"):
        metrics.evaluate(np.array([0, 1]), np.array([0.0, value]), ["normal", "a"])


@pytest.mark.parametrize(("label", "word"), [(0, "normal"), (1, "anomalous")])
def test_one_class_is_refused(label, word):
    with pytest.raises(metrics.MetricError, match=f"All 3 of .* are {word}"):
        metrics.evaluate(np.full(3, label), np.arange(3.0), ["x"] * 3)


def test_of_one_class_there_is_the_rate_that_the_threshold_gets_right():
    scores = np.array([0.0, 1.0, 2.0, 3.0])
    assert metrics.evaluate_one_class(np.zeros(4), scores) == {}
    normal, anomalous = (metrics.evaluate_one_class(np.full(4, label), scores, 1.0) for label in (0, 1))
    assert normal == {"at_val_threshold": {"threshold": 1.0, "specificity": 0.25}}
    assert anomalous == {"at_val_threshold": {"threshold": 1.0, "recall": 0.75}}
    with pytest.raises(metrics.MetricError, match="1 of 4 scores"):
        metrics.evaluate_one_class(np.zeros(4), np.array([0, 1, 2, np.nan]))
