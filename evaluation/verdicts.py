"""What a person is told of scored image files: verdicts, the highest scores, and what makes scores doubtful."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from evaluation import normals
from evaluation.files import ScoredFiles
from evaluation.pictures import printable

LISTED = 10  # images on the screen
NONE = (
    "None is called anomalous or normal. A threshold comes with --checkpoint best of a training with anomalous "
    "validation images, or from held-out normal images, whose scores eval.py keeps."
)


class Verdicts:
    """Whether N images are anomalous, by each threshold that there is.

    Args:
        scores: the main score's (N,), higher = more anomalous.
        shown: the same as people read them, (N,).
        name: of the main score.
    """

    def __init__(self, scores: np.ndarray, shown: np.ndarray, name: str):
        self.scores, self.shown, self.name = scores, shown, name
        self.columns: dict[str, np.ndarray] = {}  # for the table
        self.called: dict[str, np.ndarray] = {}  # how → (N,) 0 or 1
        self.said: dict[str, str] = {}  # how → at which threshold
        self.notes: list[str] = []

    def by_validation(self, threshold: float) -> None:
        """At the threshold that anomalous validation images chose."""
        anomalous = (self.scores >= threshold).astype(int)
        self.columns["anomalous_at_val_threshold"] = anomalous
        self._call("by the threshold chosen on validation", threshold, anomalous)

    def by_normals(self, held_out: np.ndarray, false_alarms: float) -> None:
        """Among the scores of held-out normal images (n,)."""
        judged = normals.judge(self.scores, held_out, false_alarms)
        self.columns["p_value"] = judged.p_values
        if judged.too_few:  # to call them all normal would say more than is known
            self.notes.append(judged.too_few)
        else:
            self.columns["anomalous_at_normals_threshold"] = judged.anomalous
            self._call(f"at {100 * false_alarms:g} % false alarms", judged.threshold, judged.anomalous)

    def _call(self, how: str, threshold: float, anomalous: np.ndarray) -> None:
        self.called[how] = anomalous
        self.said[how] = f"{anomalous.sum()} of them are called anomalous {how}: {self.name} ≥ {threshold:.4g}"

    def of(self, i: int) -> list[str]:
        """What to write over the picture of the i-th image."""
        lines = [f"{self.name} {self.shown[i]:.4g}"]
        lines += [f"{word(anomalous[i])} {how}" for how, anomalous in self.called.items()]
        return lines + ([f"p = {self.columns['p_value'][i]:.3g}"] if "p_value" in self.columns else [])

    def summary(self) -> list[str]:
        """How many are called anomalous, or why none is, where no note says so."""
        return list(self.said.values()) or ([] if self.notes else [NONE])

    def highest(self, paths: Sequence[Path]) -> list[str]:
        """The files of the highest scores with the first verdict, as lines for the screen."""
        order = np.argsort(-self.scores, kind="stable")[:LISTED]
        columns = {"score": [f"{self.shown[i]:.4g}" for i in order]}
        if "p_value" in self.columns:
            columns["p"] = [f"{self.columns['p_value'][i]:.3g}" for i in order]
        for how, anomalous in list(self.called.items())[:1]:
            columns[how] = [word(anomalous[i]) for i in order]
        columns["path"] = [printable(paths[i]) for i in order]
        widths = [max(map(len, (title, *cells))) for title, cells in columns.items()]
        rows = [list(columns), *zip(*columns.values(), strict=True)]
        padded = ([f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows)
        lines = ["  ".join(row).rstrip() for row in padded]
        return [f"The {len(order)} highest scores:", *lines]


def word(anomalous: int) -> str:
    return "anomalous" if anomalous else "normal"


def doubts(found: ScoredFiles, side: int) -> Iterator[str]:
    """A line for each thing that makes scores doubtful; ``side`` is that of the networks' images, in pixels."""
    reasons = (
        (found.small, f"have a side below half of the {side} pixels that the networks see: enlarged, without detail"),
        (found.unlike, "look unlike the training images, by gray levels or layout: their scores may mean nothing"),
    )
    for doubtful, why in reasons:
        if doubtful.any():
            first = printable(found.paths[int(doubtful.argmax())])
            yield f"{doubtful.sum()} of {len(doubtful)} images {why}. The first: {first}"
