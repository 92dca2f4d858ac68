"""Collect evaluated experiments into results/: results.csv, tables.md and their figures.

    python tools/make_tables.py EXP [EXP ...]

Rows are replaced by experiment id and kept otherwise. Experiments of one configuration, epochs and split that
differ by seed are summed up as mean ± standard deviation. Nothing in results/ is written by hand but published.csv,
the figures of the papers with their source.
"""

import argparse
import csv
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine import cli
from engine.evaluation import csv_text
from engine.experiment import Experiment, ExperimentError, write_text

RESULTS = Path("results")
FIELDS = (
    "experiment", "config", "method", "dataset", "data", "seed", "settings", "epochs", "checkpoint", "epoch", "stages",
    "split", "images", "score", "main", "auc", "auc_low", "auc_high", "average_precision", "val_accuracy", "val_f1",
    "oracle_accuracy", "oracle_f1", "per_kind_auc", "val_auc_per_epoch", "training_seconds", "trained_commit",
    "trained_device", "commit", "torch", "device", "precision",
)  # fmt: skip
SAME = (  # of runs that are averaged
    "dataset", "data", "config", "settings", "epochs", "checkpoint", "precision", "split", "score",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="EXP", help="experiments that eval.py has evaluated")
    args = parser.parse_args()
    rows = [row for name in args.experiments for row in read_rows(Experiment(name))]
    path = RESULTS / "results.csv"
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            former = [dict.fromkeys(FIELDS, "") | row for row in csv.DictReader(file)]
        rows = [row for row in former if row["experiment"] not in args.experiments] + rows
    rows.sort(key=lambda row: (row["dataset"], row["config"], int(row["epochs"]), int(row["seed"]), row["score"]))
    write_text(path, csv_text(FIELDS, rows))
    write_text(RESULTS / "tables.md", tables(rows))
    print(f"{len(rows)} rows: {path}, {RESULTS / 'tables.md'}")


def read_rows(experiment: Experiment) -> list[dict[str, str]]:
    """One row per image score and per network of an ensemble, and the same without twins.

    Raises:
        ExperimentError: where eval.py has not been run, or only an older one.
    """
    path = experiment.path("results.json")
    if not path.exists():
        raise ExperimentError(f"{path}: not there. Evaluate it first: python eval.py --exp {experiment.name}")
    found = json.loads(path.read_text(encoding="utf-8"))
    if "precision" not in found:
        raise ExperimentError(f"{path}: of an older version. Evaluate again: python eval.py --exp {experiment.name}")
    found["settings"] = "; ".join(found["settings"])
    found["stages"] = " ".join(f"{stage}={epochs}" for stage, epochs in found["stages"].items())
    for key in ("commit", "device"):  # of all sittings that a run was trained in
        found[f"trained_{key}"] = ", ".join(dict.fromkeys(made[key] for made in found["trained"])) or "not recorded"
    rows = rows_of(found, found, experiment.read_metrics())
    if twins := found.get("twins_removed"):
        split = f"{found['split']}, twins removed"
        rows += rows_of({**found, "split": split, "images": twins["images"]}, twins, [])
    return [
        {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in row.items()} for row in rows
    ]


def rows_of(found: dict, part: dict, epochs: list[dict]) -> list[dict[str, object]]:
    """The rows of ``found``'s experiment with the figures of ``part``: all of it, or what is left without twins."""
    rows = []
    for score, figures in part["scores"].items():
        low, high = figures["auc_ci95"]
        kinds = figures["per_kind"].items()
        row = {key: found.get(key, "") for key in FIELDS} | {
            "score": score,
            "main": score == found["main_score"],
            "auc": figures["auc"],
            "auc_low": low,
            "auc_high": high,
            "average_precision": figures["average_precision"],
            "per_kind_auc": " ".join(f"{kind}={percent(of['auc'])}" for kind, of in kinds),
            "val_auc_per_epoch": " ".join(percent(r["val_auc"][score]) for r in epochs if "val_auc" in r),
        }
        for name in ("val", "oracle"):
            for figure in ("accuracy", "f1"):
                row[f"{name}_{figure}"] = figures.get(f"at_{name}_threshold", {}).get(figure, "")
        rows.append(row)
    return rows + [
        row for group, spread in part.get("networks", {}).items() for row in network_rows(found, group, spread)
    ]


def network_rows(found: dict, group: str, spread: dict) -> list[dict[str, object]]:
    """One row per network of an ensemble: ``ndm_0`` … under the score ``ndm (one network)``."""
    own = {"score": f"{group} (one network)", "main": False}
    row = {key: found.get(key, "") for key in FIELDS} | own
    return [
        row | {"auc": auc, "average_precision": ap}
        for auc, ap in zip(spread["auc"], spread["average_precision"], strict=True)
    ]


def percent(value: float | str) -> str:
    return f"{100 * float(value):.1f}"


def tables(rows: list[dict[str, str]]) -> str:
    """Markdown: what was measured, the validation AUC per epoch, and what was published."""
    lines = [
        "# Results",
        "",
        "Written by `tools/make_tables.py` from results.csv and published.csv; all in percent.",
        "",
    ]
    lines += ["## Measured", ""]
    lines += markdown(
        ["configuration", "data", "changed settings", "epochs", "score", "split", "seeds", "AUC", "95 % interval", "AP",
         "acc / F1, val threshold", "acc / F1, oracle threshold", "AUC per kind", "training, min",
         "trained on", "at commit", "evaluated on", "in", "at commit"],
        [summary(group) for group in grouped(rows)],
    )  # fmt: skip
    lines += ["", "The intervals are of a single run (bootstrap over its images). The oracle threshold maximises the "
              "accuracy on the evaluated labels, as the papers do.", "", "## Validation AUC per epoch", ""]  # fmt: skip
    lines += markdown(
        ["configuration", "seed", "score", "epoch 1, 2, …"],
        [
            [named(r), r["seed"], r["score"], ", ".join(r["val_auc_per_epoch"].split())]
            for r in rows
            if r["val_auc_per_epoch"]
        ],
    )
    lines += side_by_side(rows)
    published = RESULTS / "published.csv"
    if published.exists():
        with open(published, newline="", encoding="utf-8") as file:
            entries = list(csv.reader(file))
        lines += ["", "## Published", ""] + markdown(entries[0], entries[1:])
        lines += ["", "Source S: quoted by a later paper's repository; P: the paper or its authors' repository."]
    return "\n".join(lines) + "\n"


def side_by_side(rows: list[dict[str, str]]) -> list[str]:
    """The AUC of methods that give more than two scores: a column per score, a line per split."""
    found = defaultdict(dict)  # what, epochs, split, seeds, precision → score → AUC
    for group in grouped(rows):
        seeds = ", ".join(dict.fromkeys(row["seed"] for row in group))
        line = (named(group[0]), epochs_of(group[0]), group[0]["split"], seeds, group[0]["precision"])
        found[line][group[0]["score"]] = mean_and_deviation([row["auc"] for row in group])
    many = {line: scores for line, scores in found.items() if len(scores) > 2}
    names = sorted({name for scores in many.values() for name in scores})
    if not many:
        return []
    lines = markdown(
        ["configuration", "epochs", "split", "seeds", "in", *names],
        [[*line, *(scores.get(name, "–") for name in names)] for line, scores in many.items()],
    )
    return ["", "## AUC of every score, side by side", "", *lines]


def named(row: dict[str, str]) -> str:
    """The configuration with the settings that were changed."""
    return row["config"] + (f" ({row['settings']})" if row["settings"] else "")


def grouped(rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """Rows that differ by their seed alone, together."""
    groups = defaultdict(list)
    for row in rows:
        # of last.pt it matters how far it came
        reached = row["stages"] if row["checkpoint"] == "last" else ""
        groups[(reached, *(row[key] for key in SAME))].append(row)
    return list(groups.values())


def epochs_of(row: dict[str, str]) -> str:
    """How long it was trained, each stage; with what was planned, for a run that is not finished."""
    stages = [pair.split("=") for pair in row["stages"].split()]
    if row["checkpoint"] == "best" and len(stages) < 2:
        return row["epochs"]
    reached = " + ".join(epochs for _, epochs in stages) or row["epoch"]
    return reached if int(row["epoch"]) >= int(row["epochs"]) else f"{reached}, of {row['epochs']} in all"


def summary(group: list[dict[str, str]]) -> list[str]:
    first = group[0]

    def spread(key: str) -> str:
        return mean_and_deviation([row[key] for row in group])

    minutes = [float(row["training_seconds"]) / 60 for row in group if row["training_seconds"] not in ("", "None")]
    kinds = [dict(pair.split("=") for pair in row["per_kind_auc"].split()) for row in group]
    mean_of_kinds = ", ".join(f"{kind} {statistics.mean(float(k[kind]) for k in kinds):.1f}" for kind in kinds[0])
    intervals = [f"{percent(row['auc_low'])} – {percent(row['auc_high'])}" for row in group if row["auc_low"]]
    return [
        first["config"],
        f"{first['dataset']} ({first['data']})",
        first["settings"] or "–",
        epochs_of(first),
        first["score"] + (" (main)" if first["main"] == "True" else ""),
        first["split"],
        ", ".join(dict.fromkeys(row["seed"] for row in group)),
        spread("auc"),
        "; ".join(intervals) or "–",
        spread("average_precision"),
        f"{spread('val_accuracy')} / {spread('val_f1')}",
        f"{spread('oracle_accuracy')} / {spread('oracle_f1')}",
        mean_of_kinds,
        f"{statistics.mean(minutes):.0f}" if minutes else "–",
        *(
            ", ".join(dict.fromkeys(row[key] for row in group))
            for key in ("trained_device", "trained_commit", "device", "precision", "commit")
        ),
    ]


def mean_and_deviation(values: list[str]) -> str:
    """In percent; – where one is not there."""
    if "" in values:
        return "–"
    percents = [100 * float(value) for value in values]
    if len(percents) == 1:
        return f"{percents[0]:.1f}"
    return f"{statistics.mean(percents):.1f} ± {statistics.stdev(percents):.1f}"


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


if __name__ == "__main__":
    cli.run(main)
