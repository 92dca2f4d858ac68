"""The table of a script in scripts/, a line a method: results/NAME.md, .csv and .tex, a figure of what is varied, and
results/index.html anew.

NAME_runs.csv holds every run of it: one whose folder is gone, or on another machine, stays in the table.
Mean ± standard deviation (n − 1) over the seeds that are finished; those that are not are named, and what is not alike
is not averaged. Where results/published.csv has a figure for a line, it stands beside ours, with the difference where
the two can be compared. Where all lines have them, there are columns for the scores that are not the main one, for
every score without the test images that repeat others, and for the main one by kind of anomaly, by disease, and, where
every epoch was scored (``record_scores``), of the last epoch with the deviation over the last ten that were.
Lines called SERIES@VALUE are points of a curve (tools/paper_figure.py).
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from configs import BaseConfig
from evaluation.tables import csv_text
from experiments.folder import Experiment
from experiments.settings import changed_settings
from system.files import write_text
from tools import paper_figure, results_page, rules
from tools.make_tables import (
    FIELDS,
    Row,
    accuracy_and_f1,
    alike,
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
    "method", "AUC", "AP", "acc / F1, val threshold", "AUC published", "difference", "epochs", "pretrained weights",
    "training, min", "seeds", "at commit",
)  # fmt: skip
OF_RUN = (*FIELDS, "scores", "removed", "kind", "last_epochs")  # columns of NAME_runs.csv
IN_TEX = 6  # of these columns, those of the papers, and every score
NOTE = (
    "Percent; mean ± standard deviation over seeds, of the main score on all test images. A difference is ours minus "
    "the published figure, in points, where ours is the published configuration, trained for all its epochs. Seeds of "
    "other data, weights, settings or precision have a line of their own."
)
TEX = {"±": r"$\pm$", "%": r"\%", "_": r"\_", "&": r"\&", "–": "--", "−": "$-$", "#": r"\#"}


def finished(experiment: Experiment, config: BaseConfig) -> bool:
    """Whether it is trained for as long as ``config`` says and evaluated as it says, on the test images of its data."""
    results = experiment.path("results.json")
    if not (results.exists() and experiment.path("last.pt").exists()):
        return False
    try:
        found = json.loads(results.read_text(encoding="utf-8"))
        if experiment.is_older() or found["data"] != experiment.load_config()[2]:
            return False
        return is_as_asked(found, config)
    except (ValueError, KeyError, TypeError):  # damaged
        return False


def is_as_asked(found: Mapping[str, object], config: BaseConfig) -> bool:
    """Whether what results.json holds, or a row of NAME_runs.csv, is of all the training and the evaluation that
    ``config`` says.
    """
    asked = {"split": "test", "checkpoint": config.checkpoint, "precision": config.precision, "seed": config.seed}
    asked["settings"] = changed_settings(found["config"], config)
    planned = sum(stage.epochs for stage in config.stages())
    return all(found[key] == value for key, value in asked.items()) and (found.get("epochs_trained") or 0) >= planned


def main_row(experiment: Experiment) -> Row:
    """Its main score's row of results.csv, and more AUCs by name: of all ``scores`` (an ensemble's networks' mean), of
    the same where duplicates are ``removed``, of the main score by ``kind``, where there are several, and disease; and
    :func:`last_epochs`.
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
    return main | more | {"last_epochs": last_epochs(experiment, main)}


def kept(name: str) -> dict[str, Row]:
    """The rows of NAME_runs.csv, as :func:`main_row` made them, by experiment. Raises ExperimentError."""
    anew = "Move it away: the script makes it anew, of the runs that are in checkpoints/."
    return {row["experiment"]: row for row in read_table(RESULTS / f"{name}_runs.csv", OF_RUN, anew)}


def last_epochs(experiment: Experiment, main: Row) -> dict[str, float]:
    """Of trained and averaged weights the last epoch's AUC on test and the standard deviation over the last few epochs
    (shares); nothing where epochs are not recorded.
    """
    if not experiment.path("epochs").is_dir():
        return {}
    recorded, found = rules.read(experiment)[1]["test"], {}
    for suffix, weights in rules.WEIGHTS.items():
        if (score := f"{main['score']}{suffix}") in recorded.scores:
            auc = recorded.auc(score)
            found[f"AUC, last epoch, {weights} weights"] = float(auc[-1])
            if len(auc) > 1:
                found[f"sd, last {rules.FEW} recorded, {weights} weights"] = rules.deviation(auc) / 100
    return found


def in_words(experiment: Experiment) -> str:
    row = main_row(experiment)
    return f"{row['score']} AUC {percent(row['auc'])} %"


def write(name: str, script: str, planned: Iterable[tuple[str, int, Row | None]], left_out: Sequence[str] = ()) -> None:
    """The table ``name`` that ``script`` makes, of (line, seed, its :func:`main_row`, None where it is not finished);
    ``left_out`` are the script's other lines. A row that was not made now has a true entry ``kept``.
    """
    groups, missing = defaultdict(list), defaultdict(list)
    for line, seed, row in planned:
        groups[line] += [row] if row else []
        missing[line] += [] if row else [seed]
    runs = {row["experiment"]: row for group in groups.values() for row in group}
    write_text(RESULTS / f"{name}_runs.csv", table_text(OF_RUN, runs.values()))
    published = read_published(RESULTS / "published.csv")
    more = more_columns([row for group in groups.values() for row in group])
    header = (*HEADER, *more)
    columns = (*header, "experiments")  # of the CSV file
    split = {line: grouped(group, alike) or [[]] for line, group in groups.items()}
    parts = [(line, part, missing[line] if part is of[0] else []) for line, of in split.items() for part in of]
    lines = [
        cells(line, part, holes, published)
        + [mean_and_deviation([row[which].get(name) for row in part]) for which, name in more.values()]
        for line, part, holes in parts
    ]
    holes = sum(map(len, missing.values()))
    note = NOTE + (f" Not finished: {holes} of {holes + sum(map(len, groups.values()))} runs." if holes else "")
    elsewhere = sum(row.get("kept", False) for row in runs.values())
    note += f" Kept in {name}_runs.csv, not done here: {elsewhere} of {len(runs)} runs." if elsewhere else ""
    note += f" Neither asked for nor done: {', '.join(left_out)}." if left_out else ""
    title = f"# {name}"
    made = f"Written by `{script}{' --quick' * name.endswith('_quick')}`."
    write_text(RESULTS / f"{name}.md", "\n".join([title, "", made, "", *markdown(header, lines), "", note]) + "\n")
    named = [", ".join(dict.fromkeys(row["experiment"] for row in group)) for _, group, _ in parts]
    rows = (dict(zip(columns, [*line, of], strict=True)) for line, of in zip(lines, named, strict=True))
    write_text(RESULTS / f"{name}.csv", csv_text(columns, rows))
    scores = [len(HEADER) + i for i, (which, _) in enumerate(more.values()) if which == "scores"]
    write_text(RESULTS / f"{name}.tex", latex(header, lines, [*range(IN_TEX), *scores]))
    drawn = paper_figure.draw(RESULTS / name, {line: max(of, key=len) for line, of in split.items()})
    results_page.write()
    print(f"Written: {RESULTS / name}.md, .csv{', .tex, .png and .pdf' if drawn else ' and .tex'}", flush=True)


def more_columns(rows: list[Row]) -> dict[str, tuple[str, str]]:
    """Title → (key of :func:`main_row`'s, name in it) of the columns beside HEADER: what any row has of the main score,
    and of other scores what all have.
    """
    titles = {"scores": "AUC of {}", "removed": "AUC of {}, duplicates removed", "kind": "AUC, {}", "last_epochs": "{}"}
    same = len({(row["score"], *row["scores"]) for row in rows}) == 1
    columns = {}
    for which, title in titles.items():
        if same or which in ("kind", "last_epochs"):
            names = dict.fromkeys(name for row in rows for name in row[which])
            names = [name for name in names if which != "scores" or name != rows[0]["score"]]
            columns |= {title.format(name): (which, name) for name in names}
    return columns


def cells(line: str, group: list[Row], missing: list[int], published: list[dict[str, str]]) -> list[str]:
    holes = [f"{', '.join(map(str, missing))} missing"] if missing else []
    if not group:
        return [line, *["–"] * (len(HEADER) - 3), *holes, "–"]
    first = group[0]
    entry = next((entry for entry in published if stands_for(entry, first)), {"AUC": ""})
    difference = (
        f"{100 * statistics.mean(row['auc'] for row in group) - float(entry['AUC'].split()[0]):+.1f}".replace("-", "−")
        if entry["AUC"] and is_measured_by(first, entry)
        else "–"
    )
    minutes = [row["training_seconds"] / 60 for row in group if row["training_seconds"] is not None]
    return [
        line,
        spread(group, "auc"),
        spread(group, "average_precision"),
        accuracy_and_f1(group, "val"),
        entry["AUC"] or "–",
        difference,
        trained(first) if first["stages_trained"] != first["stages_planned"] else total(first["stages_trained"]),
        pretrained(first),
        f"{statistics.mean(minutes):.1f}" if minutes else "–",
        "; ".join([", ".join(str(row["seed"]) for row in group), *holes]),
        different(commit for row in group for commit in row["trained_commit"]),
    ]


def stands_for(entry: dict[str, str], row: Row) -> bool:
    """Whether a published figure is that of a row's method, data and main score."""
    wanted = dict(pair.split("=") for pair in entry["ours"].split())
    return bool(wanted) and all(value_of(row, key) == value for key, value in wanted.items())


def latex(header: Sequence[str], lines: list[list[str]], columns: list[int]) -> str:
    """A booktabs table of these columns."""
    rows = [" & ".join(escaped(line[column]) for column in columns) + r" \\" for line in (header, *lines)]
    head, *body = rows
    aligned = "l" + "r" * (len(columns) - 1)
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
