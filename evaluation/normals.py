"""Thresholds from held-out normal images alone: the conformal p-value of a score among theirs.

Where a normal image is exchangeable with the n held-out ones, the chance that its p-value is at most a rate is at most
that rate, whatever the scores' distribution: the false alarms, over draws of all n + 1 images (Vovk, Gammerman and
Shafer, *Algorithmic Learning in a Random World*, 2005; of anomalies Laxhammar and Falkman, *Conformal prediction for
distribution-independent anomaly detection in streaming vessel data*, 2010). Once the n are drawn, the rate of their
threshold lies about the one that is asked for as Beta(k, n + 1 - k), k being :func:`threshold`'s: of 100 images and 5 %
between 1.6 and 9.9 %, nineteen times in twenty. Of anomalous images it promises nothing.
"""

import json
import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from evaluation import metrics
from experiments.folder import Experiment, ExperimentError
from system.files import write_text

FILE = "normals.json"
FALSE_ALARMS = 0.05  # the rate that is asked for where none is given


def p_values(scores: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(1 + how many of the ``normals`` (n,) score at least as high) / (n + 1) of every score: (N,) in (0, 1]."""
    below = np.searchsorted(np.sort(normals), scores, side="left")
    return (1 + len(normals) - below) / (len(normals) + 1)


def threshold(normals: np.ndarray, false_alarms: float) -> float:
    """The lowest threshold at or above which a p-value among ``normals`` (n,) is at most ``false_alarms``.

    It lies just above the k-th highest of them, k = ⌊false_alarms (n + 1)⌋. Below 1 / false_alarms - 1 normal images
    no score has so low a p-value, and it is infinite.
    """
    n = len(normals)
    k = int((np.arange(1, n + 1) / (n + 1) <= false_alarms).sum())  # divided as p-values are, and so rounded as they
    return float(np.nextafter(np.partition(normals, n - k)[n - k], np.inf)) if k else math.inf


def too_few(count: int, false_alarms: float) -> str:
    """What to say where ``count`` normal images leave the threshold infinite; "" where they do not."""
    needed = math.ceil(round(1 / false_alarms, 9)) - 1
    if count >= needed:
        return ""
    enough = math.ceil(100 / (count + 1)) / 100
    return (
        f"{count} held-out normal images are too few for {100 * false_alarms:g} % false alarms: it takes at least "
        f"{needed}, and nothing is called anomalous. There are enough for --false-alarms {enough:g}."
    )


def figures(labels: np.ndarray, scores: np.ndarray, normals: np.ndarray, false_alarms: float) -> dict[str, object]:
    """What results.json says of one image score at the threshold of ``normals`` (n,), of which none is evaluated.

    The figures of :func:`evaluation.metrics.at_threshold`, of one class alone the one that there is;
    ``false_alarm_rate`` is that of the evaluated normal images, and its 95 % interval Clopper and Pearson's, which
    takes every image for a draw of its own: where persons have several it is too short. It is the interval of the rate
    of this very threshold, and so need not hold the rate that was asked for.
    """
    at = threshold(normals, false_alarms)
    found: dict[str, object] = {
        "threshold": metrics.plain(at), "false_alarms": false_alarms, "normals": len(normals),
        **metrics.existing(labels, metrics.at_threshold(labels, scores, at)),
    }  # fmt: skip
    evaluated = scores[labels == 0]
    if len(evaluated):
        alarms = binomtest(int((evaluated >= at).sum()), len(evaluated))
        interval = alarms.proportion_ci(metrics.LEVEL, method="exact")
        found |= {"false_alarm_rate": alarms.statistic, "false_alarm_rate_ci95": [interval.low, interval.high]}
    return found


@dataclass
class Judged:
    """Scores as they stand among held-out normal images."""

    p_values: np.ndarray  # (N,) in (0, 1]
    anomalous: np.ndarray  # (N,) 0 or 1, at the threshold
    threshold: float
    too_few: str  # as :func:`too_few` says it


def judge(scores: np.ndarray, normals: np.ndarray, false_alarms: float) -> Judged:
    """``scores`` (N,) among ``normals`` (n,)."""
    at, said = threshold(normals, false_alarms), too_few(len(normals), false_alarms)
    return Judged(p_values(scores, normals), (scores >= at).astype(int), at, said)


def write(experiment: Experiment, scores: dict[str, np.ndarray], checkpoint: str, epoch: int, precision: str) -> None:
    """normals.json: image score → those of the held-out normal images (n,), and which weights gave them."""
    content = {
        "checkpoint": checkpoint, "epoch": epoch, "precision": precision,
        "scores": {name: np.sort(values).tolist() for name, values in scores.items()},
    }  # fmt: skip
    write_text(experiment.path(FILE), json.dumps(content) + "\n")


def read(experiment: Experiment, checkpoint: str, epoch: int, precision: str) -> dict[str, np.ndarray] | None:
    """Image score → those of the held-out normal images, (n,) ascending; None where none are there of these weights.

    Raises:
        ExperimentError: where the file is not what eval.py writes.
    """
    path = experiment.path(FILE)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["checkpoint"], content["epoch"], content["precision"]
        scores = {name: np.array(values, dtype=float) for name, values in content["scores"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"{path}: not what eval.py writes ({error!r}). Make it anew: python eval.py --exp {experiment.name}"
        ) from error
    return scores if found == (checkpoint, epoch, precision) else None


def how_to_get(experiment: str, checkpoint: str | None, precision: str | None) -> str:
    """What to do where :func:`read` finds none of the checkpoint and precision that were asked for."""
    of = f" --checkpoint {checkpoint}" * bool(checkpoint) + f" --precision {precision}" * bool(precision)
    return f"python eval.py --exp {experiment}{of} keeps the scores of held-out normal images, where there are any."
