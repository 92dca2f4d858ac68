"""What methods cost: training each stage, fitting and scoring, in images a second and peak memory, of random images.

    python benchmarks/cost.py 'zhang_best precision=bf16' patchcore 'ganomaly image_size=32' --out results/cost.md
    python benchmarks/cost.py zhang_best --vary image_size=64,96,128,192      # and how it grows
    python benchmarks/cost.py padim patchcore --beside-anomalib               # where anomalib is installed

A case is a configuration's name and changed settings. Each piece of work has a process of its own, one after another.
Frozen features are as drawn, which costs what the pretrained ones cost.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import configs
from benchmarks import report
from benchmarks.beside_anomalib import works as anomalib_works
from benchmarks.measure import Work, Worker
from benchmarks.workloads import Settings, fitting, scoring, stages_that_train, training
from commands import cli
from system.device import choose_device
from system.tuning import fit_threads
from tools.results import markdown

MIB = 2**20
HEADER = ["case", "work", "images", "images/s", "peak memory, MiB"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", metavar="CASE", help="'NAME key=value …'")
    parser.add_argument(
        "--vary", action="append", default=[], metavar="KEY=A,B,…",
        help="each case with each of these values, and the exponents; more than once: one after another",
    )  # fmt: skip
    parser.add_argument("--batches", type=int, default=2, metavar="N", help="of each stage; default: 2")
    parser.add_argument("--fit-images", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--score-images", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--beside-anomalib", action="store_true", help="padim and patchcore: anomalib's too, by turns with ours"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the tables there too, as Markdown")
    args = parser.parse_args()
    if min(args.batches, args.fit_images, args.score_images, args.repeats) < 1:
        parser.error("counts must be at least 1")
    if args.beside_anomalib and not find_spec("anomalib"):
        parser.error("anomalib is not installed here: pip install anomalib, in an environment of its own")
    return args


def main() -> None:
    args = arguments()
    device = choose_device(args.device)
    fit_threads()
    varied = [series(case, vary) for vary in args.vary or [""] for case in args.cases]
    for case in {case for cases in varied for case in cases}:  # before anything is measured
        configs.build(*settings_of(case))
    out = report.Report("Cost", args.out, device)
    out.add(
        f"Medians of {args.repeats} (lowest – highest). Peak memory is of a process that does this work alone, beyond "
        "what it had with its modules imported; its random images count.", "",
    )  # fmt: skip
    for vary in args.vary or [""]:
        found = {case: costs(case, args, device) for each in args.cases for case in series(each, vary)}
        rows = [
            [case, what, str(cost.images), report.spread(cost.rates), f"{cost.peak / MIB:.0f}"]
            for case, of_case in found.items()
            for what, cost in of_case.items()
        ]
        out.add(f"## {vary or 'Cases'}", "", *markdown(HEADER, rows), "")
        if vary:
            out.add(*exponents(vary, [[found[case] for case in series(each, vary)] for each in args.cases], args.cases))


class Cost(NamedTuple):
    """Of one piece of work."""

    images: int  # of one repetition
    rates: list[float]  # images a second, of every repetition
    peak: int  # bytes


def series(case: str, vary: str) -> list[str]:
    """A case with each value of ``KEY=A,B,…``, or alone."""
    key, _, values = vary.partition("=")
    return [f"{case} {key}={value}" for value in values.split(",")] if vary else [case]


def settings_of(case: str) -> Settings:
    name, *overrides = case.split()
    return name, overrides


def costs(case: str, args: argparse.Namespace, device: torch.device) -> dict[str, Cost]:
    """What each piece of a case's work costs."""
    found = {}
    for what, (images, builds) in works(settings_of(case), args, device).items():
        workers = [Worker(device, build) for build in builds]
        by_turns = [[images / worker.seconds() for worker in workers] for _ in range(args.repeats)]
        for whose, worker, *rates in zip(("", ", anomalib"), workers, *by_turns, strict=False):
            found[what + whose] = Cost(images, rates, worker.finish().peak)
            print(f"{case}: {what}{whose}, {median(rates):.3g} images/s", file=sys.stderr, flush=True)
    return found


def works(
    settings: Settings, args: argparse.Namespace, device: torch.device
) -> dict[str, tuple[int, list[Callable[[], Work]]]]:
    """What to measure of a case: its name → how many images one repetition takes, and what sets it up: ours, and where
    it is asked for anomalib's.
    """
    found = {}
    stages = stages_that_train(configs.build(*settings))
    for stage in stages:
        images = args.batches * stage.batch_size * stage.orders
        build = partial(training, "ours", settings, device, stage.name, args.batches)
        found["training" if len(stages) == 1 else f"training, {stage.name}"] = images, [build]
    if not stages:
        found["fitting"] = args.fit_images, [partial(fitting, "ours", settings, device, args.fit_images)]
    build = partial(scoring, "ours", settings, device, args.score_images, args.fit_images)
    found["scoring"] = args.score_images, [build]
    if args.beside_anomalib and settings[0] in ("padim", "patchcore"):
        found["fitting"][1].append(partial(anomalib_works.fitting, settings, device, args.fit_images))
        of = args.score_images, args.fit_images
        found["scoring"][1].append(partial(anomalib_works.scoring, settings, device, *of))
    return found


def exponents(vary: str, found: list[list[dict[str, Cost]]], cases: list[str]) -> list[str]:
    """How time an image and memory grow with a setting, value to value: 1 as it does, 2 as its square."""
    sizes = [float(value) for value in vary.partition("=")[2].split(",")]
    steps = list(pairwise(range(len(sizes))))
    rows = []
    for case, costs_of in zip(cases, found, strict=True):
        for what in costs_of[0]:
            of = {
                "time an image": [1 / median(each[what].rates) for each in costs_of],
                "memory": [max(each[what].peak, 1) for each in costs_of],
            }
            for name, values in of.items():
                slopes = [log(values[b] / values[a]) / log(sizes[b] / sizes[a]) for a, b in steps]
                rows.append([case, what, name, *(f"{slope:.2f}" for slope in slopes)])
    header = ["case", "work", "exponent of", *(f"{sizes[a]:g} → {sizes[b]:g}" for a, b in steps)]
    return [*markdown(header, rows), ""]


if __name__ == "__main__":
    cli.run(main)
