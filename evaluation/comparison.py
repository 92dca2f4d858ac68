"""Whether image scores differ by more than chance: paired bootstrap, DeLong's test, seeds, Holm's correction.

Scores (N,) are of the same images, higher = more anomalous; labels (N,): 1 = anomalous; figures are fractions in
[0, 1]. ``persons`` (N,) says whose each image is, as for :func:`evaluation.metrics.auc_interval`; None takes every
image for a person's own.

B. Efron and R. Tibshirani, *An Introduction to the Bootstrap*, 1993.
E. DeLong, D. DeLong and D. Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
characteristic curves: a nonparametric approach", Biometrics 44, 1988.
X. Sun and W. Xu, "Fast implementation of DeLong's algorithm for comparing the areas under correlated receiver operating
characteristic curves", IEEE Signal Processing Letters 21, 2014.
N. Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 53, 1997.
B. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
Biometrika 34, 1947; F. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
Bulletin 2, 1946; W. Cochran and G. Cox, *Experimental Designs*, 1950.
S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, rankdata, t

from evaluation import metrics

ALPHA = 0.05  # a difference with a smaller p is called significant
LEAST_P = 1e-12  # that is looked for where p has no formula
FIGURES = {"AUC": metrics.auc, "AP": metrics.average_precision}


class Ranking:
    """The images by one score, highest first, so that a sample's figures are a few sums."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray):
        self.order = np.argsort(-scores)
        descending = -scores[self.order]
        # where the images that tie with each begin and end
        self.begin, self.end = (np.searchsorted(descending, descending, side) for side in ("left", "right"))
        self.anomalous = labels[self.order]

    def figures(self, times: np.ndarray) -> tuple[float, float]:
        """AUC and AP of a sample in which each image comes so many times: (N,) integers."""
        times = times[self.order]
        anomalous = times * self.anomalous
        normal = times - anomalous
        above = np.append(0, anomalous.cumsum())  # anomalous images in the first 0 … N places
        upto = above[self.end]
        # of the pairs, those in order; ties count half
        in_order = normal @ (above[self.begin] + upto) / 2
        # what is not drawn counts nothing, although nothing may be above it
        precision = upto / np.maximum(times.cumsum()[self.end - 1], 1)
        return in_order / (normal.sum() * anomalous.sum()), anomalous @ precision / anomalous.sum()


def resampled(
    labels: np.ndarray, scores: np.ndarray, persons: Sequence[str] | None, samples: int, seed: int
) -> dict[str, np.ndarray]:
    """AUC and AP of E scores (E, N) on S bootstrap samples, the same ones for every score: figure → (E, S)."""
    rankings = [Ranking(labels, each) for each in scores]
    found = np.empty((samples, len(scores), len(FIGURES)))
    for of_sample, times in zip(found, metrics.draws(labels, persons, samples, seed), strict=True):
        of_sample[:] = [ranking.figures(times) for ranking in rankings]
    return dict(zip(FIGURES, found.transpose(2, 1, 0), strict=True))


def p_value(differences: np.ndarray) -> float:
    """Two-sided, of a difference on every bootstrap sample, (S,): twice the share on the rarer side of 0.

    Zeros are on both sides. One more sample is counted than was drawn, so that p is 2 / (S + 1) at the least.
    """
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1, 2 * (rarer + 1) / (len(differences) + 1)))


# -- DeLong's test ----------------------------------------------------------------------------------------------------


def placements(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of every image the share of the other class that it is in the right order with, (N,); ties count half.

    These are DeLong's structural components, by Sun and Xu's midranks. Over either class their mean is the AUC.
    """
    found = rankdata(scores)
    for label in (0, 1):
        own = labels == label
        found[own] = (found[own] - rankdata(scores[own])) / (~own).sum()  # the share of the other class below
    found[labels == 0] = 1 - found[labels == 0]
    return found


def variance(labels: np.ndarray, placed: np.ndarray, persons: Sequence[str] | None = None) -> float:
    """DeLong's variance of an AUC from its placements (N,), or of a difference of AUCs from the differences of theirs.

    With persons it is Obuchowski's. NaN where a class has a single person.
    """
    person = metrics.numbered(persons, len(labels))
    total, sums = 0.0, []  # of every person's deviations from the class's mean, over its size
    for own in (labels == 0, labels == 1):
        count = len(np.unique(person[own]))
        if count == 1:
            return float("nan")
        sums.append(np.bincount(person[own], placed[own] - placed[own].mean(), person.max() + 1) / own.sum())
        total += count / (count - 1) * (sums[-1] @ sums[-1])
    count = len(sums[0])
    return float(total + 2 * count / (count - 1) * (sums[0] @ sums[1]))  # of persons with images in both classes


def delong(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    persons: Sequence[str] | None = None,
    seeds: Sequence[np.ndarray] = (),
) -> float | None:
    """Two-sided p of DeLong's test that two scores of the same images, (N,), have the same AUC; of several seeds,
    (K, N), the same mean AUC, where ``seeds`` are as for :func:`welch`.

    None where it says nothing: a class of a single person, or AUCs that differ without any variance.
    """
    # a mean of AUCs is that of the mean placements
    means = [
        np.mean([placements(labels, each) for each in np.atleast_2d(scores)], axis=0) for scores in (first, second)
    ]
    placed = means[0] - means[1]
    difference, spread = placed[labels == 1].mean(), variance(labels, placed, persons)
    if not spread > 0:
        return 1.0 if spread == difference == 0 else None
    return welch(difference, spread, seeds)[0]


# -- several seeds and several questions ------------------------------------------------------------------------------


def welch(difference: float, spread: float, seeds: Sequence[np.ndarray]) -> tuple[float, float]:
    """Two-sided p of a difference of means over seeds, and half the width of its 95 % interval.

    Two chances add up: that in the images, whose variance ``spread`` is of these very trainings, and that in the
    trainings, of which ``seeds`` has a sample (K,) for each mean, or one of the differences where the two are of the
    same trainings; a sample of one seed says nothing of it. A variance of few seeds is a rough guess, for which
    Student's t makes up, with Satterthwaite's degrees of freedom; the images are many. Those are a guess as well, and
    a single sample's too many where its seeds happen to be close: there the critical value is Cochran and Cox's, the
    mean of the images' normal and the seeds' t, weighted by their variances.
    """
    several = [sample for sample in seeds if len(sample) > 1]
    parts = np.array([sample.var(ddof=1) / len(sample) for sample in several])
    freedom = np.array([len(sample) - 1 for sample in several])
    total, uncertain = spread + parts.sum(), (parts**2 / freedom).sum()
    if total == 0:
        return float(difference == 0), 0.0
    error = np.sqrt(total)
    if len(several) == 1:
        seeds_law = t(freedom[0])

        def critical(p: float) -> float:
            return float(spread * norm.isf(p / 2) + parts[0] * seeds_law.isf(p / 2)) / total

        reached = abs(difference) / error
        p = brentq(lambda p: critical(p) - reached, LEAST_P, 1) if reached < critical(LEAST_P) else LEAST_P
        return float(p), float(error * critical(ALPHA))
    law = t(total**2 / uncertain) if uncertain > 0 else norm
    return float(2 * law.sf(abs(difference) / error)), float(error * law.ppf(1 - ALPHA / 2))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p of several questions, in their order: below α, it is significant at α among all of them."""
    p = np.array(p)
    ascending = p.argsort()
    # the least of m is multiplied by m, the next by m − 1 …; none falls below one before it
    corrected = np.maximum.accumulate(p[ascending] * np.arange(len(p), 0, -1))
    found = np.empty(len(p))
    found[ascending] = np.minimum(corrected, 1)
    return found.tolist()
