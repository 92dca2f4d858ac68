"""Scoring image files that are read a few at a time, so that memory hardly grows with their number."""

import itertools
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from configs import BaseConfig
from dataloader.base import in_colour
from dataloader.errors import DataError
from dataloader.familiar import unfamiliar
from dataloader.images import FORMATS, decoded, fitted, image_files, pixels_of, require_utf8, to_gray, to_rgb
from evaluation.plots import sampled, scale
from evaluation.scoring import Scored, joined, score_images
from experiments.folder import ExperimentError
from methods import Method
from system.progress import watched

AT_ONCE = 64  # files


def listed_files(paths: list[Path]) -> dict[Path, Path]:
    """Every file to score → what its pictures are called below their folder, without suffix; of equal names the later
    ones get a number. Raises DataError for a path that is not there.
    """
    found: dict[Path, Path] = {}
    taken: set[Path] = set()
    for path in paths:
        if not os.path.exists(path):  # of a name too long too
            raise DataError(f"{path}: no such file or folder. Mend the path.")
        files = image_files(path) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: holds no {FORMATS}.")
        for file in files:
            if file not in found:
                name = Path(file.name) if file == path else file.relative_to(path)
                found[file] = free(name.with_suffix(""), taken)
                taken.add(found[file])
    return found


def free(name: Path, taken: set[Path]) -> Path:
    """``name``, or that with the first number that is not taken."""
    numbered = (name.with_name(f"{name.name}_{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([name], numbered) if path not in taken)


def check_apart(option: str, target: Path, inputs: list[Path]) -> None:
    """Raise an ExperimentError where pictures would be written over, or among, the images to score."""
    for path in inputs:
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        if target.resolve() == folder or (path.is_dir() and folder in target.resolve().parents):
            raise ExperimentError(f"{option} {target}: would write among the images to score; name another folder.")


@dataclass
class ReadFile:
    """An image file as the networks see it."""

    path: Path
    pixels: torch.Tensor  # (H, W) uint8; (3, H, W) in colour
    size: tuple[int, int]  # its own: width, height


@dataclass
class ScoredFiles:
    """N image files with their scores, and what a person should know of them."""

    paths: list[Path]
    scored: Scored  # without maps
    small: np.ndarray  # (N,) bool: a side of less than half the networks'
    unlike: np.ndarray  # (N,) bool: unlike the training images, where it is known what those look like
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)  # of all maps of an image score


def score_files(
    method: Method, paths: Sequence[Path], device: torch.device, known: dict[str, Any] | None, with_scales: bool
) -> tuple[ScoredFiles | None, list[str]]:
    """The files with their scores, None where none can be read; and of each that cannot, why. A progress bar on a
    terminal.

    Args:
        known: what is recorded of the training images, see :mod:`dataloader.familiar`; None of an older experiment.
        with_scales: look through all maps for the values to show brightest.
    """
    parts, failed = [], []
    pixels = defaultdict(list)
    for files in read_in_parts(paths, method.config, failed, "files"):
        images = torch.stack([file.pixels for file in files])
        scored = score_images(method, images, device, "scoring", keep_maps=with_scales)
        for name, maps in scored.maps.items():
            pixels[name].append(sampled(maps).ravel())
        scored.maps = {}
        small = [min(file.size) < method.config.image_size / 2 for file in files]
        unlike = unfamiliar(images, known) if known else np.zeros(len(files), bool)
        parts.append(ScoredFiles([file.path for file in files], scored, np.array(small), unlike))
    if not parts:
        return None, failed
    whole = ScoredFiles(
        [path for part in parts for path in part.paths], joined([part.scored for part in parts]),
        np.concatenate([part.small for part in parts]), np.concatenate([part.unlike for part in parts]),
        {name: scale(np.concatenate(of_score)) for name, of_score in pixels.items()},
    )  # fmt: skip
    return whole, failed


def read_in_parts(paths: Sequence[Path], config: BaseConfig, failed: list[str], what: str) -> Iterator[list[ReadFile]]:
    """The files that can be read, as configured, a few at a time; why others cannot goes to ``failed``."""

    def read(path: Path) -> ReadFile | str:
        try:
            return read_file(path, config)
        except DataError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in watched(range(0, len(paths), AT_ONCE), f"{what}, {AT_ONCE} at a time"):
            found = list(pool.map(read, paths[start : start + AT_ONCE]))
            failed += [why for why in found if isinstance(why, str)]
            if files := [file for file in found if isinstance(file, ReadFile)]:
                yield files


def read_file(path: Path, config: BaseConfig) -> ReadFile:
    """As :func:`dataloader.images.read_image`. Raises DataError, also for a name that cannot be written down."""
    require_utf8(path)
    colour = in_colour(config)
    image = decoded(path, to_rgb if colour else to_gray)
    shown = fitted(image, config.image_size, Image.Resampling[config.resize.upper()], config.fit)
    return ReadFile(path, torch.from_numpy(pixels_of(shown, colour)), image.size)
