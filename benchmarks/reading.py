"""What reading a dataset of CheXpert's size takes: at a first start, and at a later one from the cache.

    python benchmarks/reading.py --out results/reading.md

It makes the files of a CheXpert download in a temporary folder: gray JPEGs of 390 × 320 pixels in the official layout,
with an official train.csv. Every start has a process of its own, one after another.
"""

import argparse
import csv
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image

import configs
from benchmarks import report
from benchmarks.measure import peak_resident, resident
from commands import cli
from dataloader import FileDataset, build_dataset
from dataloader.cache import VARIABLE
from dataloader.chexpert import DISEASES
from system.tuning import fit_threads
from tools.results import markdown

SIZE = 390, 320  # width and height of CheXpert-v1.0-small
VIEWS = 2  # images of a patient
ABNORMAL = 10  # one patient in so many
MIB = 2**20
HEADER = ["", "images", "seconds", "of a processor", "peak memory, MiB"]


class Cost(NamedTuple):
    """Of one piece of work in a process of its own."""

    images: int
    seconds: float
    processor: float  # seconds of it, of all threads
    peak: int  # bytes beyond what the process had with its modules imported


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=30_000, metavar="N", help="default: 30000")
    parser.add_argument("--side", type=int, default=128, metavar="N", help="image_size; default: 128")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there too, as Markdown")
    args = parser.parse_args()
    if args.files < 100 or args.side < 1:
        parser.error("--files must be at least 100 (CheXpert's splits are carved from them), --side at least 1")
    return args


def main() -> None:
    args = arguments()
    fit_threads()
    with tempfile.TemporaryDirectory(prefix="reading_") as folder:
        root, cache = Path(folder) / "CheXpert-v1.0-small", Path(folder) / "cache"
        files = make_tree(root, args.files)
        out = report.Report("Reading", args.out, torch.device("cpu"))
        out.add(
            f"{len(files)} made-up JPEGs of {SIZE[0]} × {SIZE[1]} pixels, {size_of(root) / MIB:.0f} MiB, in CheXpert's "
            f"official layout, read as {args.side} × {args.side}. They have just been written, so that the system has "
            "them in memory. A start lists the files and reads the training, validation and test images; the search "
            "for duplicates, which eval.py makes, reads all files once more, at 64 × 64. On a shared machine ratios "
            "and seconds of a processor, as the system counts them over all threads, say more than seconds do.", "",
        )  # fmt: skip
        starts = [("start without a cache", "off", start), ("first start", str(cache), start)]
        starts += [("second start", str(cache), start)]
        looks = [("first search for duplicates", str(cache), search), ("second search", str(cache), search)]
        found = {what: measured(work, root, args.side, place) for what, place, work in starts + looks}
        for path in files[: args.files // 30]:
            os.utime(path, ns=(0, 0))
        found[f"start after {args.files // 30} files changed"] = measured(start, root, args.side, str(cache))
        rows = [
            [what, str(of.images), f"{of.seconds:.1f}", f"{of.processor:.1f}", f"{of.peak / MIB:.0f}"]
            for what, of in found.items()
        ]
        out.add(*markdown(HEADER, rows), "")
        first, second = found["first start"], found["second start"]
        out.add(
            f"The second start takes {first.seconds / second.seconds:.0f} times less time than the first, and "
            f"{first.processor / second.processor:.0f} times less of a processor. The cache has "
            f"{size_of(cache) / MIB:.0f} MiB, that of the search for duplicates included."
        )


def start(dataset: FileDataset) -> int:
    """What main.py and eval.py read; returns how many images."""
    return len(dataset.training_images(0)) + len(dataset.split("val")) + len(dataset.split("test"))


def search(dataset: FileDataset) -> int:
    dataset.duplicates()
    return sum(map(len, dataset.items.values()))


def measured(work: Callable[[FileDataset], int], root: Path, side: int, cache: str) -> Cost:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        cost = process.submit(_cost, work, root, side, cache, torch.get_num_threads()).result()
    print(f"{work.__name__}: {cost.seconds:.1f} s", file=sys.stderr, flush=True)
    return cost


def _cost(work: Callable[[FileDataset], int], root: Path, side: int, cache: str, threads: int) -> Cost:
    torch.set_num_threads(threads)
    os.environ[VARIABLE] = cache
    before, began, processor = resident(), time.perf_counter(), time.process_time()
    dataset = build_dataset(configs.build("chexpert_best", [f"image_size={side}"]), str(root))
    images = work(dataset)
    took = time.perf_counter() - began, time.process_time() - processor
    return Cost(images, *took, peak_resident() - before)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make_tree(root: Path, count: int) -> list[Path]:
    """A download of ``count`` frontal PA radiographs; returns their paths."""
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", *DISEASES, "Support Devices"]
    grain = np.random.default_rng(0).normal(0, 6, (2 * SIZE[1], 2 * SIZE[0])).astype(np.float32)
    paths, rows = [], []
    for number in range(count):
        patient, view = divmod(number, VIEWS)
        study = Path("train") / f"patient{patient + 1:05}" / "study1"
        paths.append(root / study / f"view{view + 1}_frontal.jpg")
        normal, listed = patient % ABNORMAL != 0, Path(root.name) / study / paths[-1].name
        findings = {"No Finding": "1.0"} if normal else {"Edema": "1.0"}
        rows.append(
            {"Path": listed.as_posix(), "Sex": "Male", "Age": 50, "Frontal/Lateral": "Frontal", "AP/PA": "PA"}
            | findings
        )
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(write_radiograph, paths, range(count), [grain] * count):
            pass
    with open(root / "train.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)
    return paths


def write_radiograph(path: Path, number: int, grain: np.ndarray) -> None:
    """Soft shapes, another for every number, under a grain that makes the file as large as a radiograph's."""
    rng = np.random.default_rng(number)
    shapes = Image.fromarray(rng.integers(0, 256, (8, 6), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    top, left = (int(rng.integers(side)) for side in (SIZE[1], SIZE[0]))
    pixels = np.asarray(shapes) + grain[top : top + SIZE[1], left : left + SIZE[0]]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


if __name__ == "__main__":
    cli.run(main)
