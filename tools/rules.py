"""Which epoch's weights to keep: every rule for the checkpoint, side by side, from one training.

    python tools/rules.py --exp ID [ID ...] [--figure FILE]

The experiments are trained with --set record_scores=true, and average_decay for the averaged weights' rules: every
epoch's scores of the validation and test images lie in their epochs/. Rules, of every score:

    last            the last epoch
    labelled        the highest AUC on validation, which takes labelled anomalous images (SimSID's rule)
    tolerant        the last epoch within best_tolerance points of the highest AUC before it (SQUID's program's rule)
    least error     the least mean reconstruction error of validation's normal images
    agreement       the epoch whose ranking of validation's images, unlabelled, agrees most with all other epochs' (mean
                    Spearman correlation): model centrality, in Ma et al., "The need for unsupervised outlier model
                    selection", SIGKDD Explorations 2023, with another correlation
    mean of 10      no epoch: the mean of the last ten epochs' scores of every image

Tables go to the screen and to results/rules.md, all figures to results/rules.csv (rows are replaced by experiment id).
FILE shows, of the main score, the validation and test AUC that training would have ended with after each epoch, a line
per seed: of one configuration by every rule, of several by the last epoch.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands import cli
from evaluation import metrics
from evaluation.plots import save
from experiments.folder import Experiment, ExperimentError
from experiments.log import run_parts
from experiments.settings import changed_settings
from methods import METHODS
from system.files import write_text
from tools import results_page
from tools.paper_figure import COLOURS
from tools.results import RESULTS, markdown, percent, read_rows, replace_rows

FEW = 10  # epochs at the end: whose scores are averaged, and over which the AUC's steadiness is measured
WEIGHTS = {"": "trained", "_averaged": "averaged"}  # what is appended to a score's name → whose scores these are
TEXT = ("split", "id", "label", "person")  # a recorded table's columns that are no scores
SPLITS = {"val": "validation", "test": "test"}
NO_EPOCH = f"mean of {FEW}"
DEVIATION = {"val": "val_deviation_points", "test": "deviation_points"}  # split → its column
FIELDS = (
    "experiment", "config", "dataset", "data", "settings", "seed", "score", "main", "epochs_trained", "trained_commit",
    "weights", "rule", "epoch", "val_auc", "test_auc", "test_auc_low", "test_auc_high", "interval_by", "gap_points",
    "val_deviation_points", "deviation_points", "val_auc_per_epoch", "test_auc_per_epoch",
)  # fmt: skip
NOTES = f"""# Rules for the checkpoint

Written by `tools/rules.py` from rules.csv. Its help says what each rule is; nothing but the table itself looks at test
images or their labels.

- *weights*: those that training ends an epoch with, or their exponential moving average (`average_decay`).
- *gap*: the AUC on validation less that on test, in percentage points.
- *sd, last {FEW}*: how much the figure hangs on the epoch at which training stops: the standard deviation (n − 1), in
  points, of the rule's AUC on validation and on test over the last {FEW} recorded epochs, had training stopped after
  each; of *{NO_EPOCH}* over those that are a mean of {FEW}. Of several seeds the mean; – where it is not known.
- Several seeds: mean ± standard deviation over the seeds (n − 1)."""


class Recorded(NamedTuple):
    """A split's images, and what E epochs' weights say of them."""

    labels: np.ndarray  # (N,)
    persons: list[str] | None  # of each image
    scores: dict[str, np.ndarray]  # name → (E, N)

    def auc(self, score: str) -> np.ndarray:
        """(E,)"""
        return np.array([metrics.auc(self.labels, values) for values in self.scores[score]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", required=True, nargs="+", metavar="ID", help="experiments with recorded scores")
    parser.add_argument(
        "--figure", type=Path, nargs="+", default=[], metavar="FILE", help="the AUCs over the epochs: .png or .pdf"
    )
    args = parser.parse_args()
    if any(path.suffix not in (".png", ".pdf") for path in args.figure):
        parser.error("--figure must end in .png or .pdf")
    rows = [row for name in dict.fromkeys(args.exp) for row in examine(Experiment(name))]
    every = replace_rows(RESULTS / "rules.csv", FIELDS, rows)
    write_text(RESULTS / "rules.md", "\n".join([NOTES, *tables(every)]) + "\n")
    print("\n".join(tables([row for row in every if row["experiment"] in args.exp])))
    for path in args.figure:
        draw([row for row in rows if row["main"]], path)
    results_page.write()
    print("Written: " + ", ".join(map(str, (RESULTS / "rules.csv", RESULTS / "rules.md", *args.figure))))


def read(experiment: Experiment) -> tuple[list[int], dict[str, Recorded]]:
    """The recorded epochs, and by split what they say. Raises ExperimentError where nothing is recorded."""
    files = sorted(experiment.path("epochs").glob("[0-9]*.csv"))
    if not files:
        raise ExperimentError(
            f"{experiment.path('epochs')}: no scores are recorded there. Train with --set record_scores=true."
        )
    tables = []
    for file in files:
        tables.append(table_of(file))
        if [(row["split"], row["id"]) for row in tables[-1]] != [(row["split"], row["id"]) for row in tables[0]]:
            raise ExperimentError(f"{file}: other images than in {files[0].name}. Restore it or take it away.")
    names = [name for name in tables[0][0] if name not in TEXT]
    found = {}
    for split in dict.fromkeys(row["split"] for row in tables[0]):
        own = [[row for row in table if row["split"] == split] for table in tables]
        persons = [row["person"] for row in own[0]]
        found[split] = Recorded(
            np.array([int(row["label"]) for row in own[0]]),
            persons if any(persons) else None,
            {name: np.array([[float(row[name]) for row in table] for table in own]) for name in names},
        )
    return [int(file.stem) for file in files], found


def table_of(file: Path) -> list[dict[str, str]]:
    """The rows of an epoch's table. Raises ExperimentError for an empty or damaged one."""
    rows = read_rows(file)
    try:
        sound = [{column: row[column] for column in TEXT} for row in rows]
        sound += [float(value) for row in rows for column, value in row.items() if column not in TEXT]
    except (KeyError, TypeError, ValueError) as error:
        raise ExperimentError(f"{file}: damaged ({error!r}). Restore it or take it away.") from error
    if not sound:
        raise ExperimentError(f"{file}: is empty. Restore it or take it away.")
    return rows


def examine(experiment: Experiment) -> list[dict[str, object]]:
    """A row for every rule and both kinds of weights."""
    name, config, data = experiment.load_config()
    epochs, splits = read(experiment)
    for split, so in (("val", "there is nothing to choose"), ("test", "nothing tells the rules apart")):
        if split not in splits:
            raise ExperimentError(f"{experiment.folder}: its data have no {split} images, so {so}.")
    given = (config.main_score, *METHODS[config.method].score_names)  # not all are given with all settings
    scores = [name for name in dict.fromkeys(given) if name in splits["val"].scores]
    common = {
        "experiment": experiment.name,
        "config": name,
        "dataset": config.dataset,
        "data": data,
        "settings": "; ".join(changed_settings(name, config)),
        "seed": config.seed,
        "epochs_trained": epochs[-1],
        "trained_commit": ", ".join(dict.fromkeys(made["commit"] for made in run_parts(experiment))),
    }
    tolerance = config.best_tolerance / 100 if config.best_rule == "tolerance" else None
    return [
        common | {"score": score, "main": score == scores[0], "weights": weights} | row
        for score in scores
        for suffix, weights in WEIGHTS.items()
        if f"{score}{suffix}" in splits["val"].scores
        for row in by_rule(epochs, splits, f"{score}{suffix}", f"reconstruction{suffix}", tolerance)
    ]


def by_rule(
    epochs: list[int], splits: dict[str, Recorded], score: str, error: str, tolerance: float | None
) -> Iterator[dict[str, object]]:
    """What every rule takes and what that gives, of one score of one kind of weights."""
    val, test = splits["val"], splits["test"]
    for rule, taken in (choices(val, score, error, tolerance) | {NO_EPOCH: None}).items():
        auc, ending = {}, {}  # had training stopped after each epoch; the scores that it ends with
        for split, recorded in splits.items():
            own = recorded.scores[score]
            own = running_mean(own) if taken is None else own[taken]
            auc[split], ending[split] = recorded._replace(scores={score: own}).auc(score), own[-1]
        low, high = metrics.auc_interval(test.labels, ending["test"], test.persons)
        row = {
            "rule": rule,
            "epoch": "" if taken is None else epochs[taken[-1]],
            "val_auc": float(auc["val"][-1]),
            "test_auc": float(auc["test"][-1]),
            "test_auc_low": low,
            "test_auc_high": high,
            "interval_by": "person" if test.persons else "image",
            "gap_points": 100 * float(auc["val"][-1] - auc["test"][-1]),
        }
        for split, column in DEVIATION.items():
            row[column] = deviation(auc[split][FEW - 1 if taken is None else 0 :])
            curve = dict(zip(epochs, auc[split].round(4).tolist(), strict=True))
            row[f"{split}_auc_per_epoch"] = json.dumps(curve)
        yield row


def choices(val: Recorded, score: str, error: str, tolerance: float | None = None) -> dict[str, np.ndarray]:
    """Rule → (E,) the epoch (an index from 0) that it takes, had training stopped after each."""
    auc = val.auc(score)
    found = {"last": np.arange(len(auc)), "labelled": leader(auc)}
    if tolerance is not None:
        found["tolerant"] = leader(auc, tolerance)
    if error in val.scores:
        found["least error"] = leader(-val.scores[error][:, val.labels == 0].mean(1))
    agreements = agreement(val.scores[score])
    return found | {"agreement": np.array([row[: i + 1].argmax() for i, row in enumerate(agreements)])}


def leader(values: np.ndarray, tolerance: float = 0.0) -> np.ndarray:
    """After each epoch, the last one yet that was above the highest before it, less ``tolerance``: (E,) → (E,)."""
    before = np.maximum.accumulate([-np.inf, *values[:-1]])
    return np.maximum.accumulate(np.where(values > before - tolerance, np.arange(len(values)), 0))


def agreement(scores: np.ndarray) -> np.ndarray:
    """Mean Spearman correlation of an epoch's ranking with those of all other epochs up to a last one: (E, N) → (E, E)
    at [last, epoch], where epoch ≤ last; of one epoch alone 0.
    """
    ranks = rankdata(scores, axis=1)  # of equal scores the mean: their order says whose they are
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    ranks = np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)  # all equal: agrees with none
    correlation = ranks @ ranks.T
    np.fill_diagonal(correlation, 0)
    return correlation.cumsum(0) / np.maximum(np.arange(len(scores)), 1)[:, None]


def running_mean(scores: np.ndarray) -> np.ndarray:
    """Of each epoch and the few before it: (E, N) → (E, N)."""
    return np.stack([scores[max(0, i + 1 - FEW) : i + 1].mean(0) for i in range(len(scores))])


def deviation(auc: np.ndarray) -> float | str:
    """Standard deviation (n − 1) over the last few epochs, in points; "" of fewer than two."""
    return 100 * float(auc[-FEW:].std(ddof=1)) if len(auc) > 1 else ""


# -- tables and figure ------------------------------------------------------------------------------------------------


def tables(rows: list[dict[str, str]]) -> list[str]:
    """Markdown: a table for every configuration, data, settings, length and commit, with a line per rule over its
    seeds; a second run of the same seed has a table of its own.
    """
    runs = defaultdict(lambda: defaultdict(list))
    for row in rows:
        run = tuple(
            str(row[key]) for key in ("config", "data", "settings", "epochs_trained", "score", "trained_commit")
        )
        number = 0
        while any(other["seed"] == row["seed"] for other in runs[run, number][row["weights"], row["rule"]]):
            number += 1
        runs[run, number][row["weights"], row["rule"]].append(row)
    lines = []
    for ((config, data, settings, epochs, score, commit), _), of_rule in runs.items():
        seeds = dict.fromkeys(row["seed"] for of in of_rule.values() for row in of)
        cells = [line(*rule, of) for rule, of in of_rule.items()]
        header = [
            "weights", "rule", "epoch", "validation AUC", "test AUC", "95 % interval", "gap",
            f"sd, last {FEW}: validation", "test",
        ]  # fmt: skip
        lines += ["", f"## {config}, {epochs} epochs" + (f", {settings}" if settings else ""), ""]
        lines += [
            f"Score: {score}; seeds {', '.join(seeds)}; data {data}; trained at commit {commit}.",
            "",
            *markdown(header, cells),
        ]
    return lines


def line(weights: str, rule: str, rows: list[dict[str, str]]) -> list[str]:
    def points(key: str) -> str:
        return f"{statistics.mean(float(row[key]) for row in rows):.1f}" if all(row[key] for row in rows) else "–"

    intervals = [
        f"{percent(float(row['test_auc_low']))} – {percent(float(row['test_auc_high']))} by {row['interval_by']}"
        for row in rows
    ]
    return [
        weights, rule, ", ".join(row["epoch"] or "–" for row in rows), over_seeds(rows, "val_auc"),
        over_seeds(rows, "test_auc"), "; ".join(intervals), points("gap_points"), points("val_deviation_points"),
        points("deviation_points"),
    ]  # fmt: skip


def over_seeds(rows: list[dict[str, str]], key: str) -> str:
    """Mean and standard deviation (n − 1) in percent."""
    values = [float(row[key]) for row in rows]
    return percent(statistics.mean(values)) + (f" ± {percent(statistics.stdev(values))}" if len(values) > 1 else "")


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """The AUC over the epochs at which training might have stopped, a thin line per run; below those of the trained
    weights the averaged ones'. A colour per rule, or where there are several configurations, per configuration.
    """
    one = len({(row["config"], row["settings"]) for row in rows}) == 1
    rows = [row for row in rows if one or row["rule"] == "last"]
    shared = [setting for setting in settings(rows[0]) if all(setting in settings(row) for row in rows)]
    named = [row["rule"] if one else kind(row, shared) for row in rows]
    colours = dict(zip(dict.fromkeys(named), cycle(COLOURS)))  # noqa: B905
    weights = list(dict.fromkeys(row["weights"] for row in rows))
    figure = Figure(figsize=(11, 0.8 + 3.6 * len(weights)), layout="constrained")
    grid = figure.subplots(len(weights), 2, sharex=True, sharey=True, squeeze=False)
    for row, what in zip(rows, named, strict=True):
        for axis, split in zip(grid[weights.index(row["weights"])], DEVIATION, strict=True):
            curve = json.loads(row[f"{split}_auc_per_epoch"])
            marker = "." if len(curve) == 1 else None  # a line of one point would not be seen
            axis.plot(
                [int(epoch) for epoch in curve],
                [100 * auc for auc in curve.values()],
                lw=0.9,
                c=colours[what],
                marker=marker,
            )
    for axes, of in zip(grid, weights, strict=True):
        axes[0].set_ylabel(f"{of} weights\nAUC of the {rows[0]['score']} score, %")
        for axis in axes:
            axis.axhline(50, color="grey", linewidth=0.5)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, title in zip(grid[0], ("validation", "test, shown only: it decides nothing"), strict=True):
        axis.set_title(title)
    for axis in grid[-1]:
        axis.set_xlabel("epoch after which training stops")
    lines = [Line2D([], [], color=colour, label=what) for what, colour in colours.items()]
    title = f"all with {'; '.join(shared)}" if shared and not one else None
    figure.legend(
        handles=lines, loc="outside lower center", fontsize=8, ncols=6 if one else 1, title=title, title_fontsize=8
    )
    save(figure, path)


def kind(row: dict[str, object], shared: list[str]) -> str:
    """A run's configuration and settings, less those that all runs share."""
    own = "; ".join(setting for setting in settings(row) if setting not in shared)
    return ", ".join(filter(None, (row["config"], own)))


def settings(row: dict[str, object]) -> list[str]:
    return [setting for setting in row["settings"].split("; ") if setting]


if __name__ == "__main__":
    cli.run(main)
