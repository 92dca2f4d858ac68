"""Metrics as pure functions of scores and labels. Scores rank: higher = more anomalous; labels: 1 = anomalous.

All figures are fractions in [0, 1]. A threshold calls an image anomalous when its score is at or above it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

RESAMPLES = 2000  # of a bootstrap
LEVEL = 0.95  # of its interval


class MetricError(Exception):
    """Scores or labels from which a metric cannot be computed."""


def require_finite(scores: np.ndarray, what: str) -> None:
    """Raise MetricError where a score is NaN or infinite."""
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise MetricError(
            f"{bad} of {len(scores)} scores of {what} are not finite: the weights are damaged or training diverged. "
            "Take the other checkpoint (--checkpoint best|last) or train anew."
        )


def check(labels: np.ndarray, scores: np.ndarray, what: str) -> None:
    """Raise MetricError for scores that are not finite, or labels of one class only."""
    require_finite(scores, what)
    if len(np.unique(labels)) != 2:
        only = "anomalous" if len(labels) and labels[0] else "normal"
        raise MetricError(
            f"All {len(labels)} of {what} are {only}: AUC and thresholds need normal and anomalous images. "
            "Add the missing class, or score the files with predict.py, which needs no labels."
        )


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve."""
    return float(roc_auc_score(labels, scores))


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision (the step-wise area under the precision–recall curve)."""
    return float(average_precision_score(labels, scores))


def auc_interval(labels: np.ndarray, scores: np.ndarray, persons: Sequence[str] | None = None) -> list[float]:
    """Percentile bootstrap interval of the AUC, each class resampled on its own (fixed seed): [low, high].

    ``persons`` (N,) says whose each image is: persons are drawn with all their images, since images of one person are
    alike, those who have images of both classes on their own. None takes every image for a person's own.
    """
    normal, anomalous = (np.flatnonzero(labels == label) for label in (0, 1))
    normal = normal[np.argsort(scores[normal])]
    left, right = (np.searchsorted(scores[normal], scores[anomalous], side) for side in ("left", "right"))
    values = np.empty(RESAMPLES)
    for i, times in enumerate(draws(labels, persons, RESAMPLES, seed=0)):
        times_normal, times_anomalous = times[normal], times[anomalous]
        below = np.append(0, times_normal.cumsum())
        # of the pairs, those in order; ties count half
        in_order = times_anomalous @ (below[left] + below[right]) / 2
        values[i] = in_order / (times_normal.sum() * times_anomalous.sum())
    return interval(values)


def interval(values: np.ndarray) -> list[float]:
    """Percentile interval of a figure that was computed on every bootstrap sample, (S,): [low, high]."""
    tail = (1 - LEVEL) / 2
    return [float(v) for v in np.quantile(values, [tail, 1 - tail])]


def draws(labels: np.ndarray, persons: Sequence[str] | None, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap samples: how often each image is drawn, (N,) integers; ``persons`` as for :func:`auc_interval`."""
    rng = np.random.default_rng(seed)
    strata = by_classes_of_person(labels, persons)
    for _ in range(samples):
        times = np.empty(len(labels), dtype=int)
        for index, person in strata:
            count = person.max() + 1  # as many persons are drawn as there are
            times[index] = np.bincount(rng.integers(count, size=count), minlength=count)[person]
        yield times


def by_classes_of_person(labels: np.ndarray, persons: Sequence[str] | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """The images of persons who have normal ones alone, anomalous ones alone, and both, as far as there are any: their
    indices, and whose they are as numbers from 0.
    """
    person = numbered(persons, len(labels))
    has = [np.bincount(person[labels == label], minlength=len(labels))[person] > 0 for label in (0, 1)]
    strata = (has[0] & ~has[1], has[1] & ~has[0], has[0] & has[1])
    return [(np.flatnonzero(of), numbered(person[of])) for of in strata if of.any()]


def numbered(persons: Sequence[str] | np.ndarray | None, count: int = 0) -> np.ndarray:
    """Persons as numbers from 0, in the order in which they first appear; of None ``count`` different ones."""
    if persons is None:
        return np.arange(count)
    number = {person: i for i, person in enumerate(dict.fromkeys(persons))}
    return np.array([number[person] for person in persons])


def chi2_distance(labels: np.ndarray, scores: np.ndarray, bins: int = 100) -> float:
    """χ² distance of the densities a, b of normal and anomalous scores, both scaled to [0, 1] by their extremes.

    ½ Σ ((a − b)² + 1e-15) / (a + b + 1e-15), as DDAD's program shows it on its histograms.
    """
    span = scores.max() - scores.min()
    scaled = (scores - scores.min()) / span if span else np.zeros_like(scores)
    a, b = (np.histogram(scaled[labels == label], bins, (0, 1), density=True)[0] for label in (0, 1))
    return float(0.5 * (((a - b) ** 2 + 1e-15) / (a + b + 1e-15)).sum())


def oracle_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the highest accuracy on these very labels, as the papers choose it on the test set.

    Candidates are +inf and the distinct scores descending; of equals the first.
    """
    fpr, tpr, candidates = roc_curve(labels, scores, drop_intermediate=False)
    anomalous = labels.sum()
    correct = np.rint(tpr * anomalous - fpr * (len(labels) - anomalous))  # less all normal images, which is constant
    return float(candidates[correct.argmax()])


def sensitivity_at(specificity: float, labels: np.ndarray, scores: np.ndarray) -> float:
    """The highest sensitivity at a specificity of at least this, both of these very images: an oracle's, too."""
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[fpr <= round(1 - specificity, 9)].max())


def at_threshold(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Accuracy, F1, recall, precision and specificity; an empty denominator gives 0."""
    called, anomalous = scores >= threshold, labels == 1
    tp, fp = int((called & anomalous).sum()), int((called & ~anomalous).sum())
    fn, tn = int((~called & anomalous).sum()), int((~called & ~anomalous).sum())

    def share(part: int, whole: int) -> float:
        return part / whole if whole else 0.0

    return {
        "accuracy": share(tp + tn, len(labels)),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "recall": share(tp, tp + fn),
        "precision": share(tp, tp + fp),
        "specificity": share(tn, tn + fp),
    }


def evaluate(
    labels: np.ndarray,
    scores: np.ndarray,
    kinds: list[str],
    val_threshold: float | None = None,
    persons: Sequence[str] | None = None,
) -> dict[str, object]:
    """Everything results.json says of one image score; ``persons`` as for :func:`auc_interval`. Raises MetricError."""
    check(labels, scores, "the evaluated images")
    threshold = oracle_threshold(labels, scores)
    result: dict[str, object] = {
        "auc": auc(labels, scores),
        "auc_ci95": auc_interval(labels, scores, persons),
        "average_precision": average_precision(labels, scores),
        "chi2_distance": chi2_distance(labels, scores),
        "sensitivity_at_95_specificity": sensitivity_at(0.95, labels, scores),
        "at_oracle_threshold": {"threshold": plain(threshold), **at_threshold(labels, scores, threshold)},
    }
    if val_threshold is not None:
        figures = at_threshold(labels, scores, val_threshold)
        result["at_val_threshold"] = {"threshold": plain(val_threshold), **figures}
    kind_of = np.array(kinds)
    result["per_kind"] = {
        kind: {"auc": auc(labels[of_kind], scores[of_kind]), "images": int((kind_of == kind).sum())}
        for kind in sorted(set(kind_of[labels == 1]))
        for of_kind in [(labels == 0) | (kind_of == kind)]
    }
    return result


def existing(labels: np.ndarray, figures: dict[str, float]) -> dict[str, float]:
    """The figures at a threshold that there are: all of two classes, of one alone the rate that it gets right."""
    if len(np.unique(labels)) == 2:
        return figures
    rate = "recall" if labels.any() else "specificity"
    return {rate: figures[rate]}


def evaluate_one_class(labels: np.ndarray, scores: np.ndarray, val_threshold: float | None = None) -> dict[str, object]:
    """What results.json says of one image score where all images are of one class: the rate that validation's
    threshold, where there is one, gets right. AUC, average precision and oracle threshold do not exist.

    Raises:
        MetricError: for scores that are not finite.
    """
    require_finite(scores, "the evaluated images")
    if val_threshold is None:
        return {}
    figures = existing(labels, at_threshold(labels, scores, val_threshold))
    return {"at_val_threshold": {"threshold": plain(val_threshold), **figures}}


def spread(labels: np.ndarray, scores: list[np.ndarray]) -> dict[str, object]:
    """AUC and average precision of each of several scores, and their mean and standard deviation (n − 1)."""
    found: dict[str, object] = {}
    for name, metric in (("auc", auc), ("average_precision", average_precision)):
        values = [metric(labels, each) for each in scores]
        found |= {name: values, f"{name}_mean": float(np.mean(values)), f"{name}_std": float(np.std(values, ddof=1))}
    return found


def plain(threshold: float) -> float | str:
    """A threshold as results.json has it."""
    return threshold if np.isfinite(threshold) else "inf"  # JSON has no infinity
