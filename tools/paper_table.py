"""The table of a script in scripts/, a line a method: results/NAME.md, .csv and .tex, a figure of what is varied, and
results/index.html anew.

NAME_runs.csv holds every run of it: one whose folder is gone, or on another machine, stays in the table. Mean ±
standard deviation (n − 1) over the seeds that are finished; those that are not are named, and what is not alike is not
averaged. Where results/published.csv has figures for a line, they stand beside ours, with their sources below the table
and the AUC's difference where the two can be compared; of several lines of one method beside those alone that differ
from it in nothing but their length. There are columns for the main score without the test images that repeat others, by
kind of anomaly, by disease, and, where every epoch was scored (``record_scores``), of the last epoch with the
deviations over the last ten that were; and, where all lines have them, for the other scores.
Lines called SERIES@VALUE are points of a curve (tools/paper_figure.py).
"""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from configs import BaseConfig
from evaluation.tables import csv_text
from experiments.folder import Experiment
from experiments.settings import all_settings, changed_settings
from system.files import write_text
from tools import paper_figure, results_page, rules
from tools.make_tables import (
    FIELDS,
    Row,
    accuracy_and_f1,
    alike,
    changed_beside,
    configured,
    confounders,
    different,
    grouped,
    is_measured_by,
    mean_and_deviation,
    pretrained,
    read_published,
    read_rows,
    read_table,
    spread,
    table_text,
    total,
    trained,
    value_of,
)
from tools.results import RESULTS, markdown, percent
from tools.results import read_rows as read_csv

HEADER = (
    "method", "AUC", "AP", "acc / F1, val threshold", "AUC published", "difference", "score", "epochs",
    "pretrained weights", "training, min", "seeds", "at commit",
)  # fmt: skip
OF_RUN = (*FIELDS, "scores", "removed", "kind", "last_epochs", "configuration")  # columns of NAME_runs.csv
IN_TEX = ("method", "AUC", "AP", "acc / F1, val threshold", "AUC published", "difference", "seeds")  # and all others
NOTE = (
    "Percent; mean ± standard deviation over seeds, of the main score on all test images. A difference is ours minus "
    "the published figure, in points, where ours is the published configuration in any precision, trained for all its "
    "epochs. Seeds of other data, weights, settings or precision have a line of their own."
)
TEX = {"±": r"$\pm$", "%": r"\%", "_": r"\_", "&": r"\&", "–": "--", "−": "$-$", "#": r"\#"}


def finished(experiment: Experiment, config: BaseConfig) -> bool:
    """Whether it is trained for as long as ``config`` says and evaluated as it says, on the test images of its data."""
    results = experiment.path("results.json")
    if not (results.exists() and experiment.path("last.pt").exists()):
        return False
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
        _, trained, data = experiment.load_config()
        if experiment.is_older() or found["data"] != data:
            return False
        return is_as_asked(found | {"configuration": all_settings(trained)}, config)
    except (ValueError, KeyError, TypeError):  # damaged
        return False


def is_as_asked(found: Mapping[str, object], config: BaseConfig) -> bool:
    """Whether a run is of all the training and the evaluation that ``config`` says: ``found`` is a row of
    NAME_runs.csv, or what results.json holds, with the ``configuration`` that it was trained with.

    Its ``settings`` alone, what it changed of a configuration of its day, do not tell: the configuration may be another
    by now. A setting that is newer than a row is as the ``settings`` say; rows of an earlier version have these alone.
    """
    asked_for = all_settings(config)
    if asked_for | (found["configuration"] or {}) != asked_for:
        return False
    asked = {"split": "test", "checkpoint": config.checkpoint, "precision": config.precision, "seed": config.seed}
    asked["settings"] = changed_settings(found["config"], config)
    planned = sum(stage.epochs for stage in config.stages())
    return all(found[key] == value for key, value in asked.items()) and (found.get("epochs_trained") or 0) >= planned


def main_row(experiment: Experiment) -> Row:
    """Its main score's row of results.csv, and more AUCs by name: of all ``scores`` (an ensemble's networks' mean), of
    the same where duplicates are ``removed``, of the main score by ``kind``, where there are several, and disease; and
    :func:`last_epochs`; and all settings.
    """
    rows = read_rows(experiment)
    main = next(row for row in rows if row["main"])
    aucs = defaultdict(lambda: defaultdict(list))
    for row in rows:
        aucs[row["split"] == main["split"]][row["score"]].append(row["auc"])
    scores, removed = ({name: statistics.mean(of) for name, of in aucs[whole].items()} for whole in (True, False))
    kinds = main["per_kind_auc"] if len(main["per_kind_auc"]) > 1 else {}
    diseases = {
        row["disease"]: float(row["auc"])
        for row in read_csv(experiment.path("by_disease.csv"))
        if row["score"] == main["score"] and row["auc"]
    }
    more = {"scores": scores, "removed": removed, "kind": kinds | diseases}
    more["configuration"] = all_settings(experiment.load_config()[1])
    return main | more | {"last_epochs": last_epochs(experiment, main)}


def kept(name: str) -> dict[str, Row]:
    """The rows of NAME_runs.csv, as :func:`main_row` made them, by experiment. Raises ExperimentError."""
    anew = "Move it away: the script makes it anew, of the runs that are in checkpoints/."
    return {row["experiment"]: row for row in read_table(RESULTS / f"{name}_runs.csv", OF_RUN, anew)}


def last_epochs(experiment: Experiment, main: Row) -> dict[str, float]:
    """Of trained and averaged weights the last epoch's AUC on test, and the standard deviation over the last few epochs
    on validation, by which a remedy may be chosen, and on test (shares); nothing where epochs are not recorded.
    """
    if not experiment.path("epochs").is_dir():
        return {}
    recorded, found = rules.read(experiment)[1], {}
    for suffix, weights in rules.WEIGHTS.items():
        if (score := f"{main['score']}{suffix}") in recorded["test"].scores:
            auc = {split: of.auc(score) for split, of in recorded.items()}  # without validation the test images' alone
            found[f"AUC, last epoch, {weights} weights"] = float(auc["test"][-1])
            for split, values in auc.items():
                if len(values) > 1:
                    name = f"sd on {rules.SPLITS[split]}, last {rules.FEW} recorded, {weights} weights"
                    found[name] = rules.deviation(values) / 100
    return found


def in_words(experiment: Experiment) -> str:
    row = main_row(experiment)
    return f"{row['score']} AUC {percent(row['auc'])} %"


def write(
    name: str,
    script: str,
    planned: Iterable[tuple[str, int, Row | None]],
    left_out: Sequence[str] = (),
    axis: str = "",
) -> None:
    """The table ``name`` that ``script`` makes, of (line, seed, its :func:`main_row`, None where it is not finished);
    ``left_out`` are the script's other lines, ``axis`` is what the points of curves of several methods are of. A row
    that was not made now has a true entry ``kept``.
    """
    groups, missing = defaultdict(list), defaultdict(list)
    for line, seed, row in planned:
        groups[line] += [row] if row else []
        missing[line] += [] if row else [seed]
    runs = {row["experiment"]: row for group in groups.values() for row in group}
    write_text(RESULTS / f"{name}_runs.csv", table_text(OF_RUN, runs.values()))
    split = {line: grouped(group, alike) or [[]] for line, group in groups.items()}
    parts = [(line, part, missing[line] if part is of[0] else []) for line, of in split.items() for part in of]
    entries = published_beside([(line, part) for line, part, _ in parts])
    more = more_columns([row for group in groups.values() for row in group])
    lines = [
        cells(line, part, holes, entry)
        | published_cells(part, entry, entries)
        | {
            title: mean_and_deviation([row[of].get(name or row["score"]) for row in part])
            for title, (of, name) in more.items()
        }
        for (line, part, holes), entry in zip(parts, entries, strict=True)
    ]
    header = list(lines[0])
    holes = sum(map(len, missing.values()))
    note = NOTE + (f" Not finished: {holes} of {holes + sum(map(len, groups.values()))} runs." if holes else "")
    elsewhere = sum(row.get("kept", False) for row in runs.values())
    note += f" Kept in {name}_runs.csv, not done here: {elsewhere} of {len(runs)} runs." if elsewhere else ""
    note += f" Neither asked for nor done: {', '.join(left_out)}." if left_out else ""
    notes = [note, *sources(entries), *confounders(runs.values())]
    title = f"# {name}"
    made = f"Written by `{script}{' --quick' * name.endswith('_quick')}`."
    table = markdown(header, [list(line.values()) for line in lines])
    write_text(RESULTS / f"{name}.md", "\n\n".join([f"{title}\n\n{made}", "\n".join(table), *notes]) + "\n")
    named = [", ".join(dict.fromkeys(row["experiment"] for row in group)) for _, group, _ in parts]
    rows = (line | {"experiments": of} for line, of in zip(lines, named, strict=True))
    write_text(RESULTS / f"{name}.csv", csv_text((*header, "experiments"), rows))
    left = [title for title in header if title in IN_TEX or title not in HEADER]
    remarks = "".join(f"% {note}\n" for note in notes)
    write_text(RESULTS / f"{name}.tex", remarks + latex([[line[title] for title in left] for line in lines], left))
    drawn = paper_figure.draw(RESULTS / name, {line: max(of, key=len) for line, of in split.items()}, axis)
    results_page.write()
    print(f"Written: {RESULTS / name}.md, .csv{', .tex, .png and .pdf' if drawn else ' and .tex'}", flush=True)


def more_columns(rows: list[Row]) -> dict[str, tuple[str, str]]:
    """Title → (key of :func:`main_row`'s, name in it, "" for the main score's) of the columns beside HEADER: what any
    row has of the main score, and what all have of the other scores, or of every score where the main one is not the
    same in all.
    """
    titles = {"scores": "AUC of {}", "removed": "AUC of {}, duplicates removed", "kind": "AUC, {}", "last_epochs": "{}"}
    same, main = len({frozenset(row["scores"]) for row in rows}) == 1, {row["score"] for row in rows}
    columns = {}
    for which, title in titles.items():
        if same or which in ("kind", "last_epochs"):
            names = dict.fromkeys(name for row in rows for name in row[which])
            names = [name for name in names if which != "scores" or {name} != main]
            columns |= {title.format(name): (which, name) for name in names}
    if not same and any(row["removed"] for row in rows):
        columns["AUC, duplicates removed"] = ("removed", "")
    return columns


def published_beside(parts: Sequence[tuple[str, list[Row]]]) -> list[dict[str, str]]:
    """For every line (name, rows of its seeds) the entry of published.csv that stands beside it, or an empty one."""
    published = read_published(RESULTS / "published.csv")
    lines = Counter(method for _, method in {(line, group[0]["method"]) for line, group in parts if group})
    found = []
    for _, group in parts:
        entry = next((entry for entry in published if group and stands_for(entry, group[0])), {})
        if entry and lines[group[0]["method"]] > 1 and changed_beside(group[0], entry) - lengths(group[0]):
            entry = {}  # another thing than what was published, as one line of a study is
        found.append(entry)
    return found


def lengths(row: Row) -> set[str]:
    """The settings that say how long a row's stages last."""
    return {stage.epochs_key for stage in configured(row, [f"dataset={row['dataset']}"]).stages()}


def cells(line: str, group: list[Row], missing: list[int], entry: dict[str, str]) -> dict[str, str]:
    """HEADER's columns of a line."""
    found = dict.fromkeys(HEADER, "–") | {"method": line}
    holes = [f"{', '.join(map(str, missing))} missing"] if missing else []
    if not group:
        return found | {"seeds": "; ".join(holes)}
    first = group[0]
    minutes = [row["training_seconds"] / 60 for row in group if row["training_seconds"] is not None]
    if entry.get("AUC"):
        found["AUC published"] = entry["AUC"]
        if is_measured_by(first, entry):
            difference = 100 * statistics.mean(row["auc"] for row in group) - float(entry["AUC"].split()[0])
            found["difference"] = f"{difference:+.1f}".replace("-", "−")
    return found | {
        "AUC": spread(group, "auc"),
        "AP": spread(group, "average_precision"),
        "acc / F1, val threshold": accuracy_and_f1(group, "val"),
        "score": first["score"],
        "epochs": trained(first)
        if first["stages_trained"] != first["stages_planned"]
        else total(first["stages_trained"]),
        "pretrained weights": pretrained(first),
        "training, min": f"{statistics.mean(minutes):.1f}" if minutes else "–",
        "seeds": "; ".join([", ".join(f"{row['seed']}{' kept' * ('kept' in row)}" for row in group), *holes]),
        "at commit": different(commit for row in group for commit in row["trained_commit"]),
    }


def published_cells(group: list[Row], entry: dict[str, str], entries: Sequence[dict[str, str]]) -> dict[str, str]:
    """The columns of a line for what is published of any line beside the AUC. The papers' accuracy and F1 are at the
    best threshold on the test images.
    """
    found = {}
    if any(each.get("AP") for each in entries):
        found["AP published"] = entry.get("AP") or "–"
    if any(each.get("accuracy") for each in entries):
        found["acc / F1, best threshold"] = accuracy_and_f1(group, "oracle") if group else "–"
        found["acc / F1 published"] = f"{entry['accuracy']} / {entry['F1']}" if entry.get("accuracy") else "–"
    return found


def sources(entries: Iterable[dict[str, str]]) -> list[str]:
    """Where the published figures that a table shows are from and what is to be known of them, for alike ones once."""
    methods = defaultdict(dict)
    for entry in filter(None, entries):
        methods[entry["source"], entry["remark"]][entry["method"]] = None
    return [
        f"Published, {', '.join(of)}: {source}{f'; {remark}' * bool(remark)}."
        for (source, remark), of in methods.items()
    ]


def stands_for(entry: dict[str, str], row: Row) -> bool:
    """Whether a published figure is that of a row's method, data and main score."""
    wanted = dict(pair.split("=") for pair in entry["ours"].split())
    return bool(wanted) and all(value_of(row, key) == value for key, value in wanted.items())


def latex(lines: list[list[str]], header: Sequence[str]) -> str:
    """A booktabs table."""
    head, *body = (" & ".join(map(escaped, line)) + r" \\" for line in (header, *lines))
    aligned = "l" + "r" * (len(header) - 1)
    return (
        "\n".join(
            [
                rf"\begin{{tabular}}{{{aligned}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def escaped(text: str) -> str:
    return "".join(TEX.get(letter, letter) for letter in text)
