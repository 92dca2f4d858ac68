"""Which epoch's weights to keep: every rule for the checkpoint, side by side, from one training.

    python tools/rules.py --exp ID [ID ...] [--figure FILE]

The experiments are trained with --set record_scores=true, and average_decay for the averaged weights' rules: every
epoch's scores of the validation and test images lie in their epochs/. Rules, of the main score:

    last            the last epoch
    labelled        the highest AUC on validation, which takes labelled anomalous images (SimSID's rule)
    tolerant        the last epoch within best_tolerance points of the highest AUC before it (SQUID's program's rule)
    least error     the least mean reconstruction error of validation's normal images
    agreement       the epoch whose ranking of validation's images, unlabelled, agrees most with all other epochs' (mean
                    Spearman correlation): model centrality, in Ma et al., "The need for unsupervised outlier model
                    selection", SIGKDD Explorations 2023, with another correlation
    mean of 10      no epoch: the mean of the last ten epochs' scores of every image

Tables go to the screen and to results/rules.md, all figures to results/rules.csv (rows are replaced by experiment id).
FILE shows validation and test AUC over the epochs, a line per seed.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
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
from tools.paper_figure import COLOURS
from tools.results import RESULTS, markdown, percent, read_rows, replace_rows

FEW = 10  # epochs at the end: whose scores are averaged, and over which the AUC's steadiness is measured
WEIGHTS = {"": "trained", "_averaged": "averaged"}  # what is appended to a score's name → whose scores these are
TEXT = ("split", "id", "label", "person")  # a recorded table's columns that are no scores
NO_EPOCH = f"mean of {FEW}"
FIELDS = (
    "experiment", "config", "dataset", "data", "settings", "seed", "score", "epochs_trained", "trained_commit",
    "weights", "rule", "epoch", "val_auc", "test_auc", "test_auc_low", "test_auc_high", "interval_by", "gap_points",
    "val_deviation_points", "deviation_points", "val_auc_per_epoch", "test_auc_per_epoch",
)  # fmt: skip
NOTES = f"""# Rules for the checkpoint

Written by `tools/rules.py` from rules.csv. Its help says what each rule is; nothing but the table itself looks at test
images or their labels.

- *weights*: those that training ends an epoch with, or their exponential moving average (`average_decay`).
- *gap*: the AUC on validation less that on test, in percentage points.
- *sd, last {FEW}*: standard deviation of the AUC on validation and on test over the last {FEW} recorded epochs, in
  points: how much the figure hangs on the epoch at which training stops. Of several seeds the mean.
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
        draw([row for row in rows if row["val_auc_per_epoch"]], path)
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
    main_score = next(name for name in given if name in splits["val"].scores)
    common = {
        "experiment": experiment.name,
        "config": name,
        "dataset": config.dataset,
        "data": data,
        "settings": "; ".join(changed_settings(name, config)),
        "seed": config.seed,
        "score": main_score,
        "epochs_trained": epochs[-1],
        "trained_commit": ", ".join(dict.fromkeys(made["commit"] for made in run_parts(experiment))),
    }
    rows = []
    for suffix, weights in WEIGHTS.items():
        score, error = f"{main_score}{suffix}", f"reconstruction{suffix}"
        if score not in splits["val"].scores:
            continue
        val_auc, test_auc = (splits[split].auc(score) for split in ("val", "test"))
        curves = {
            f"{split}_auc_per_epoch": json.dumps(dict(zip(epochs, auc.round(6).tolist(), strict=True)))
            for split, auc in (("val", val_auc), ("test", test_auc))
        }
        tolerance = config.best_tolerance / 100 if config.best_rule == "tolerance" else None
        for rule, epoch in chosen(splits["val"], score, error, tolerance).items():
            scores = {split: taken(splits[split].scores[score], epoch) for split in ("val", "test")}
            of_val = metrics.auc(splits["val"].labels, scores["val"])
            test = splits["test"]
            of_test = metrics.auc(test.labels, scores["test"])
            low, high = metrics.auc_interval(test.labels, scores["test"], test.persons)
            rows.append(
                common
                | {"weights": weights, "rule": rule, "epoch": "" if epoch is None else epochs[epoch]}
                | {"val_auc": of_val, "test_auc": of_test, "test_auc_low": low, "test_auc_high": high}
                | {"interval_by": "person" if test.persons else "image", "gap_points": 100 * (of_val - of_test)}
                | {"val_deviation_points": deviation(val_auc), "deviation_points": deviation(test_auc)}
                | (curves if rule == "last" else dict.fromkeys(curves, ""))
            )
    return rows


def chosen(val: Recorded, score: str, error: str, tolerance: float | None = None) -> dict[str, int | None]:
    """Every rule's choice among the epochs (indices from 0); None for the rule that takes no single one."""
    auc = val.auc(score)
    found = {"last": len(auc) - 1, "labelled": int(auc.argmax())}
    if tolerance is not None:
        best_before = np.maximum.accumulate([-np.inf, *auc[:-1]])
        found["tolerant"] = int(np.flatnonzero(auc > best_before - tolerance)[-1])
    if error in val.scores:
        found["least error"] = int(val.scores[error][:, val.labels == 0].mean(1).argmin())
    found["agreement"] = int(agreement(val.scores[score]).argmax())
    return found | {NO_EPOCH: None}


def agreement(scores: np.ndarray) -> np.ndarray:
    """Mean Spearman correlation of each epoch's ranking with every other one's: (E, N) → (E,); of one epoch 0."""
    count = len(scores)
    if count == 1:
        return np.zeros(1)
    ranks = rankdata(scores, axis=1)  # of equal scores the mean: their order says whose they are
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    ranks = np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)  # all equal: agrees with none
    correlation = ranks @ ranks.T
    return (correlation.sum(1) - correlation.diagonal()) / (count - 1)


def taken(scores: np.ndarray, epoch: int | None) -> np.ndarray:
    """An epoch's scores, or the mean of the last few epochs': (E, N) → (N,)."""
    return scores[-FEW:].mean(0) if epoch is None else scores[epoch]


def deviation(auc: np.ndarray) -> float | str:
    """Standard deviation (n − 1) over the last few epochs, in points; "" of a single epoch."""
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
    """Validation and test AUC over the epochs; a colour per configuration and settings, a thin line per run, dashed of
    averaged weights.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    kinds = list(dict.fromkeys((row["config"], row["settings"]) for row in rows))
    for axis, split in zip(axes, ("val", "test"), strict=True):
        labelled = set()
        for row in rows:
            kind = (row["config"], row["settings"])
            curve = json.loads(row[f"{split}_auc_per_epoch"])
            label = ", ".join(filter(None, (*kind, f"{row['weights']} weights")))
            axis.plot(
                [int(epoch) for epoch in curve], [100 * auc for auc in curve.values()], lw=0.9,
                c=COLOURS[kinds.index(kind) % len(COLOURS)], ls="-" if row["weights"] == "trained" else "--",
                label=None if label in labelled else label,
            )  # fmt: skip
            labelled.add(label)
        axis.axhline(50, color="grey", linewidth=0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        title = {"val": "validation", "test": "test, shown only: it decides nothing"}[split]
        axis.set(xlabel="epoch", ylabel=f"AUC of the {rows[0]['score']} score, %", title=title)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    cli.run(main)
