"""How much of a method's AUC does the smoothness of the images explain?

    python tools/smoothness.py --exp ID [ID ...] [--score SCORE] [--data-root PATH]

Smoothness is one number without any training: how little neighbouring pixels differ in the image averaged to 64×64.
What is diseased in a radiograph is often smoother, so smoothness alone has an AUC, the first row; prepare_data.py
--check says it too. Beside each experiment's AUC (main score, as eval.py evaluated it) stands

    rank correlation         Spearman's, of score and smoothness among normal and among anomalous images
    AUC at equal smoothness  of the pairs of a normal and an anomalous image whose mean steps are less than a fifth of
                             the normal images' standard deviation apart, the share that is in order: near 50 % where a
                             score says nothing beyond smoothness (they are not quite equal: smoothness itself has
                             somewhat more, its row says how much). A covariate-adjusted AUC (Janes and Pepe,
                             Biometrika 2009) by matching. Its 95 % interval is a bootstrap's, by person where known

Tables go to the screen and to results/smoothness.md, all figures to results/smoothness.csv (rows are replaced by
experiment id).
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from commands import cli
from dataloader import Dataset, FileDataset, build_dataset
from dataloader.duplicates import SIDE
from dataloader.images import read_images
from evaluation import metrics
from experiments.folder import Experiment, ExperimentError
from system.files import write_text
from tools import results_page
from tools.check_data import mean_step, shrunk
from tools.compare import Evaluated, evaluated
from tools.results import RESULTS, markdown, percent, replace_rows

WIDTH = 0.2  # of the normal images' standard deviation: closer is equal
FIELDS = (
    "experiment", "config", "seed", "dataset", "split", "score", "checkpoint", "normal", "anomalous", "auc",
    "correlation_normal", "correlation_anomalous", "pairs", "matched_auc", "matched_auc_low", "matched_auc_high",
    "interval_by", "smoothness_auc", "smoothness_matched_auc",
)  # fmt: skip
NOTES = """# What smoothness explains

Written by `tools/smoothness.py` from smoothness.csv. Its help says what the columns are; AUC in percent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", required=True, nargs="+", metavar="ID", help="experiments that eval.py has evaluated")
    parser.add_argument("--score", metavar="SCORE", help="instead of the main score")
    cli.add_data_root(parser)
    args = parser.parse_args()
    rows = [examine(Experiment(name), args.score, args.data_root) for name in dict.fromkeys(args.exp)]
    every = replace_rows(RESULTS / "smoothness.csv", FIELDS, rows)
    write_text(RESULTS / "smoothness.md", "\n".join([NOTES, *tables(every)]) + "\n")
    results_page.write()
    print("\n".join(tables([row for row in every if row["experiment"] in args.exp])))
    print(f"Written: {RESULTS / 'smoothness.csv'}, {RESULTS / 'smoothness.md'}")


def examine(experiment: Experiment, score: str | None, data_root: str | None) -> dict[str, object]:
    """An experiment's row. Raises ExperimentError, DataError, MetricError."""
    name, config, _ = experiment.load_config()
    found = evaluated(experiment, score)
    step = steps(build_dataset(config, data_root), found)
    labels, persons = (np.array(column) for column in zip(*found.images.values(), strict=True))
    persons = persons.tolist() if any(persons) else None
    equal = pairs(labels, step)
    if not equal.any():
        raise ExperimentError(f"{experiment.folder}: no normal and anomalous image are equally smooth.")
    low, high = matched_interval(labels, found.scores, equal, persons)
    return {
        "experiment": experiment.name,
        "config": name,
        **{key: found.row[key] for key in ("seed", "dataset", "split", "score", "checkpoint")},
        "normal": int((labels == 0).sum()),
        "anomalous": int((labels == 1).sum()),
        "auc": metrics.auc(labels, found.scores),
        "correlation_normal": float(spearmanr(-step[labels == 0], found.scores[labels == 0]).statistic),
        "correlation_anomalous": float(spearmanr(-step[labels == 1], found.scores[labels == 1]).statistic),
        "pairs": int(equal.sum()),
        "matched_auc": matched_auc(labels, found.scores, equal),
        "matched_auc_low": low,
        "matched_auc_high": high,
        "interval_by": "image" if persons is None else "person",
        "smoothness_auc": metrics.auc(labels, -step),
        "smoothness_matched_auc": matched_auc(labels, -step, equal),
    }


def steps(dataset: Dataset, found: Evaluated) -> np.ndarray:
    """The mean step of every image in ``found``'s order, (N,). Raises ExperimentError where the data are others."""
    split = found.row["split"]
    if isinstance(dataset, FileDataset):
        items = dataset.items[split]
        ids, grays = map(dataset.item_id, items), read_images([item.path for item in items], SIDE, "images", "box")
    else:
        if found.row["data"] != dataset.fingerprint():  # which images these are, their ids do not tell
            raise ExperimentError(
                f"{found.file}: of other images ({found.row['data']}) than {dataset.root} gives "
                f"({dataset.fingerprint()}). Name the data it was evaluated on: --data-root."
            )
        images = dataset.split(split)
        ids, grays = images.ids, torch.stack([shrunk(image) for image in images.images])
    step = dict(zip(ids, mean_step(grays), strict=True))
    if missing := [image for image in found.images if image not in step]:
        raise ExperimentError(
            f"{found.file}: {missing[0]} is not in {dataset.root}. Name the data it was evaluated on: --data-root."
        )
    return np.array([step[image] for image in found.images])


def pairs(labels: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Which anomalous (A) and normal (B) images are equally smooth: (A, B) bool."""
    normal = step[labels == 0]
    return np.abs(step[labels == 1][:, None] - normal) < WIDTH * normal.std()


def in_order(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of every pair 1 where the anomalous image scores higher, ½ for a tie, else 0: (A, B)."""
    anomalous, normal = scores[labels == 1][:, None], scores[labels == 0]
    return (anomalous > normal) + (anomalous == normal) / 2


def matched_auc(labels: np.ndarray, scores: np.ndarray, equal: np.ndarray) -> float:
    return float(in_order(labels, scores)[equal].mean())


def matched_interval(
    labels: np.ndarray, scores: np.ndarray, equal: np.ndarray, persons: list[str] | None
) -> list[float]:
    """[low, high], each class resampled on its own as for eval.py's intervals."""
    right = in_order(labels, scores) * equal
    values = []
    for times in metrics.draws(labels, persons, metrics.RESAMPLES, seed=0):
        anomalous, normal = times[labels == 1], times[labels == 0]
        count = anomalous @ equal @ normal
        values += [anomalous @ right @ normal / count] if count else []
    return metrics.interval(np.array(values))


def tables(rows: list[dict[str, str]]) -> list[str]:
    """Markdown: a table for all experiments of the same images, the best at equal smoothness first."""
    header = ["experiment", "score", "AUC", "rank correlation, normal", "anomalous", "AUC at equal smoothness", "95 %"]
    lines = []
    same = defaultdict(list)
    for row in rows:
        images = ("dataset", "split", "normal", "anomalous", "pairs", "smoothness_auc", "smoothness_matched_auc")
        same[tuple(str(row[key]) for key in images)].append(row)
    for (dataset, split, *_), own in same.items():
        alone = own[0]
        cells = [["smoothness alone", "–", share(alone, "smoothness_auc"), "1.00", "1.00",
                  share(alone, "smoothness_matched_auc"), "–"]]  # fmt: skip
        for row in sorted(own, key=lambda row: -float(row["matched_auc"])):
            cells.append([
                row["experiment"], row["score"], share(row, "auc"), f"{float(row['correlation_normal']):.2f}",
                f"{float(row['correlation_anomalous']):.2f}", share(row, "matched_auc"),
                f"{share(row, 'matched_auc_low')} – {share(row, 'matched_auc_high')} by {row['interval_by']}",
            ])  # fmt: skip
        about = f"{alone['normal']} normal and {alone['anomalous']} anomalous images, {alone['pairs']} pairs."
        lines += ["", f"## {dataset}, {split}", "", about, "", *markdown(header, cells)]
    return lines


def share(row: dict[str, str], key: str) -> str:
    return percent(float(row[key]))


if __name__ == "__main__":
    cli.run(main)
