"""SQUID's speed beside the plain arrangement of the released program (plain_squid.py), all measured in this one run.

    python benchmarks/speed.py [--out results/speed.md]

First both must give the same numbers. Then every arrangement works in a process of its own; they take turns, one
computing at a time, so that a ratio is of neighbouring repetitions. Medians with the lowest and the highest.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import configs
from benchmarks import agreement, report
from benchmarks.measure import Measured, Worker, count_flops, timed
from benchmarks.workloads import ARRANGEMENTS, Counts, machine_limit, scoring, training, whole_epoch
from commands import cli
from system.device import choose_device
from system.tuning import fit_threads
from tools.results import markdown

LIMITS = ("product fp32", "product bf16", "convolution fp32", "convolution bf16")
MIB = 2**20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only look whether both give the same numbers")
    parser.add_argument("--config", default="zhang_best", metavar="NAME", help="of method squid; default: zhang_best")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changed settings of it")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="of each ratio; default: 5")
    parser.add_argument("--score-images", type=int, default=64, metavar="N", help="scored; default: 64")
    parser.add_argument(
        "--epoch-images", type=int, default=192, metavar="N",
        help="training images of the whole epoch; validation and statistics follow in ZhangLab's proportions of "
        "1,249 : 200 : 201; default: 192",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the tables there too, as Markdown")
    args = parser.parse_args()
    if min(args.repeats, args.score_images, args.epoch_images) < 1:
        parser.error("counts must be at least 1")
    return args


def main() -> int:
    args = arguments()
    device = choose_device(args.device)
    fit_threads()
    settings = (args.config, args.set)
    if configs.build(*settings).method != "squid":
        raise configs.ConfigError(f"--config {args.config}: the plain arrangement is of method squid.")
    out = report.Report("Speed", args.out, device)
    found = agreement.differences(settings, device)
    out.add(*differences_table(found))
    agrees = not any(difference.too_large for difference in found)
    if agrees and not args.check:
        out.add(*ratios(args, settings, device))
    if not agrees:
        print("error: the arrangements do not give the same numbers; nothing was measured", file=sys.stderr)
    return 0 if agrees else 1


def differences_table(found: list[agreement.Difference]) -> list[str]:
    rows = [
        [d.precision, d.what, f"{d.largest:.1e}", "–" if d.tolerance is None else f"{d.tolerance:.0e}"]
        + (["**too large**"] if d.too_large else ["reported" if d.tolerance is None else "yes"])
        for d in found
    ]
    header = ["precision", "ours and plain, from the same seed", "largest relative difference", "tolerance", "agrees"]
    note = (
        "After an update float32 says little: a bias before a batch norm has no gradient but rounding, which Adam "
        "turns into steps. float64 decides there, and float32 is reported."
    )
    return ["## Same numbers", "", *markdown(header, rows), "", note, ""]


def ratios(args: argparse.Namespace, settings: tuple[str, list[str]], device: torch.device) -> list[str]:
    config, counts = configs.build(*settings), Counts.like_zhang(args.epoch_images)
    iterations, batch = config.n_critic, config.batch_size
    limits = machine_limits(device, args.repeats)
    rows, costs = [], []
    for what, images, build, extra in (
        (f"training, {iterations} iterations of {batch} images", iterations * batch, training, ()),
        (f"scoring, {args.score_images} images", args.score_images, scoring, (args.score_images,)),
        (f"whole epoch, {counts.training} training images", counts.training, whole_epoch, (counts,)),
    ):
        seconds, measured = in_turn(build, settings, device, args.repeats, *extra)
        rows += ratio_rows(what, images, seconds, measured)
        costs += cost_rows(what, seconds, measured, limits)
        progress = ", ".join(f"{name} {median(times):.2f} s" for name, times in seconds.items())
        print(f"{what}: {progress}", file=sys.stderr, flush=True)
    header = ["work", "arrangement", "seconds", "images/s", "ratio to plain", "peak memory, MiB", "of plain's"]
    return [
        f"## Ours beside the plain arrangement: {args.config}{''.join(f', {pair}' for pair in args.set)}", "",
        f"Medians of {args.repeats} (lowest – highest). A whole epoch trains on {counts.training} images, takes score "
        f"statistics of {counts.statistics}, scores {counts.validation} for validation and makes metrics of them. Peak "
        "memory is of a process that does this work alone, beyond what it had with its modules imported.", "",
        *markdown(header, rows), "", "## Arithmetic", "",
        *markdown(["work", "arrangement", "GFLOP", "GFLOP/s", "of the product", "of the convolution"], costs), "",
        *markdown(["the machine's limit, in this run", "GFLOP/s"], [[k, f"{v:.0f}"] for k, v in limits.items()]),
        "", "product: 2048 × 2048 by 2048 × 2048; convolution: 3 × 3, 64 → 64 channels, 16 maps of 128 × 128.", "",
    ]  # fmt: skip


def in_turn(
    build, settings, device: torch.device, repeats: int, *extra
) -> tuple[dict[str, list[float]], dict[str, Measured]]:
    """Seconds of every repetition, and the rest, of each arrangement."""
    workers = {name: Worker(device, build, name, settings, device, *extra) for name in ARRANGEMENTS}
    seconds = {name: [] for name in workers}
    for _ in range(repeats):
        for name, worker in workers.items():
            seconds[name].append(worker.seconds())
    return seconds, {name: worker.finish(flops=build is not whole_epoch) for name, worker in workers.items()}


def machine_limits(device: torch.device, repeats: int) -> dict[str, float]:
    """GFLOP/s of a matrix product and a convolution."""
    found = {}
    for what in LIMITS:
        work = machine_limit(what, device)
        work.run()
        seconds = median([timed(work.run, device) for _ in range(repeats)])
        found[what] = count_flops(work) / seconds / 1e9
    return found


def ratio_rows(
    what: str, images: int, seconds: dict[str, list[float]], measured: dict[str, Measured]
) -> list[list[str]]:
    rows = []
    for name, times in seconds.items():
        ratio = "1" if name == "plain" else report.ratios(seconds["plain"], times)
        peak, of_plain = measured[name].peak, measured[name].peak / max(measured["plain"].peak, 1)
        per_second, memory = f"{images / median(times):.1f}", [f"{peak / MIB:.0f}", f"{100 * of_plain:.0f} %"]
        rows.append([what, name, report.spread(times), per_second, ratio, *memory])
    return rows


def cost_rows(
    what: str, seconds: dict[str, list[float]], measured: dict[str, Measured], limits: dict[str, float]
) -> list[list[str]]:
    rows = []
    for name, times in seconds.items():
        if flops := measured[name].flops / 1e9:
            rate, precision = flops / median(times), "bf16" if name == "ours bf16" else "fp32"
            shares = [f"{100 * rate / limits[f'{kind} {precision}']:.0f} %" for kind in ("product", "convolution")]
            rows.append([what, name, f"{flops:.1f}", f"{rate:.1f}", *shares])
    return rows


if __name__ == "__main__":
    cli.run(main)
