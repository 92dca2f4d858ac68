"""Differences between experiments: DeLong's test, the paired bootstrap, seeds, Holm, and the command around them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_ind, ttest_rel
from tiny import command

import configs
from evaluation import comparison, metrics
from evaluation.tables import table_text
from experiments.folder import Experiment
from tools import compare


def made(count=100, seed=0, gains=(1.0, 1.0), noise=0.5):
    """Labels (2 count,) in mixed order, and scores (len(gains), 2 count) that share most of their chance, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], count))
    shared = rng.normal(size=2 * count)
    return labels, np.array([gain * labels + shared + rng.normal(0, noise, 2 * count) for gain in gains]).round(2)


def with_persons(labels, scores, seed=0):
    """Every image one to three times, as a person's: labels, scores, persons."""
    times = np.random.default_rng(seed).integers(1, 4, len(labels))
    return labels.repeat(times), scores.repeat(times, axis=1), np.arange(len(labels)).repeat(times).tolist()


# -- DeLong's test ----------------------------------------------------------------------------------------------------


def test_the_variance_of_an_auc_is_worked_out_by_hand():
    labels, scores = np.array([0, 1, 0, 1, 0]), np.array([1.0, 2.0, 2.0, 4.0, 3.0])
    # the anomalous 2 is above 1, ties with 2, is below 3: (1 + ½ + 0) / 3; the anomalous 4 is above all
    # the normal 1 is below both; 2 ties with one and is below the other; 3 is below one of the two
    placed = comparison.placements(labels, scores)
    assert placed.tolist() == [1, 0.5, 0.75, 1, 0.5] and placed[labels == 1].mean() == metrics.auc(labels, scores)
    # anomalous: deviations ± ¼ from ¾; normal: ¼, 0, −¼
    anomalous, normal = (2 / 16) / (2 - 1), (2 / 16) / (3 - 1)
    assert comparison.variance(labels, placed) == pytest.approx(anomalous / 2 + normal / 3)


def test_delongs_test_is_that_of_the_definition():
    labels, scores = made(12, gains=(1.5, 0.5))
    scores = scores.round(0)  # many ties
    of_anomalous, of_normal = [], []
    for each in scores:
        pairs = np.zeros((12, 12))
        for i, x in enumerate(each[labels == 1]):
            for j, y in enumerate(each[labels == 0]):
                pairs[i, j] = 1 if y < x else 0.5 if y == x else 0
        of_anomalous.append(pairs.mean(1))
        of_normal.append(pairs.mean(0))
    covariance = np.cov(of_anomalous) / 12 + np.cov(of_normal) / 12
    difference = np.mean(of_anomalous[0]) - np.mean(of_anomalous[1])
    z = difference / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert difference > 0 and comparison.delong(labels, *scores) == pytest.approx(2 * (1 - norm.cdf(z)))
    assert comparison.delong(labels, *scores[::-1]) == comparison.delong(labels, *scores)


@pytest.mark.parametrize("by_person", [False, True])
def test_delongs_standard_errors_are_the_bootstraps(by_person):
    labels, scores = made(150, gains=(1.2, 0.8))
    persons = None
    if by_person:
        labels, scores, persons = with_persons(labels, scores)
        scores = scores + np.random.default_rng(1).normal(0, 0.5, scores.shape)  # alike, not the same
    found = comparison.resampled(labels, scores, persons, 1000, seed=0)["AUC"]
    placed = [comparison.placements(labels, each) for each in scores]
    for values, of in ((found[0], placed[0]), (found[0] - found[1], placed[0] - placed[1])):
        assert values.std(ddof=1) == pytest.approx(np.sqrt(comparison.variance(labels, of, persons)), rel=0.1)


def test_where_delongs_test_says_nothing():
    labels = np.array([0, 0, 1])
    assert comparison.delong(labels, np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) is None  # one anomalous image
    labels, persons = np.array([0, 0, 1, 1]), ["p", "p", "q", "r"]
    assert comparison.delong(labels, np.array([1.0, 2, 3, 0]), np.array([1.0, 3, 2, 4]), persons) is None
    # the one separates all, the other all the wrong way round
    assert comparison.delong(labels, np.arange(4.0), -np.arange(4.0)) is None


# -- bootstrap --------------------------------------------------------------------------------------------------------


def test_a_samples_figures_are_those_of_the_images_repeated():
    labels, (scores, _) = made(20)
    scores = scores.round(0)  # many ties
    for times in metrics.draws(labels, None, 20, seed=0):
        repeated = labels.repeat(times), scores.repeat(times)
        expected = metrics.auc(*repeated), metrics.average_precision(*repeated)
        assert comparison.Ranking(labels, scores).figures(times) == pytest.approx(expected, abs=1e-12)


def test_samples_are_those_of_the_evaluations_interval():
    labels, scores, persons = with_persons(*made(20))
    found = comparison.resampled(labels, scores, persons, metrics.RESAMPLES, seed=0)["AUC"]
    for values, each in zip(found, scores, strict=True):
        assert metrics.interval(values) == metrics.auc_interval(labels, each, persons)


def differences(labels, scores, persons=None, figure="AUC", samples=500):
    first, second = comparison.resampled(labels, scores, persons, samples, seed=0)[figure]
    return first - second


def width(values):
    low, high = metrics.interval(values)
    return high - low


@pytest.mark.parametrize("figure", comparison.FIGURES)
def test_identical_scores_do_not_differ(figure):
    labels, (scores, _) = made()
    found = differences(labels, np.array([scores, 3 * scores - 1]), figure=figure)  # of the same order
    assert not found.any() and comparison.p_value(found) == 1 and comparison.delong(labels, scores, scores) == 1


@pytest.mark.parametrize("figure", comparison.FIGURES)
def test_a_clear_difference_is_significant(figure):
    labels, scores = made(gains=(2.0, 0.5))
    found = differences(labels, scores, figure=figure)
    assert metrics.interval(found)[0] > 0 and comparison.p_value(found) == pytest.approx(2 / 501)
    assert comparison.delong(labels, *scores) < 1e-6


def test_p_is_twice_the_rarer_side():
    # 2 of 9 are at or below 0, 8 at or above
    assert comparison.p_value(np.array([-1, 0, 1, 1, 1, 2, 2, 2, 3.0])) == pytest.approx(2 * (2 + 1) / (9 + 1))
    assert comparison.p_value(np.array([-1, 1.0])) == 1


def test_p_is_below_5_percent_no_more_often_than_that_by_chance():
    p = [comparison.p_value(differences(*made(20, seed), samples=100)) for seed in range(100)]
    assert 0 < np.mean(np.array(p) < 0.05) < 0.12
    p = [comparison.delong(labels, *scores) for labels, scores in (made(40, seed) for seed in range(300))]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.08


def test_what_scores_share_does_not_widen_their_difference():
    labels, scores = made(noise=0.2)
    first, second = (comparison.resampled(labels, scores, None, 500, seed)["AUC"] for seed in (0, 1))
    apart = first[0] - second[1]  # on other samples
    assert 3 * width(differences(labels, scores)) < width(apart)
    one, other = (comparison.variance(labels, comparison.placements(labels, each)) for each in scores)
    placed = comparison.placements(labels, scores[0]) - comparison.placements(labels, scores[1])
    assert 9 * comparison.variance(labels, placed) < one + other


def test_copies_of_a_persons_images_tell_nothing_new():
    labels, scores = made(gains=(1.2, 0.8))
    doubled = labels.repeat(2), scores.repeat(2, axis=1)
    persons = np.arange(len(labels)).repeat(2).tolist()
    assert differences(*doubled, persons) == pytest.approx(differences(labels, scores))
    assert comparison.delong(doubled[0], *doubled[1], persons) == pytest.approx(comparison.delong(labels, *scores))
    assert width(differences(*doubled, persons)) > 1.2 * width(differences(*doubled))
    assert comparison.delong(doubled[0], *doubled[1]) < comparison.delong(labels, *scores)


def test_persons_with_images_of_both_classes_are_one():
    """By Obuchowski's definition, and as the bootstrap of persons has it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    persons = np.sort(rng.integers(0, 60, 300))  # five images each, of any class
    scores = labels + 2 * rng.normal(size=60)[persons] + rng.normal(size=300)
    placed = comparison.placements(labels, scores)
    auc, n, m = placed[labels == 1].mean(), (labels == 0).sum(), (labels == 1).sum()
    normal, anomalous = (
        [sum(placed[i] - auc for i in range(300) if persons[i] == whose and labels[i] == label) for whose in range(60)]
        for label in (0, 1)
    )
    having = [len(set(persons[labels == label])) for label in (0, 1)]
    assert len(set(persons)) == 60 > min(having)
    expected = sum(s * s for s in anomalous) * having[1] / (having[1] - 1) / m**2
    expected += sum(s * s for s in normal) * having[0] / (having[0] - 1) / n**2
    expected += 2 / (m * n) * 60 / 59 * sum(a * b for a, b in zip(anomalous, normal, strict=True))
    found = comparison.variance(labels, placed, persons.tolist())
    assert found == pytest.approx(expected)
    drawn = comparison.resampled(labels, scores[None], persons.tolist(), 2000, seed=0)["AUC"][0]
    assert drawn.var() == pytest.approx(found, rel=0.15)
    as_two = (persons + 60 * labels).tolist()
    assert comparison.variance(labels, placed, as_two) > 1.3 * found


def test_seeds_and_images_add_up_as_welch_and_satterthwaite_say():
    first, second = np.array([0.90, 0.92, 0.94]), np.array([0.80, 0.84, 0.88, 0.84])
    # variances 0.0004 and 0.0032 / 3, of the means 0.0004 / 3 and 0.0008 / 3; with 0.0001 by the images 0.0005
    freedom = 0.0005**2 / ((0.0004 / 3) ** 2 / 2 + (0.0008 / 3) ** 2 / 3)
    p, half = comparison.welch(0.08, 0.0001, [first, second])
    assert p == pytest.approx(2 * t.sf(0.08 / 0.0005**0.5, freedom))
    assert half == pytest.approx(t.ppf(0.975, freedom) * 0.0005**0.5)
    # without any chance in the images it is Welch's test; of paired seeds Student's
    assert comparison.welch(0.08, 0, [first, second])[0] == pytest.approx(ttest_ind(first, second, equal_var=False)[1])
    assert comparison.welch(0.08, 0, [first - second[:3]])[0] == pytest.approx(ttest_rel(first, second[:3])[1])
    # one sample, of variance 0.0004 / 3, beside 0.0001 by the images: critical values weighted 4 to 3
    p, half = comparison.welch(0.08, 0.0001, [first])
    error = (0.0007 / 3) ** 0.5
    assert half == pytest.approx(error * (4 * t.ppf(0.975, 2) + 3 * norm.ppf(0.975)) / 7)
    assert 0.08 / error == pytest.approx((4 * t.isf(p / 2, 2) + 3 * norm.isf(p / 2)) / 7)
    assert comparison.welch(0.0, 0.0001, [first])[0] == 1
    assert comparison.welch(1.0, 0.0001, [np.full(3, 0.9)])[0] == comparison.LEAST_P  # 100 standard errors
    # of single seeds it is the images' alone
    assert comparison.welch(0.0196, 0.0001, [first[:1], second[:1]])[0] == pytest.approx(0.05, abs=1e-4)
    assert comparison.welch(0.0, 0.0, []) == (1, 0) and comparison.welch(0.1, 0.0, []) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    "spread", [0.1, 0.3, 0.6]
)  # of the gains: the seeds vary half to over three times as images do
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_seldom_make_equal_configurations_differ(seeds, spread, paired):
    rng = np.random.default_rng(seeds)
    labels, by_bootstrap, by_delong = np.repeat([0, 1], 60), [], []
    for _ in range(300):
        shared = rng.normal(size=120)
        gains = rng.normal(1, spread, 2 * seeds)
        scores = np.array([gain * labels + shared + rng.normal(0, 0.5, 120) for gain in gains])
        drawn = comparison.resampled(labels, scores, None, 100, seed=0)["AUC"]
        aucs = np.split(np.array([metrics.auc(labels, each) for each in scores]), 2)
        images = (drawn[:seeds].mean(0) - drawn[seeds:].mean(0)).var(ddof=1)
        samples = [aucs[0] - aucs[1]] if paired else aucs
        by_bootstrap.append(comparison.welch(aucs[0].mean() - aucs[1].mean(), images, samples)[0])
        by_delong.append(comparison.delong(labels, scores[:seeds], scores[seeds:], None, samples))
    for p in (by_bootstrap, by_delong):
        assert np.mean(np.array(p) < 0.05) < 0.08


def test_delongs_variance_over_seeds_is_the_bootstraps():
    labels, scores = made(200, gains=(1.0, 1.2, 0.8, 0.9, 0.7, 1.1))
    placed = np.mean([comparison.placements(labels, each) for each in scores[:3]], axis=0)
    placed -= np.mean([comparison.placements(labels, each) for each in scores[3:]], axis=0)
    drawn = comparison.resampled(labels, scores, None, 2000, seed=0)["AUC"]
    spread = (drawn[:3].mean(0) - drawn[3:].mean(0)).var()
    assert comparison.variance(labels, placed) == pytest.approx(spread, rel=0.1)
    auc = [metrics.auc(labels, each) for each in scores]
    z = abs(np.mean(auc[:3]) - np.mean(auc[3:])) / np.sqrt(comparison.variance(labels, placed))
    assert comparison.delong(labels, scores[:3], scores[3:]) == pytest.approx(2 * norm.sf(z))


def test_holms_correction_is_worked_out_by_hand():
    # 0.01 · 3; 0.03 · 2; 0.04 · 1 is less than that, so 0.06 again
    assert comparison.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert comparison.holm([0.6, 0.5]) == [1, 1] and comparison.holm([0.04]) == [0.04] and comparison.holm([]) == []


# -- the command ------------------------------------------------------------------------------------------------------


def evaluated(name, labels, scores, persons=None, order=None, **changes):
    """An experiment as far as the command reads it; the first score is the main one."""
    folder = Path("checkpoints") / name
    folder.mkdir(parents=True)
    scores = scores if isinstance(scores, dict) else {"distance": scores}
    columns = {"id": [f"test/{i}.png" for i in range(len(labels))], "label": labels}
    columns |= {"person": persons} if persons is not None else {}
    order = np.arange(len(labels)) if order is None else order
    columns = {key: np.array(values)[order] for key, values in (columns | scores).items()}
    (folder / "scores.csv").write_text(table_text(columns))
    common = {"auc_ci95": [0.0, 1.0], "average_precision": 0.5, "per_kind": {}}
    one_class = len(set(labels.tolist())) == 1
    figures = {
        score: common | {"auc": 0.5 if one_class or not np.isfinite(of).all() else metrics.auc(labels, of)}
        for score, of in scores.items()
    }
    results = {
        "experiment": name, "dataset": "zhang", "data": "d", "config": "padim", "settings": [], "split": "test",
        "seed": 0, "epochs_trained": 1, "trained": [], "main_score": next(iter(scores)), "interval": {"by": "image"},
        "classes": {"normal": int((labels == 0).sum()), "anomalous": int((labels == 1).sum())},
        "scores": figures,
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results | changes))
    return folder


def run(*arguments):
    return command("compare", *arguments, module=compare)


def compared(*arguments):
    """The rows: (first, second, figure) → row."""
    assert run(*arguments, "--samples", 200, "--out", "out.json") == 0
    return {
        (row["first"], row["second"], row["figure"]): row for row in json.loads(Path("out.json").read_text())
    }  # fmt: skip


def test_other_files_of_the_same_names_are_noted(workspace, capsys):
    labels, scores = made(gains=(2.0, 0.5, 0.5))
    for name, data_set in (("a", "x"), ("b", "y"), ("c", "x")):
        evaluated(name, labels, scores[0] if name == "a" else scores[1], data_set=data_set)
    for other, noted in (("b", True), ("c", False)):
        assert run("a", other, "--samples", 20) == 0
        assert ("their files, or others of the dataset, differ" in capsys.readouterr().err) == noted


def test_experiments_are_compared_on_the_screen_and_in_files(workspace, capsys):
    labels, scores = made(seed=3, gains=(2.0, 0.5, 0.5))
    for name, each in zip("abc", scores, strict=True):
        evaluated(name, labels, each)
    rows = compared("a", "b", "c")
    printed = capsys.readouterr().out
    assert list(rows) == [(*pair, figure) for pair in ("ab", "ac", "bc") for figure in ("AUC", "AP")]
    row = rows["a", "b", "AUC"]
    auc = [metrics.auc(labels, each) for each in scores]
    assert (row["first_value"], row["second_value"], row["difference"]) == (*auc[:2], auc[0] - auc[1])
    assert rows["a", "b", "AP"]["second_value"] == metrics.average_precision(labels, scores[1])
    assert row["low"] < row["difference"] < row["high"] and row["low_of_these_seeds"] is None
    assert row["p"] == pytest.approx(2 / 201) and row["p_holm"] == pytest.approx(3 * 2 / 201) and row["significant"]
    assert row["delong_p"] == comparison.delong(labels, *scores[:2]) < row["delong_p_holm"]
    assert not rows["b", "c", "AUC"]["significant"] and rows["b", "c", "AP"]["delong_p"] is None
    assert "| a − b      | AUC |" in printed and "| significant: a is higher |" in printed
    assert "| not significant          |" in printed and "Significant at 5 %: 4 of 6." in printed
    assert "corrected by Holm for 3 pairs" in printed and "100 normal, 100 anomalous images, seed 0" in printed
    assert "of these seeds" not in printed and "take images for independent" in printed
    assert "Each is one training" in printed

    assert run("a", "b", "c", "--samples", 200, "--out", "out.md") == 0
    command, _, text = Path("out.md").read_text().partition("\n\n")
    assert command.startswith("Written by `python ") and "a b c --samples 200 --out out.md" in command
    assert printed.startswith(text) and "- a: " in text
    assert not Path("results").exists()
    assert run("a", "b", "c", "--samples", 200, "--out", "results/c.md") == 0
    assert 'id="c"' in Path("results/index.html").read_text(encoding="utf-8")
    assert run("a", "b", "c", "--samples", 200, "--out", "out.csv") == 0
    (first, *_) = csv.DictReader(Path("out.csv").read_text().splitlines())
    assert tuple(first) == compare.FIELDS == tuple(row) and float(first["difference"]) == row["difference"]
    before = rows
    assert compared("a", "b", "c") == before and compared("a", "b", "c", "--seed", 1) != before


def test_the_first_alone_with_the_others_is_corrected_for_less(workspace):
    labels, scores = made(gains=(1.2, 1.0, 0.8))
    for name, each in zip("abc", scores, strict=True):
        evaluated(name, labels, each)
    every, few = compared("a", "b", "c"), compared("a", "b", "c", "--first")
    assert list(few) == [key for key in every if key[0] == "a"]
    for key, row in few.items():
        assert row["p"] == every[key]["p"] and row["p_holm"] <= every[key]["p_holm"]
    assert few["a", "c", "AUC"]["p_holm"] < every["a", "c", "AUC"]["p_holm"]


def test_images_in_another_order_are_aligned_by_their_ids(workspace):
    labels, scores = made()
    evaluated("a", labels, scores[0])
    evaluated("b", labels, scores[1])
    evaluated("c", labels, scores[1], order=np.random.default_rng(0).permutation(len(labels)))
    rows = compared("a", "b", "c")
    for figure in comparison.FIGURES:
        one, other = rows["a", "b", figure], rows["a", "c", figure]
        for key in ("second_value", "low", "high", "p", "delong_p"):
            assert one[key] == pytest.approx(other[key])
        assert rows["b", "c", figure]["difference"] == 0 and rows["b", "c", figure]["p"] == 1


def test_persons_are_drawn_where_they_are_known(workspace, capsys):
    labels, scores, persons = with_persons(*made(30))
    names = [f"p{person}" for person in persons]
    evaluated("a", labels, scores[0], names)
    evaluated("b", labels, scores[1], names)
    row = compared("a", "b")["a", "b", "AUC"]
    assert (row["by"], row["independent_normal"], row["anomalous"]) == ("person", 30, int(labels.sum()))
    assert row["delong_p"] == pytest.approx(comparison.delong(labels, *scores, persons))
    first, second = comparison.resampled(labels, scores, persons, 200, seed=0)["AUC"]
    assert [row["low"], row["high"]] == metrics.interval(first - second)
    printed = capsys.readouterr().out
    assert "of 30 normal, 30 anomalous persons" in printed and "Obuchowski" in printed and "Holm" not in printed


def test_another_score_of_all_or_of_one(workspace):
    labels, scores = made(gains=(1.0, 2.0, 0.5))
    evaluated("a", labels, {"discriminator": scores[0], "reconstruction": scores[1]})
    evaluated("b", labels, {"reconstruction": scores[2]})
    auc = [metrics.auc(labels, each) for each in scores]
    for options, name, value in (
        ([], "discriminator", auc[0]),
        (["--score", "reconstruction"], "reconstruction", auc[1]),
        (["--score", "a=discriminator", "--score", "reconstruction"], "discriminator", auc[0]),
    ):
        row = compared("a", "b", *options)["a", "b", "AUC"]
        assert (row["first_score"], row["second_score"]) == (name, "reconstruction")
        assert (row["first_value"], row["second_value"]) == (value, auc[2])
    row = compared("a", "other=a", "--score", "other=reconstruction")["a", "other", "AUC"]
    assert row["difference"] == auc[0] - auc[1]


def test_groups_of_seeds_are_compared_by_their_means(workspace, capsys):
    labels, scores = made(gains=(1.0, 1.5, 0.9, 1.1, 1.0))
    for i, each in enumerate(scores):
        evaluated(f"s{i}", labels, each, seed=i)
    rows = compared("a=s0,s1", "b=s2,s3", "s4")
    printed = capsys.readouterr().out
    row = rows["a", "b", "AUC"]
    auc = [metrics.auc(labels, each) for each in scores]
    assert row["first_value"] == pytest.approx((auc[0] + auc[1]) / 2) and row["first_experiments"] == "s0, s1"
    found = comparison.resampled(labels, scores, None, 200, seed=0)["AUC"]
    of_these = found[:2].mean(0) - found[2:4].mean(0)
    assert [row["low_of_these_seeds"], row["high_of_these_seeds"]] == pytest.approx(metrics.interval(of_these))
    p, half = comparison.welch(row["difference"], of_these.var(ddof=1), [np.array(auc[:2]), np.array(auc[2:4])])
    assert (row["p"], row["low"], row["high"]) == pytest.approx((p, row["difference"] - half, row["difference"] + half))
    assert half > 1.2 * width(of_these)  # the seeds of a are far apart
    assert row["delong_p"] == comparison.delong(
        labels, scores[:2], scores[2:4], None, [np.array(auc[:2]), np.array(auc[2:4])]
    )
    assert rows["a", "s4", "AUC"]["high_of_these_seeds"] is not None
    assert rows["a", "b", "AP"]["delong_p"] is None
    assert "Seeds: a 2, b 2, s4 1." in printed and "| of these seeds" in printed
    assert "What another seed of a single one would give is in neither." in printed
    # one and the same difference whether it is asked for alone or not
    assert compared("a=s0,s1", "b=s2,s3")["a", "b", "AUC"]["low"] == row["low"]


def test_two_scores_of_the_same_trainings_are_compared_training_by_training(workspace):
    labels, scores = made(gains=(0.4, 1.0, 1.6), noise=0.1)
    better = scores + 0.05 * labels  # than the other score of the same training, which differs more from seed to seed
    for i, (each, other) in enumerate(zip(scores, better, strict=True)):
        evaluated(f"s{i}", labels, {"first": each, "second": other}, seed=i)
    row = compared("a=s0,s1,s2", "b=s0,s1,s2", "--score", "a=first", "--score", "b=second")["a", "b", "AUC"]
    of_each = [
        metrics.auc(labels, each) - metrics.auc(labels, other) for each, other in zip(scores, better, strict=True)
    ]
    images = row["high_of_these_seeds"] - row["low_of_these_seeds"]
    half = (row["high"] - row["low"]) / 2
    assert half == pytest.approx(comparison.welch(0, (images / 3.92) ** 2, [np.array(of_each)])[1], rel=0.2)


def test_groups_of_the_same_seeds_are_compared_seed_by_seed_where_that_is_asked_for(workspace, capsys):
    labels, scores = made(gains=(0.4, 1.0, 1.6, 0.5, 1.1, 1.7), noise=0.1)
    for i, each in enumerate(scores):
        evaluated(f"s{i}", labels, each, seed=i % 3)
    groups = ("a=s0,s1,s2", "b=s3,s4,s5")
    paired, apart = (compared(*groups, *more)["a", "b", "AUC"] for more in (["--paired"], []))
    assert "Groups are compared seed by seed." in capsys.readouterr().out
    aucs = np.array([metrics.auc(labels, each) for each in scores])
    found = comparison.resampled(labels, scores, None, 200, seed=0)["AUC"]
    spread = (found[:3].mean(0) - found[3:].mean(0)).var(ddof=1)
    p, half = comparison.welch(paired["difference"], spread, [aucs[:3] - aucs[3:]])
    assert (paired["p"], paired["high"] - paired["low"]) == pytest.approx((p, 2 * half))
    assert paired["p"] < apart["p"]
    assert run(*groups[:1], "b=s4,s3,s5", "--paired") == 1
    assert "--paired: name groups of the same seeds" in capsys.readouterr().err
    assert run(*groups, "--samples", 50) == 1 and "--samples 50: too few" in capsys.readouterr().err


LABELS, SCORES = np.array([0, 0, 1, 1]), np.arange(4.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, 1, 0, 1])}, "test/1.png has label 0 in the one, has label 1 in the other"),
        ({"labels": np.array([0, 0, 1, 1, 1]), "scores": np.arange(5.0)}, "test/4.png is not in the one, has label 1"),
        ({"labels": LABELS[:3], "scores": SCORES[:3]}, "checkpoints/a/scores.csv and checkpoints/b/scores.csv: other"),
        ({"persons": list("pqrs")}, "test/0.png has label 0 in the one, has label 0 and person p in the other"),
        ({"dataset": "brain"}, "of another dataset, zhang and brain"),
        ({"split": "val"}, "of another split, test and val"),
        ({"scores": np.array([0, np.nan, 1, 2])}, "1 of 4 scores of checkpoints/b/scores.csv, distance are not finite"),
        ({"labels": np.ones(4, int)}, "All 4 of checkpoints/b/scores.csv, distance are anomalous"),
    ],
)
def test_what_was_evaluated_on_other_images_is_refused(workspace, capsys, changes, message):
    evaluated("a", LABELS, SCORES)
    evaluated("b", **{"labels": LABELS, "scores": SCORES} | changes)
    assert run("a", "b") == 1
    assert message in capsys.readouterr().err


def test_digits_of_another_source_are_other_images(workspace, capsys):
    for name, source in (("a", "sklearn-1"), ("b", "mnist-1")):
        evaluated(name, LABELS, SCORES, dataset="digit", data=source)
    assert run("a", "b") == 1
    assert "of another source of digits, sklearn-1 and mnist-1" in capsys.readouterr().err


def test_digits_that_were_cropped_otherwise_are_other_images(workspace, capsys):
    for name, settings in (("a", []), ("b", ['digit_crop: "redrawn" → "clamped"'])):
        evaluated(name, LABELS, SCORES, dataset="digit", config="digit_quick", settings=settings)
    assert run("a", "b") == 1
    assert 'of the one alone digit_crop: "redrawn" → "clamped"' in capsys.readouterr().err


def test_seeds_of_a_configuration_that_changed_between_them_are_no_group(workspace, capsys):
    for i, rate in enumerate((0.1, 0.2, 0.1)):
        evaluated(f"s{i}", LABELS, SCORES, seed=i)
        config = configs.build("ae", [f"learning_rate={rate}", f"seed={i}"])
        Experiment(f"s{i}").save_config("ae", config, "d")
    assert run("a=s0,s1", "s2") == 1
    assert "of checkpoints/s0 and checkpoints/s1 differ learning_rate: 0.1 → 0.2" in capsys.readouterr().err
    assert run("a=s0,s2", "s1") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "a: nothing to compare it with"),
        (["a", "a"], "there is a a already"),
        (["a", "again=a"], "checkpoints/a/scores.csv, distance: named more than once"),
        (["a", "none"], "checkpoints/none/results.json: not there. Evaluate it first"),
        (["a", "a/b"], "'a/b'"),
        (["a", "a,b"], "a,b: write an experiment, or several seeds as NAME=EXP,EXP"),
        (["a", "g=b,"], "g=b,: write an experiment"),
        (["a", "=b"], "=b: write an experiment"),
        (["a", "g=b,same"], "g: checkpoints/same has the seed of another, 0"),
        (["a", "g=b,other"], "but settings is [] in checkpoints/b and ['k: 1 → 2'] in checkpoints/other"),
        (["a", "b", "--score", "error"], "checkpoints/a: has no score 'error'. It has distance"),
        (["a", "b", "--score", "c=distance"], "--score c=distance: there is no 'c' among a, b"),
        (["a", "b", "--out", "x.txt"], "--out x.txt: must end in .md, .csv, .json"),
        (["a", "b", "--samples", "0"], "at least 1 sample"),
        (["a", "b", "--seed", "-1"], "a seed of 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(workspace, capsys, arguments, message):
    for name, changes in (("a", {}), ("b", {}), ("same", {}), ("other", {"seed": 1, "settings": ["k: 1 → 2"]})):
        evaluated(name, LABELS, SCORES, **changes)
    assert run(*arguments) == 1
    assert message in capsys.readouterr().err and not Path("x.txt").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not there, or empty"),
        ("id,label,distance\n", "not there, or empty"),
        ("id,label\nx,0\ny,1\n", "damaged, or of another version (KeyError('distance'))"),
        ("id,label,distance\nx,0,1.5\ny,1,\n", "damaged, or of another version"),
        ("id,label,distance\nx,0,1.5\ny", "damaged, or of another version"),
        ("id,label,distance\nx,0,1.5\nx,1,2.5\n", "has 2 lines of 1 images"),
        ("id,label,distance\nx,0,1.5\ny,1,0.5\n", "distance has an AUC of 0.0 % here and of "),
    ],
)
def test_damaged_tables_are_refused(workspace, capsys, text, message):
    evaluated("a", LABELS, SCORES)
    file = evaluated("b", LABELS, SCORES) / "scores.csv"
    file.unlink() if text is None else file.write_text(text)
    assert run("a", "b") == 1
    error = capsys.readouterr().err
    assert f"checkpoints/b/scores.csv: {message}" in error and "python eval.py --exp b" in error


def test_too_few_samples_to_find_anything_are_told(workspace, capsys):
    labels, scores = made(gains=(2.0, 0.5))
    evaluated("a", labels, scores[0])
    evaluated("b", labels, scores[1])
    assert run("a", "b", "--samples", 30) == 0
    printed = capsys.readouterr().out
    assert (
        "With so few samples p of single ones is 0.065 or more" in printed and "Significant at 5 %: 0 of 2." in printed
    )


def test_what_eval_writes_is_compared(trained, workspace, capsys):
    for name, method in (("a", "ae"), ("b", "vae")):
        trained(name, method)
        assert command("eval", "--exp", name, "--device", "cpu") == 0
    rows = compared("a", "b")
    assert "16 normal, 16 anomalous" in capsys.readouterr().out
    for which, name in (("first", "a"), ("second", "b")):
        results = json.loads(Path(f"checkpoints/{name}/results.json").read_text())
        figures = results["scores"][results["main_score"]]
        assert rows["a", "b", "AUC"][f"{which}_value"] == pytest.approx(figures["auc"])
        assert rows["a", "b", "AP"][f"{which}_value"] == pytest.approx(figures["average_precision"])
        assert rows["a", "b", "AP"][f"{which}_score"] == results["main_score"]
