"""Collect evaluated experiments into results/: results.csv, tables.md and a page of all tables there, index.html.

    python tools/make_tables.py [EXP ...]

Without an experiment the tables are made anew of what results.csv has. Rows are replaced by experiment id and kept
otherwise. In results.csv shares are fractions and times seconds, what is not known is empty, and lists and tables are
JSON. Experiments that differ by their seed alone are summed up in tables.md as mean ± standard deviation. Nothing in
results/ is written by hand but published.csv, the papers' figures with their source; its column ``ours`` says which
rows of results.csv stand beside a figure, as ``column=value column=value``, of the main score where it names none, or
``setting=value``; ``target`` is the configuration that the figure is of, where ``ours`` does not name it, and ``no``
for a figure that is quoted and that ours are not measured by.
"""

import argparse
import csv
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from commands import cli
from configs import BaseConfig
from dataloader import DATASETS
from evaluation.report import prevalence
from evaluation.tables import csv_text
from experiments.folder import IMPORTED, Experiment, ExperimentError
from experiments.settings import changed_settings
from system.files import write_text
from system.provenance import DIRTY, UNKNOWN
from tools import results, results_page
from tools.results import RESULTS, markdown, percent

TEXT = (
    "experiment", "config", "method", "dataset", "data", "data_set", "trained_on", "precision", "checkpoint", "split",
    "score", "commit", "torch", "device",
)  # fmt: skip
FIELDS = (
    "experiment", "config", "method", "dataset", "data", "data_set", "trained_on", "seed", "settings",
    "pretrained", "precision", "epochs",
    "epochs_trained", "checkpoint", "epoch", "stages_planned", "stages_trained", "stages", "training_seconds",
    "split", "normal", "anomalous", "prevalence", "score", "main", "auc", "auc_low", "auc_high", "interval",
    "average_precision", "accuracy_at_val_threshold", "f1_at_val_threshold", "accuracy_at_oracle_threshold",
    "f1_at_oracle_threshold", "per_kind_auc", "val_auc_per_epoch", "trained_commit", "trained_device",
    "trained_precision", "commit", "torch", "device",
)  # fmt: skip
# columns that files of an earlier version lack
ADDED = {"pretrained", "data_set", "trained_on", "trained_precision", "configuration"}
SAME = (  # of runs that are averaged
    "dataset", "data_set", "config", "settings", "pretrained", "stages_planned", "stages_trained",
    "checkpoint", "trained_precision", "precision", "split", "normal", "anomalous",
)  # fmt: skip
DUPLICATES = "duplicates removed"
ANEW = (
    "Move it away, and make its rows anew: evaluate its experiments again with eval.py and name them all to "
    "tools/make_tables.py."
)
PUBLISHED = ("dataset", "method", "AUC", "AP", "accuracy", "F1", "source", "remark")

Row = dict[str, object]  # of results.csv: a value for each of FIELDS, None where it is not known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXP", help="experiments that eval.py has evaluated")
    args = parser.parse_args()
    if not args.experiments and not (RESULTS / "results.csv").exists():
        parser.error("there is no results/results.csv: name experiments that eval.py has evaluated")
    rows = [row for name in dict.fromkeys(args.experiments) for row in read_rows(Experiment(name))]
    path = RESULTS / "results.csv"
    rows += [row for row in read_table(path) if row["experiment"] not in args.experiments]
    rows.sort(key=lambda row: [row[key] for key in ("dataset", "config", "epochs", "seed", "experiment", "score")])
    text = tables(rows, read_published(RESULTS / "published.csv"))
    write_text(path, table_text(FIELDS, rows))
    write_text(RESULTS / "tables.md", text)
    results_page.write()
    print(f"{len(rows)} rows: {path}, {RESULTS / 'tables.md'}, {RESULTS / 'index.html'}")


# -- results.csv ------------------------------------------------------------------------------------------------------


def cell(value: object) -> str:
    """Text as it is, nothing for None, all else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def read_table(path: Path, fields: Sequence[str] = FIELDS, anew: str = ANEW) -> list[Row]:
    """The rows of results.csv, of none where it is not there; of a file like it with other ``fields``, which is made
    ``anew`` as that says. Raises ExperimentError for one of other columns.
    """
    table = results.read_rows(path)
    columns = tuple(table[0]) if table else fields
    if not set(fields) - ADDED <= set(columns) <= set(fields):
        raise ExperimentError(f"{path}: has other columns than this version writes. {anew}")
    try:
        return [
            dict.fromkeys(fields)
            | {key: value if key in TEXT else json.loads(value) if value else None for key, value in row.items()}
            for row in table
        ]
    except (ValueError, TypeError) as error:
        raise ExperimentError(f"{path}: damaged ({error!r}). {anew}") from error


def table_text(fields: Sequence[str], rows: Iterable[Row]) -> str:
    """What :func:`read_table` reads."""
    return csv_text(fields, ({key: cell(row[key]) for key in fields} for row in rows))


def read_rows(experiment: Experiment) -> list[Row]:
    """One row per image score and per network of an ensemble, and the same without duplicates.

    Raises:
        ExperimentError: where eval.py has not been run, or only an older one.
    """
    path = experiment.path("results.json")
    if not path.exists():
        raise ExperimentError(f"{path}: not there. Evaluate it first: python eval.py --exp {experiment.name}")
    try:
        return rows_from(path, json.loads(path.read_text(encoding="utf-8")), experiment)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExperimentError(
            f"{path}: damaged ({error!r}). Evaluate again: python eval.py --exp {experiment.name}"
        ) from error


def rows_from(path: Path, found: dict, experiment: Experiment) -> list[Row]:
    """:func:`read_rows` of what results.json holds."""
    if "epochs_trained" not in found:
        raise ExperimentError(f"{path}: of an older version. Evaluate again: python eval.py --exp {experiment.name}")
    if not any("auc" in figures for figures in found["scores"].values()):
        raise ExperimentError(f"{path}: all its images are of one class, so it has no AUC to tabulate. Leave it out.")
    found["pretrained"] = found.get("pretrained") or None
    for key in ("commit", "device", "precision"):  # of all parts of the run; the precision of old ones is not known
        found[f"trained_{key}"] = list(dict.fromkeys(made[key] for made in found["trained"] if made.get(key)))
    epochs = experiment.read_metrics()
    if experiment.exists():
        name, config, _ = experiment.load_config()
        if found["settings"] != changed_settings(name, config):
            epochs = []  # validated otherwise than this evaluation was made
    rows = rows_of(found, found, epochs)
    if "duplicates_removed" in found:
        rows += rows_of({**found, "split": f"{found['split']}, {DUPLICATES}"}, found["duplicates_removed"], [])
    return rows


def rows_of(found: dict, part: dict, epochs: list[dict]) -> list[Row]:
    """The rows of ``found``'s experiment with the figures of ``part``: all of it, or what duplicates leave."""
    if not part["scores"]:
        return []
    common = dict.fromkeys(FIELDS) | {key: value for key, value in found.items() if key in FIELDS}
    common |= {**part["classes"], "prevalence": prevalence(part["classes"]), "interval": None, "main": False}
    rows = []
    for score, figures in part["scores"].items():
        low, high = figures["auc_ci95"]
        row = common | {
            "score": score,
            "main": score == found["main_score"],
            "auc": figures["auc"],
            "auc_low": low,
            "auc_high": high,
            "interval": part["interval"],
            "average_precision": figures["average_precision"],
            "per_kind_auc": {kind: of["auc"] for kind, of in figures["per_kind"].items()},
            "val_auc_per_epoch": {str(r["epoch"]): r["val_auc"][score] for r in epochs if "val_auc" in r},
        }
        for threshold in ("at_val_threshold", "at_oracle_threshold"):
            for figure in ("accuracy", "f1"):
                row[f"{figure}_{threshold}"] = figures.get(threshold, {}).get(figure)
        rows.append(row)
    for group, spread in part.get("networks", {}).items():
        rows += [
            common | {"score": f"{group} (one network)", "auc": auc, "average_precision": ap}
            for auc, ap in zip(spread["auc"], spread["average_precision"], strict=True)
        ]
    return rows


# -- tables.md --------------------------------------------------------------------------------------------------------


def read_published(path: Path) -> list[dict[str, str]]:
    """The entries of published.csv, none where it is not there. Raises ExperimentError for one that cannot be used."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, restval="")
        entries = list(table)
    if absent := [column for column in (*PUBLISHED, "ours", "target") if column not in (table.fieldnames or ())]:
        raise ExperimentError(f"{path}: has no column {', '.join(absent)}. Add it.")
    for number, entry in enumerate(entries, start=2):
        where = f"{path}, line {number}: {entry['method']} on {entry['dataset']}"
        if not entry["source"]:
            raise ExperimentError(
                f"{where} has no source. Name it, or take the line out: a figure without a source is not printed."
            )
        known = {*TEXT, *(key for method in configs.SETTINGS.values() for key in method().as_dict())}
        if wrong := [pair for pair in entry["ours"].split() if pair.partition("=")[0] not in known]:
            raise ExperimentError(
                f"{where}: {wrong[0]!r} must be column=value, a column of {', '.join(TEXT)}, or setting=value."
            )
        if entry["target"] not in ("", "no", *configs.names()):
            raise ExperimentError(f"{where}: target {entry['target']!r} must be a configuration, no, or empty.")
    return entries


def value_of(row: Row, key: str) -> object:
    """A column's value, or as text that of a setting of the row's configuration."""
    if key in row:
        return row[key]
    changed = {line.partition(": ")[0]: line.rpartition(" → ")[2] for line in row["settings"] or ()}
    return changed.get(key) or json.dumps(configured(row).as_dict().get(key))


def configured(row: Row, overrides: Sequence[str] = ()) -> BaseConfig:
    """The row's configuration as it is here, with overrides."""
    return configs.build(configs.name_here(row["config"], row["method"]), list(overrides))


def is_measured_by(row: Row, entry: dict[str, str]) -> bool:
    """Whether a published figure is a target, and the row is its configuration, trained for all its epochs."""
    published = configured(row, [f"dataset={row['dataset']}", *named_settings(entry)])
    as_published = {stage.name: stage.epochs for stage in published.stages()}
    return (
        entry["target"] in ("", row["config"])
        and not changed_beside(row, entry)
        and row["stages_trained"] == row["stages_planned"] == as_published
    )


def changed_beside(row: Row, entry: dict[str, str]) -> set[str]:
    """The row's changed settings that a published figure does not name, beside data, precision and what changes neither
    the training nor the weights that it keeps (which of them are scored is a setting of its own)."""
    changed = {line.partition(": ")[0] for line in row["settings"]} - {"dataset", "precision", "average_decay"}
    return changed - {pair.partition("=")[0] for pair in named_settings(entry)}


def named_settings(entry: dict[str, str]) -> list[str]:
    """What ``ours`` says of settings, not of columns."""
    return [pair for pair in entry["ours"].split() if pair.partition("=")[0] not in TEXT]


def tables(rows: list[Row], published: list[dict[str, str]]) -> str:
    """Markdown: what was measured, beside what was published, and the validation AUC per epoch."""
    groups = grouped(rows)
    sections = [
        ("Measured", measured(groups), " ".join([MEASURED_NOTE, *confounders(rows)])),
        ("Published and ours", beside_published(groups, published), BESIDE_NOTE),
        ("Validation AUC per epoch", validation(rows), ""),
        ("AUC of every score, side by side", side_by_side(groups), ""),
        ("Published", markdown(PUBLISHED, [[e[key] or "–" for key in PUBLISHED] for e in published]), PUBLISHED_NOTE),
    ]
    lines = ["# Results", "", "Written by `tools/make_tables.py` from results.csv and published.csv; all in percent."]
    for title, table, note in sections:
        if table:
            lines += ["", f"## {title}", "", *table] + (["", note] if note else [])
    return "\n".join(lines) + "\n"


MEASURED_NOTE = (
    "Epochs are whole ones, of each stage where there are several; the checkpoint's are counted through all stages. "
    "The minutes are those of the whole training, not up to the checkpoint. The intervals are of a single run: "
    "bootstrap over the persons of each class, or over its images where the dataset names no persons. The threshold "
    "from validation is chosen on the validation images; the oracle threshold maximises the accuracy on the evaluated "
    "labels, as the papers do. † Without the duplicates of training images the classes have other sizes: these figures "
    "are not comparable with those of the whole set (the AUC is)."
)
BESIDE_NOTE = (
    "Ours are the main score's, or that of the part of the method that the line names, on the whole test set, trained "
    "for the epochs given. A run of fewer epochs or with changed settings is no reproduction."
)
PUBLISHED_NOTE = "Source P: the paper or its authors' repository; S: quoted by a later paper's repository."


def alike(row: Row) -> str:
    """What a row shares with those of other seeds, of whatever commits; one evaluated on other data than those it was
    trained on stands alone.
    """
    elsewhere = row["trained_on"] not in (None, row["data"], IMPORTED)
    shared = [row[key] for key in SAME] + ([] if row["data_set"] else [row["data"]])
    return json.dumps(shared + ([row["experiment"]] if elsewhere else []))


def run(row: Row) -> str:
    """What a row shares with those of other seeds of the same code; one of unknown code (of no commit, or of changes
    beside it) stands alone.
    """
    commits = row["trained_commit"]
    known = commits and not any(commit == UNKNOWN or commit.endswith(DIRTY) for commit in commits)
    return json.dumps([alike(row), commits if known else row["experiment"]])


def grouped(rows: list[Row], key: Callable[[Row], str] = run) -> list[list[Row]]:
    """The rows of one score that differ by their seed alone, together; of two runs of one seed each has its own."""
    groups = defaultdict(list)
    for row in rows:
        of_run = groups[key(row), row["score"]]
        fitting = [group for group in of_run if all(is_seed_of(row, other) for other in group)]
        fitting[0].append(row) if fitting else of_run.append([row])
    return [group for of_run in groups.values() for group in of_run]


def is_seed_of(row: Row, other: Row) -> bool:
    """Whether rows that are alike are of two seeds, or of networks of one ensemble."""
    return row["experiment"] == other["experiment"] or row["seed"] != other["seed"]


def confounders(rows: Iterable[Row]) -> list[str]:
    """What a dataset's figures may owe something to beside the disease, where that is known, for each dataset once."""
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    known = [DATASETS[name].confounders.get(name) for name in datasets if name in DATASETS]
    return [f"{said} Figures may owe something to that (docs/datasets.md)." for said in filter(None, known)]


def measured(groups: list[list[Row]]) -> list[str]:
    return markdown(
        ["configuration", "data", "changed settings", "pretrained weights", "epochs planned", "epochs trained",
         "checkpoint, epoch", "training, min", "score", "split", "normal : anomalous", "seeds", "AUC", "95 % interval",
         "AP",
         "acc / F1, val threshold", "acc / F1, oracle threshold", "AUC per kind", "trained on", "in", "at commit",
         "evaluated on", "in", "at commit"],
        [summary(group) for group in groups],
    )  # fmt: skip


def summary(group: list[Row]) -> list[str]:
    first = group[0]
    # of another prevalence than the whole set
    mark = " †" if first["split"].endswith(DUPLICATES) else ""
    seconds = {row["experiment"]: row["training_seconds"] for row in group}.values()
    intervals = [
        f"{percent(row['auc_low'])} – {percent(row['auc_high'])} by {row['interval']['by']}"
        for row in group
        if row["interval"]
    ]
    return [
        first["config"],
        f"{first['dataset']} ({different(row['data'] for row in group)})",
        changed(first),
        pretrained(first),
        total(first["stages_planned"]),
        trained(first),
        f"{first['checkpoint']}, {different(row['epoch'] for row in group)}",
        "–" if None in seconds else f"{statistics.mean(seconds) / 60:.0f}",
        first["score"] + (" (main)" if first["main"] else ""),
        first["split"],
        f"{first['normal']} : {first['anomalous']} ({percent(first['prevalence'])} % anomalous)",
        seeds(group),
        spread(group, "auc"),
        "; ".join(intervals) or "–",
        spread(group, "average_precision") + mark,
        accuracy_and_f1(group, "val") + mark,
        accuracy_and_f1(group, "oracle") + mark,
        per_kind(group),
        *(
            different(of for row in group for of in row[key] or ())
            for key in ("trained_device", "trained_precision", "trained_commit")
        ),
        *(different(row[key] for row in group) for key in ("device", "precision", "commit")),
    ]


def beside_published(groups: list[list[Row]], published: list[dict[str, str]]) -> list[str]:
    """A line for every published figure and every group of ours that its column ``ours`` names."""
    lines = []
    for entry in published:
        wanted = dict(pair.split("=") for pair in entry["ours"].split())
        for group in groups:
            first = group[0]
            named = wanted if "score" in wanted else wanted | {"main": True}
            if (
                wanted
                and first["split"] == "test"
                and all(value_of(first, key) == value for key, value in named.items())
            ):
                lines.append(
                    [entry["dataset"], entry["method"], entry["AUC"], entry["AP"] or "–",
                     f"{entry['accuracy'] or '–'} / {entry['F1'] or '–'}", entry["source"],
                     spread(group, "auc"), spread(group, "average_precision"), accuracy_and_f1(group, "oracle"),
                     trained(first), seeds(group), first["config"], changed(first), first["score"]]
                )  # fmt: skip
    return lines and markdown(
        ["dataset", "method", "AUC published", "AP published", "acc / F1 published", "source", "AUC ours", "AP ours",
         "acc / F1 ours, oracle threshold", "epochs", "seeds", "configuration", "changed settings", "score"],
        lines,
    )  # fmt: skip


def validation(rows: list[Row]) -> list[str]:
    """The AUC after every epoch that was validated, a line per run and score."""
    lines = [
        [row["config"], changed(row), row["seed"], row["score"],
         ", ".join(f"{epoch}: {percent(auc)}" for epoch, auc in row["val_auc_per_epoch"].items())]
        for row in rows
        if row["val_auc_per_epoch"]
    ]  # fmt: skip
    return lines and markdown(["configuration", "changed settings", "seed", "score", "epoch: AUC"], lines)


def side_by_side(groups: list[list[Row]]) -> list[str]:
    """The AUC of methods that give more than two scores: a column per score, a line per run and split."""
    runs = defaultdict(dict)  # run → score → group
    for group in groups:
        runs[run(group[0]), seeds(group)][group[0]["score"]] = group
    many = [of_score for of_score in runs.values() if len(of_score) > 2]
    names = sorted({name for of_score in many for name in of_score})
    lines = []
    for of_score in many:
        first, *_ = group = next(iter(of_score.values()))
        line = [first["config"], changed(first), trained(first), first["checkpoint"], first["split"], seeds(group)]
        line += [first["precision"], different(first["trained_commit"])]
        lines.append(line + [spread(of_score[name], "auc") if name in of_score else "–" for name in names])
    return lines and markdown(
        ["configuration", "changed settings", "epochs", "checkpoint", "split", "seeds", "in", "at commit", *names],
        lines,
    )


# -- cells ------------------------------------------------------------------------------------------------------------


def changed(row: Row) -> str:
    """The settings that differ from the configuration's."""
    return "; ".join(row["settings"]) or "–"


def pretrained(row: Row) -> str:
    """Where the weights of the frozen parts come from."""
    parts = (row["pretrained"] or {}).values()
    return "; ".join(f"{of['source']} ({of['sha256'][:12]})" if of["sha256"] else of["source"] for of in parts) or "–"


def total(stages: dict[str, int]) -> str:
    return " + ".join(map(str, stages.values()))


def trained(row: Row) -> str:
    """``4 of 200``, of each stage where there are several."""
    return f"{total(row['stages_trained']) if row['stages_trained'] else 'unknown'} of {total(row['stages_planned'])}"


def seeds(group: list[Row]) -> str:
    return ", ".join(str(seed) for seed in {row["experiment"]: row["seed"] for row in group}.values())


def different(values: Iterable[object]) -> str:
    """The different ones of the values; – where there are none."""
    return ", ".join(dict.fromkeys(map(str, values))) or "–"


def spread(group: list[Row], key: str) -> str:
    return mean_and_deviation([row[key] for row in group])


def mean_and_deviation(values: list[float | None]) -> str:
    """Of shares over seeds, in percent, the deviation with n − 1; – where one is not known, or there is none."""
    if not values or None in values:
        return "–"
    deviation = f" ± {percent(statistics.stdev(values))}" if len(values) > 1 else ""
    return percent(statistics.mean(values)) + deviation


def accuracy_and_f1(group: list[Row], threshold: str) -> str:
    return f"{spread(group, f'accuracy_at_{threshold}_threshold')} / {spread(group, f'f1_at_{threshold}_threshold')}"


def per_kind(group: list[Row]) -> str:
    """The mean AUC of every kind of anomaly."""
    kinds = [row["per_kind_auc"] or {} for row in group]
    return ", ".join(f"{kind} {percent(statistics.mean(of[kind] for of in kinds))}" for kind in kinds[0]) or "–"


if __name__ == "__main__":
    cli.run(main)
