"""How the scores of normal and anomalous images are spread, of several experiments in one figure.

    python tools/histograms.py AE=brain_ae MemAE=brain_memae --score intra inter --out results/brain_histograms.png

A row of panels for every score (--score; default: all that the experiments have in common), a panel for every
experiment, with the thresholds and the χ² distance of the two densities, as eval.py draws them for one. --out x.pdf
writes a PDF; more than one file may be named.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from commands import cli
from evaluation import plots
from experiments.folder import Experiment, ExperimentError
from tools import results_page
from tools.compare import evaluated, in_order_of
from tools.make_tables import read_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="[NAME=]EXP", help="experiments evaluated on the same images")
    parser.add_argument("--score", nargs="+", metavar="SCORE", help="these scores alone")
    parser.add_argument("--out", type=Path, nargs="+", required=True, metavar="FILE", help="the figure: .png or .pdf")
    args = parser.parse_args()
    if any(path.suffix not in (".png", ".pdf") for path in args.out):
        parser.error("--out must end in .png or .pdf")
    parts = [given.rpartition("=") for given in args.experiments]
    named = {name or experiment: Experiment(experiment) for name, _, experiment in parts}
    first, panels, results = None, {}, {}
    for score in args.score or common_scores(list(named.values())):
        for name, experiment in named.items():
            found = evaluated(experiment, score)
            first = first or found
            panels[f"{name}, {score}"] = in_order_of(first, found)
            results[f"{name}, {score}"] = figures(experiment)[score]
    labels = np.array([label for label, _ in first.images.values()])
    for path in args.out:
        plots.histograms(labels, panels, results, path, across=len(named))
    results_page.follow(args.out)
    print("Written: " + ", ".join(map(str, args.out)))


def figures(experiment: Experiment) -> dict[str, dict]:
    """What results.json says of every score. Raises ExperimentError where it is missing or damaged."""
    read_rows(experiment)
    return json.loads(experiment.path("results.json").read_text(encoding="utf-8"))["scores"]


def common_scores(experiments: list[Experiment]) -> list[str]:
    """Those that all have, in the first one's order. Raises ExperimentError where there are none."""
    every = [figures(experiment) for experiment in experiments]
    if found := [score for score in every[0] if all(score in of for of in every)]:
        return found
    raise ExperimentError(f"{', '.join(experiment.name for experiment in experiments)}: have no score in common.")


if __name__ == "__main__":
    cli.run(main)
