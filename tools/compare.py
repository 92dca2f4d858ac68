"""Are the differences between evaluated experiments more than chance?

    python tools/compare.py EXP EXP [EXP ...] [--score SCORE] [--first] [--paired] [--out FILE]
    python tools/compare.py padim=padim_s0,padim_s1,padim_s2 dn2=dn2_s0,dn2_s1,dn2_s2

Each argument is an experiment, or NAME=EXP,EXP,… for several seeds of one configuration, of which the mean is taken.
All must be evaluated on the same images. Of every pair the difference in AUC and in AP is given, with

    95 % interval   by a paired bootstrap: the same images are drawn for both; where the data know persons, persons with
                    all their images, as in eval.py
    p               of this bootstrap, two-sided: twice the share of samples on the rarer side of 0
    DeLong's p      of DeLong's test for two correlated ROC curves, for the AUC. It takes images for independent; where
                    the data know persons it is Obuchowski's form of it, which takes persons for independent

Of several seeds these are of the configurations: to the variance by the images, the bootstrap's or DeLong's, that of
the mean by the seeds is added, and interval and p are Student's t, with Welch's and Satterthwaite's degrees of freedom;
where one sample of seeds is all there is (--paired, two scores of the same trainings, several seeds against one run)
they are by Cochran and Cox's critical value. The bootstrap's interval of these very seeds stands beside it. Seeds are
taken for independent from group to group; --paired takes the differences seed by seed, as where the runs of a seed
share trainings (DDAD's networks and rates do).

Of several pairs every p is corrected by Holm for as many as have one, AUC and AP each on its own; intervals are not.
Called significant is what has a p, DeLong's aside, so corrected, below 5 %. All pairs are compared; --first leaves out
those without the first experiment: fewer questions are corrected for less, if they were chosen before the answers were
seen.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands import cli
from configs import BaseConfig, ConfigError
from dataloader.base import in_words
from evaluation import comparison, metrics
from evaluation.report import of_each_class
from evaluation.tables import csv_text
from experiments.folder import Experiment, ExperimentError
from experiments.settings import ELSEWHERE, differences
from system.files import write_text
from tools import make_tables, results_page
from tools.results import markdown, percent, read_rows

FIELDS = (
    "first", "second", "first_experiments", "second_experiments", "first_score", "second_score", "first_commits",
    "second_commits", "dataset", "split", "normal", "anomalous", "by", "independent_normal", "independent_anomalous",
    "samples", "seed", "figure", "first_value", "second_value", "difference", "low", "high", "low_of_these_seeds",
    "high_of_these_seeds", "p", "p_holm", "delong_p", "delong_p_holm", "significant",
)  # fmt: skip
FORMATS = (".md", ".csv", ".json")
FEW = 100  # samples of the bootstrap that a variance takes at least
ROUNDING = 1e-3  # of an AUC, by ties that scores.csv's digits make

Row = dict[str, object]  # of a pair and a figure: a value for each of FIELDS, None where there is none


class Evaluated(NamedTuple):
    """One score of an experiment's images."""

    row: make_tables.Row  # what results.csv says of it
    file: Path  # its scores.csv
    images: dict[str, tuple[int, str | None]]  # id → label, person (where known)
    scores: np.ndarray  # (N,), in the order of the images
    config: BaseConfig | None  # that it was trained with, where its config.json is there


class Group(NamedTuple):
    """What is compared: an experiment, or K seeds of one configuration."""

    name: str
    experiments: list[str]
    score: str
    commits: str  # that it was trained at
    seeds: list[int]
    scores: np.ndarray  # (K, N)


class Images(NamedTuple):
    """What is known of the N images that all are compared on."""

    dataset: str
    split: str
    labels: np.ndarray  # (N,)
    persons: list[str] | None  # of each image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "experiments", nargs="+", metavar="EXP", help="experiments that eval.py has evaluated, or NAME=EXP,EXP,…"
    )
    parser.add_argument(
        "--score", action="append", default=[], metavar="[NAME=]SCORE",
        help="instead of the main score, of all or of the experiment or group of that name; may be repeated",
    )  # fmt: skip
    parser.add_argument("--first", action="store_true", help="compare only the first with each of the others")
    parser.add_argument("--paired", action="store_true", help="compare groups of the same seeds seed by seed")
    parser.add_argument(
        "--samples", type=int, default=metrics.RESAMPLES, metavar="N",
        help=f"of the bootstrap; default: as many as eval.py's, {metrics.RESAMPLES}",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap; default: 0")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"write it there too: {', '.join(FORMATS)}")
    args = parser.parse_args()
    if args.out and args.out.suffix not in FORMATS:
        raise ConfigError(f"--out {args.out}: must end in {', '.join(FORMATS)}.")
    if args.samples < 1 or args.seed < 0:
        raise ConfigError(f"--samples {args.samples} --seed {args.seed}: at least 1 sample, and a seed of 0 or more.")
    members = named(args.experiments)
    images, groups = read(members, asked_scores(args.score, members))
    if args.paired and (len(groups[0].seeds) == 1 or any(group.seeds != groups[0].seeds for group in groups)):
        raise ConfigError("--paired: name groups of the same seeds, two or more, in the same order.")
    if args.samples < FEW and any(len(group.seeds) > 1 for group in groups):
        raise ConfigError(f"--samples {args.samples}: too few for a variance. Draw at least {FEW}.")
    rows = compare(images, groups, args.samples, args.seed, args.first, args.paired)
    text = "\n".join(report(rows, args.paired)) + "\n"
    print(text, end="")
    if args.out:
        made = f"Written by `{shlex.join(['python', *sys.argv])}`.\n\n"
        write_text(
            args.out, {".md": made + text, ".csv": csv_text(FIELDS, rows), ".json": json_text(rows)}[args.out.suffix]
        )
        results_page.follow([args.out])
        print(f"Written: {args.out}")


# -- what is compared -------------------------------------------------------------------------------------------------


def named(arguments: list[str]) -> dict[str, list[str]]:
    """Name → experiments, of ``EXP`` and ``NAME=EXP,EXP,…``. Raises ConfigError."""
    found: dict[str, list[str]] = {}
    for argument in arguments:
        name, equals, members = argument.partition("=")
        experiments = members.split(",") if equals else [name]
        if not name or "," in name or not all(experiments):
            raise ConfigError(f"{argument}: write an experiment, or several seeds as NAME=EXP,EXP,….")
        if name in found:
            raise ConfigError(f"{argument}: there is a {name} already; give one of them another name: NAME=EXP,EXP,….")
        found[name] = experiments
    if len(found) < 2:
        raise ConfigError(f"{arguments[0]}: nothing to compare it with. Name at least two experiments or groups.")
    return found


def asked_scores(options: list[str], names: Iterable[str]) -> dict[str, str | None]:
    """Name → the score that ``SCORE`` or ``NAME=SCORE`` asks for, None for the main one. Raises ConfigError."""
    found = dict.fromkeys(names)
    for option in sorted(options, key=lambda option: "=" in option):  # those of all first
        name, equals, score = option.rpartition("=")
        if equals and name not in found:
            raise ConfigError(f"--score {option}: there is no {name!r} among {', '.join(found)}.")
        found |= {name: score} if equals else dict.fromkeys(found, score)
    return found


def read(members: dict[str, list[str]], scores: dict[str, str | None]) -> tuple[Images, list[Group]]:
    """All groups, their scores in the order of the first experiment's images. Raises ExperimentError, MetricError."""
    first, groups, taken = None, [], set()
    for name, experiments in members.items():
        every = [evaluated(Experiment(experiment), scores[name]) for experiment in experiments]
        first = first or every[0]
        check_seeds(name, every)
        for which in ((str(each.file), each.row["score"]) for each in every):
            if which in taken:
                raise ExperimentError(f"{', '.join(which)}: named more than once. Name it once.")
            taken.add(which)
        aligned = np.stack([in_order_of(first, each) for each in every])
        commits = dict.fromkeys(commit for each in every for commit in each.row["trained_commit"])
        seeds = [each.row["seed"] for each in every]
        groups.append(Group(name, experiments, every[0].row["score"], ", ".join(commits), seeds, aligned))
    labels, persons = zip(*first.images.values(), strict=True)
    persons = list(persons) if any(persons) else None
    return Images(first.row["dataset"], first.row["split"], np.array(labels), persons), groups


def evaluated(experiment: Experiment, score: str | None) -> Evaluated:
    """What results.json and scores.csv say of a score, of the main one for None.

    Raises:
        ExperimentError: where the experiment is not evaluated or has no such score, or its table is damaged or of
            another evaluation.
        MetricError: for scores that are not finite, and labels of one class only.
    """
    rows = make_tables.read_rows(experiment)
    # of all images, duplicates of training images too, and of no network of an ensemble alone
    rows = [row for row in rows if row["interval"] and not row["split"].endswith(make_tables.DUPLICATES)]
    of_score = {row["score"]: row for row in rows}
    if score is None:
        score = next(row["score"] for row in rows if row["main"])
    if score not in of_score:
        raise ExperimentError(f"{experiment.folder}: has no score {score!r}. It has {', '.join(sorted(of_score))}.")
    file = experiment.path("scores.csv")
    again = f"Evaluate again: python eval.py --exp {experiment.name}"
    table = read_rows(file)
    if not table:
        raise ExperimentError(f"{file}: not there, or empty. {again}")
    try:
        images = {row["id"]: (int(row["label"]), row.get("person")) for row in table}
        values = np.array([float(row[score]) for row in table])
    except (KeyError, TypeError, ValueError) as error:
        raise ExperimentError(f"{file}: damaged, or of another version ({error!r}). {again}") from error
    if len(images) < len(table):
        raise ExperimentError(f"{file}: has {len(table)} lines of {len(images)} images. {again}")
    labels = np.array([label for label, _ in images.values()])
    metrics.check(labels, values, f"{file}, {score}")
    found = metrics.auc(labels, values)
    if abs(found - of_score[score]["auc"]) > ROUNDING:
        raise ExperimentError(
            f"{file}: {score} has an AUC of {percent(found)} % here and of {percent(of_score[score]['auc'])} % in "
            f"results.json: they are of different evaluations. {again}"
        )
    config = experiment.load_config()[1] if experiment.exists() else None
    return Evaluated(of_score[score], file, images, values, config)


def check_seeds(name: str, every: list[Evaluated]) -> None:
    """Raise ExperimentError where a group's experiments differ by more than their seed, or not by that."""
    first = every[0]
    for i, each in enumerate(every):
        for key in make_tables.SAME:
            if each.row[key] != first.row[key]:
                raise ExperimentError(
                    f"{name}: a group is of seeds of one configuration, but {key} is {first.row[key]} in "
                    f"{first.file.parent} and {each.row[key]} in {each.file.parent}. Compare them as two."
                )
        changes = differences(first.config, each.config, ELSEWHERE) if first.config and each.config else []
        if changes:  # a configuration that was another when one of them was trained
            raise ExperimentError(
                f"{name}: a group is of seeds of one configuration, but of {first.file.parent} and {each.file.parent} "
                f"differ {'; '.join(changes)}. Compare them as two."
            )
        if each.row["seed"] in (earlier.row["seed"] for earlier in every[:i]):
            raise ExperimentError(
                f"{name}: {each.file.parent} has the seed of another, {each.row['seed']}. Name it once."
            )
    commits = dict.fromkeys(commit for each in every for commit in each.row["trained_commit"])
    if len(commits) > 1:
        print(f"note: {name}: its seeds were trained at several commits, {', '.join(commits)}.", file=sys.stderr)


def in_order_of(first: Evaluated, other: Evaluated) -> np.ndarray:
    """The scores of ``other`` (N,) in the order of ``first``'s images. Raises ExperimentError for other images."""
    for key, what in (("dataset", "dataset"), ("split", "split"), ("data", "source of digits")):
        # which digits an image is made of, its id does not tell; training images may be others
        matters = key != "data" or first.row["dataset"] == "digit"
        if matters and first.row[key] != other.row[key]:
            raise ExperimentError(
                f"{first.file} and {other.file}: of another {what}, {first.row[key]} and {other.row[key]}. "
                "Compare what was evaluated on the same images."
            )
    if first.row["dataset"] == "digit":
        settings = [each.row["settings"] or () for each in (first, other)]
        crops = [[line for line in lines if line.startswith("digit_crop:")] for lines in settings]
        if crops[0] != crops[1]:
            raise ExperimentError(
                f"{first.file} and {other.file}: other images of the same names, of the one alone "
                f"{(crops[0] or crops[1])[0]}. Compare what was evaluated on the same images."
            )
    files = {each.row["data_set"] for each in (first, other)} - {None, ""}  # of an older version: not known
    if len(files) > 1 and first.row["dataset"] != "digit":
        print(
            f"note: {first.file} and {other.file}: the images are called the same, but their files, or others of the "
            "dataset, differ. Whether they show the same is not known.",
            file=sys.stderr,
        )
    for image in [*first.images, *other.images]:
        if first.images.get(image) != other.images.get(image):
            raise ExperimentError(
                f"{first.file} and {other.file}: other images. {image} {known(first, image)} in the one, "
                f"{known(other, image)} in the other. Evaluate both again on the same data."
            )
    place = {image: i for i, image in enumerate(other.images)}
    return other.scores[[place[image] for image in first.images]]


def known(which: Evaluated, image: str) -> str:
    if image not in which.images:
        return "is not"
    label, person = which.images[image]
    return f"has label {label}" + (f" and person {person}" if person else "")


# -- comparison -------------------------------------------------------------------------------------------------------


def compare(images: Images, groups: list[Group], samples: int, seed: int, first_only: bool, paired: bool) -> list[Row]:
    """A row for every pair and figure, of a pair together."""
    labels, persons = images.labels, images.persons
    common = {
        **dict.fromkeys(FIELDS), "dataset": images.dataset, "split": images.split, "samples": samples, "seed": seed,
        "normal": int((labels == 0).sum()), "anomalous": int((labels == 1).sum()),
        "by": "person" if persons else "image",
    }  # fmt: skip
    for what, count in of_each_class(persons or range(len(labels)), labels).items():
        common[f"independent_{what}"] = count
    found = comparison.resampled(labels, np.concatenate([group.scores for group in groups]), persons, samples, seed)
    ends = np.cumsum([len(group.scores) for group in groups])[:-1]
    pairs = [(a, b) for a, b in combinations(range(len(groups)), 2) if a == 0 or not first_only]
    tables = []
    for figure in comparison.FIGURES:
        drawn = np.split(found[figure], ends)  # (K, S) each
        rows = [
            {**common, "figure": figure, **names(groups[a], groups[b])}
            | measured(images, groups[a], groups[b], figure, drawn[a].mean(0) - drawn[b].mean(0), paired)
            for a, b in pairs
        ]
        correct(rows)
        tables.append(rows)
    return [row for of_pair in zip(*tables, strict=True) for row in of_pair]


def names(first: Group, second: Group) -> Row:
    return {
        f"{which}{what}": value
        for which, group in (("first", first), ("second", second))
        for what, value in (
            ("", group.name), ("_experiments", ", ".join(group.experiments)), ("_score", group.score),
            ("_commits", group.commits),
        )
    }  # fmt: skip


def measured(images: Images, first: Group, second: Group, figure: str, drawn: np.ndarray, paired: bool) -> Row:
    """A figure's means over the seeds, and their difference, with what says whether it is chance; ``drawn`` (S,) is the
    difference on every bootstrap sample.
    """
    metric = comparison.FIGURES[figure]
    a, b = (np.array([metric(images.labels, scores) for scores in group.scores]) for group in (first, second))
    difference = float(a.mean() - b.mean())
    paired |= first.experiments == second.experiments  # two scores of the same trainings
    seeds = [a - b] if paired else [a, b]
    low, high = metrics.interval(drawn)
    row = {"first_value": float(a.mean()), "second_value": float(b.mean()), "difference": difference}
    if len(a) == len(b) == 1:
        row |= {"low": low, "high": high, "p": comparison.p_value(drawn)}
    else:
        p, half = comparison.welch(difference, drawn.var(ddof=1), seeds)
        row |= {"low": difference - half, "high": difference + half, "p": p}
        row |= {"low_of_these_seeds": low, "high_of_these_seeds": high}
    if figure == "AUC":
        row["delong_p"] = comparison.delong(images.labels, first.scores, second.scores, images.persons, seeds)
    return row


def correct(rows: list[Row]) -> None:
    """Holm's correction of a figure's p over all pairs, and what is significant by it."""
    for p in ("p", "delong_p"):
        given = [row for row in rows if row[p] is not None]
        for row, corrected in zip(given, comparison.holm([row[p] for row in given]), strict=True):
            row[f"{p}_holm"] = corrected
    for row in rows:
        row["significant"] = row["p_holm"] < comparison.ALPHA


# -- text -------------------------------------------------------------------------------------------------------------


def report(rows: list[Row], paired: bool = False) -> list[str]:
    """Markdown: what was compared, a line for every row, in percent, and how to read it."""
    of, several = rows[0], len(rows) > len(comparison.FIGURES)
    compared = {
        row[which]: f"- {row[which]}: {row[f'{which}_score']} of {row[f'{which}_experiments']}"
        + f" (commit {row[f'{which}_commits']})" * bool(row[f"{which}_commits"])
        for row in rows
        for which in ("first", "second")
    }
    lines = [
        f"{of['dataset']}, {of['split']}: {in_words(of['anomalous'], of['normal'] + of['anomalous'])}; "
        f"{of['samples']} samples of {of['independent_normal']} normal, {of['independent_anomalous']} anomalous "
        f"{of['by']}s, seed {of['seed']}",
        *compared.values(),
        "",
        *table(rows, several),
        "",
        f"Significant at {100 * comparison.ALPHA:.0f} %: {sum(row['significant'] for row in rows)} of {len(rows)}. "
        "Differences and intervals are in percentage points, first less second.",
    ]
    return [*lines, *notes(rows, several), *["Groups are compared seed by seed."] * paired]


def table(rows: list[Row], several: bool) -> list[str]:
    """The lines, padded to be read on a screen; columns that would be empty are left out."""
    corrected = ("_holm", ", Holm") if several else ("", "")
    columns = {
        "difference": lambda row: f"{row['first']} − {row['second']}",
        "of": lambda row: row["figure"],
        "first, %": lambda row: percent(row["first_value"]),
        "second, %": lambda row: percent(row["second_value"]),
        "points": lambda row: points(row["difference"]),
        "95 % interval": lambda row: f"{points(row['low'])} to {points(row['high'])}",
        "of these seeds": lambda row: (
            "–"
            if row["low_of_these_seeds"] is None
            else f"{points(row['low_of_these_seeds'])} to {points(row['high_of_these_seeds'])}"
        ),
        f"p{corrected[1]}": lambda row: probability(row[f"p{corrected[0]}"]),
        f"DeLong's p{corrected[1]}": lambda row: probability(row[f"delong_p{corrected[0]}"]),
        "at 5 %": verdict,
    }
    cells = [[name, *map(column, rows)] for name, column in columns.items()]
    shown = [column for column in cells if set(column[1:]) != {"–"}]
    padded = [[text.ljust(max(map(len, column))) for text in column] for column in shown]
    header, *lines = zip(*padded, strict=True)
    return markdown(header, lines)


def points(share: float) -> str:
    return f"{100 * share:+.1f}"


def probability(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def verdict(row: Row) -> str:
    if not row["significant"]:
        return "not significant"
    return f"significant: {row['first'] if row['difference'] > 0 else row['second']} is higher"


def notes(rows: list[Row], several: bool) -> list[str]:
    """What a reader must know of these rows, a line each."""
    of, pairs = rows[0], len(rows) // len(comparison.FIGURES)
    groups = {row[which]: row[f"{which}_experiments"].count(",") + 1 for row in rows for which in ("first", "second")}
    least = 2 / (of["samples"] + 1)
    lines = []
    if several:
        lines.append(
            f"p is corrected by Holm for {pairs} pairs, AUC and AP each on its own; the intervals are each pair's own."
        )
    if least * pairs >= comparison.ALPHA and any(row["low_of_these_seeds"] is None for row in rows):
        lines.append(
            f"With so few samples p of single ones is {least * pairs:.2g} or more: none is significant. Draw more."
        )
    if any(row["delong_p"] is not None for row in rows):
        lines.append(
            "DeLong's test is Obuchowski's form of it, by person."
            if of["by"] == "person"
            else "The bootstrap and DeLong's test take images for independent: no persons are known."
        )
    if max(groups.values()) > 1:
        seeds = ", ".join(f"{name} {count}" for name, count in groups.items())
        lines.append(
            f"Seeds: {seeds}. Intervals and p are of the configurations, by Student's t over seeds and images; *of "
            "these seeds* is of the images alone."
            + " What another seed of a single one would give is in neither."
            * (min(groups.values()) == 1)
        )
    else:
        lines.append("Each is one training: what another seed would give is in no interval and no p.")
    return lines


def json_text(rows: list[Row]) -> str:
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    cli.run(main)
