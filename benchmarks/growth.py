"""How the cost of ours grows: with the image's size, patches, slots, the data set's size and ensemble members.

Every case works in processes of its own. The exponent is the slope in logarithms, over all sizes and from the last but
one to the last; 1 is linear, and what lies well above it gets a sentence.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import configs
from benchmarks.ddad import epoch as ddad_epoch
from benchmarks.measure import Work, Worker
from benchmarks.workloads import Ours, arrange, epoch, random_images, scoring, training
from dataloader import DATASETS
from dataloader.loader import TrainLoader
from system.device import to_float
from tools.results import markdown

MIB = 2**20
LINEAR, FLAT = 1.1, 0.15  # the exponents above which something is worse than linear, or not flat
SCORED = 16  # images
TINY = ["image_size=64", "base_channels=4", "queue_slots=16", "matrix_slots=8", "statistics_images=16"]


class Case(NamedTuple):
    """One table: ``sizes`` of ``axis`` and what each sets."""

    title: str
    axis: str
    sizes: tuple[int, ...]
    settings: Callable[[int], list[str]]
    position: Callable[[int], float]  # a size → what cost is held against
    why: str  # what grows more than linearly, where something does


SQUID_CASES = {
    "image_size": Case(
        "Image size (zhang_best, batches of 8; held against pixels)", "side, px", (64, 96, 128, 192, 256),
        lambda side: [f"image_size={side}", "batch_size=8"], lambda side: side**2,
        "A patch's feature at the bottleneck has d ∝ pixels values and the attention between neighbours d × d weights, "
        "which grow with pixels², and so do their gradients and Adam's two moments, whatever the batch; convolutions "
        "and memories are linear in pixels.",
    ),
    "patches": Case(
        "Patches (zhang_best, batches of 8, decoder memory V3, V3, –, –, since V1's windows do not come out even in "
        "8 × 8 patches; held against patches per image)", "patches per side", (2, 4, 8),
        lambda side: [f"patches_per_side={side}", "batch_size=8", "decoder_memory=V3,V3,none,none"],
        lambda side: side**2,
        "More patches are smaller ones: the arithmetic shrinks, and what grows is the handling of ever smaller maps.",
    ),
    "slots": Case(
        "Slots (zhang_best, batches of 8, of the queue and of the matrices)", "slots", (200, 1000, 4000),
        lambda slots: [f"queue_slots={slots}", f"matrix_slots={slots}", "batch_size=8"], float,
        "Reading, the gradients of the matrices and Adam's moments are linear in slots; above that lies what no longer "
        "fits the caches.",
    ),
}  # fmt: skip
NAMES = (*SQUID_CASES, "data_set", "members")
DATA_SETS = (128, 512, 2048)
MEMBERS = (2, 3, 5, 8)


def tables(names: Sequence[str], device: torch.device, repeats: int, config: str = "zhang_best") -> Iterator[list[str]]:
    """Markdown, one table after another."""
    yield ["## Growth", "", f"Medians of {repeats}; memory is the peak beyond what the imported modules take.", ""]
    for name in names:
        if name in SQUID_CASES:
            yield squid_table(SQUID_CASES[name], device, repeats, config)
        else:
            yield (data_set_table if name == "data_set" else members_table)(device, repeats)


def squid_table(case: Case, device: torch.device, repeats: int, config: str = "zhang_best") -> list[str]:
    columns: dict[str, list[float]] = {}
    for size in case.sizes:
        settings = (config, case.settings(size))
        batch = configs.build(*settings).batch_size * configs.build(*settings).n_critic
        trained = measured(device, repeats, training, "ours", settings, device)
        scored = measured(device, repeats, scoring, "ours", settings, device, SCORED)
        for column, value in (
            ("training, ms/image", 1e3 * trained[0] / batch),
            ("training, MiB", trained[1] / MIB),
            ("scoring, ms/image", 1e3 * scored[0] / SCORED),
            ("scoring, MiB", scored[1] / MIB),
        ):
            columns.setdefault(column, []).append(value)
    return table(case.title, case.axis, case.sizes, columns, [case.position(size) for size in case.sizes], case.why)


def data_set_table(device: torch.device, repeats: int, sizes: Sequence[int] = DATA_SETS) -> list[str]:
    """Costs per image, so that flat is linear."""
    columns: dict[str, list[float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder), size)
            for column, build in PER_IMAGE.items():
                seconds, peak = measured(device, repeats, build, folder, device)
                columns.setdefault(f"{column}, ms/image", []).append(1e3 * seconds / size)
        columns.setdefault("whole epoch, MiB", []).append(peak / MIB)
    title = (
        "Data set size (64 px files in ZhangLab's folders, a narrow network: zhang_best with base_channels 4, slots 16 "
        "and 8; cost per image is to stay flat)"
    )
    why = (
        "Nothing per image is meant to grow, and memory by the images alone, a byte per pixel: above that lies what no "
        "longer fits the caches."
    )
    return table(title, "training images", sizes, columns, list(sizes), why, flat=FLAT)


def members_table(device: torch.device, repeats: int, sizes: Sequence[int] = MEMBERS, changed=()) -> list[str]:
    columns: dict[str, list[float]] = {}
    for size in sizes:
        settings = ("ddad_brain_ae", [f"members={size}", *changed])
        for stage in ("udm", "ndm", "refine"):
            seconds, peak = measured(device, repeats, ddad_training, settings, device, stage)
            columns.setdefault(f"{stage}, ms/image of an epoch", []).append(1e3 * seconds / DDAD_IMAGES)
            columns.setdefault(f"{stage}, MiB", []).append(peak / MIB)
        seconds, peak = measured(device, repeats, ddad_scoring, settings, device)
        columns.setdefault("scoring, ms/image", []).append(1e3 * seconds / DDAD_IMAGES)
    why = "Each member is a network of its own with a batch of its own: all of it is meant to be linear."
    return table("Members of each ensemble (ddad_brain_ae)", "members", sizes, columns, list(sizes), why)


def measured(device: torch.device, repeats: int, build: Callable[..., Work], *arguments) -> tuple[float, int]:
    """(median seconds, bytes)."""
    worker = Worker(device, build, *arguments)
    seconds = [worker.seconds() for _ in range(repeats)]
    return median(seconds), worker.finish().peak


def table(
    title: str, axis: str, sizes: Sequence[int], columns: dict[str, list[float]], positions: list[float], why: str,
    flat: float = LINEAR,
) -> list[str]:  # fmt: skip
    """A row per size, the exponents, and a sentence on what grows by more than ``flat``."""
    rows = [[str(size), *(f"{values[i]:.3g}" for values in columns.values())] for i, size in enumerate(sizes)]
    over_all = [exponent(positions, values) for values in columns.values()]
    last = [exponent(positions[-2:], values[-2:]) for values in columns.values()]
    rows.append(["**exponent**", *(f"{value:.2f}" for value in over_all)])
    rows.append(["**of the last step**", *(f"{value:.2f}" for value in last)])
    lines = [f"### {title}", "", *markdown([axis, *columns], rows), ""]
    above = [name for name, *slopes in zip(columns, over_all, last, strict=True) if max(slopes) > flat]
    worse = "worse than linear" if flat == LINEAR else "not flat"
    return [*lines, f"{worse.capitalize()}: {'; '.join(above)}. {why}" if above else f"Nothing here is {worse}.", ""]


def exponent(positions: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the logarithms, by least squares; nan for a single size."""
    if len(positions) < 2:
        return math.nan
    return float(np.polyfit(np.log(positions), np.log(np.maximum(values, 1e-9)), 1)[0])


# -- what is done again and again, each set up in a process of its own ----------------------------------------------


def write_images(folder: Path, count: int) -> None:
    """Noise as PNG files: ``count`` to train on, a tenth of that of each class to validate with."""
    for split, name, images in (
        ("train", "normal_256", count), ("val", "normal_256", count // 10), ("val", "pneumonia_256", count // 10),
        ("test", "normal_256", 1), ("test", "pneumonia_256", 1),
    ):  # fmt: skip
        (folder / split / name).mkdir(parents=True)
        for i, image in enumerate(random_images(images, 64, f"{split} {name}")):
            Image.fromarray(image.numpy()).save(folder / split / name / f"{i:05}.png")


def data_set(folder: str):
    config = configs.build("zhang_best", TINY)
    return DATASETS["zhang"](config, Path(folder))


def fingerprinting(folder: str, device: torch.device) -> Work:
    return Work(lambda: data_set(folder).fingerprint())


def reading(folder: str, device: torch.device) -> Work:
    return Work(lambda: data_set(folder).training_images(0))


def loading(folder: str, device: torch.device) -> Work:
    """An epoch's batches in their order, augmented."""
    loader = TrainLoader(data_set(folder), configs.build("zhang_best", TINY), device)
    return Work(lambda: [len(batch.images) for batch in loader.epoch(0).batches()])


def training_epoch(folder: str, device: torch.device) -> Work:
    """With score statistics, validation and metrics."""
    arrangement, dataset = arrange("ours", ("zhang_best", TINY), device), data_set(folder)
    loader, validation = TrainLoader(dataset, dataset.config, device), dataset.split("val")
    return Work(lambda: epoch(arrangement, loader, validation))


PER_IMAGE = {"fingerprint": fingerprinting, "reading files": reading, "loading": loading, "whole epoch": training_epoch}
DDAD_IMAGES = 128


def ddad_method(settings: tuple[str, list[str]], device: torch.device):
    arrangement = arrange("ours", settings, device)
    images = random_images(DDAD_IMAGES, arrangement.method.config.image_size, "training")
    return arrangement, images


def ddad_training(settings: tuple[str, list[str]], device: torch.device, stage: str) -> Work:
    arrangement, images = ddad_method(settings, device)
    arrangement.method.start_stage(stage)
    batch = to_float(images, device)
    return Work(lambda: ddad_epoch(arrangement.method, batch))


def ddad_scoring(settings: tuple[str, list[str]], device: torch.device) -> Work:
    arrangement: Ours
    arrangement, images = ddad_method(settings, device)
    return Work(lambda: arrangement.score(images))
