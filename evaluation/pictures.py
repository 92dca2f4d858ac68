"""Pictures and maps of image files, written a few at a time as the files are read and scored again."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dataloader.images import decoded, to_gray, unfitted
from evaluation import plots
from evaluation.files import ReadFile, ScoredFiles, read_in_parts
from evaluation.scoring import score_batches
from methods import Method
from system.device import to_float
from system.files import write_atomically


def write(
    method: Method, found: ScoredFiles, names: dict[Path, Path], captions: dict[Path, list[str]], device: torch.device,
    images: Path | None, maps: Path | None,
) -> list[str]:  # fmt: skip
    """For every file a picture below ``images`` and its maps below ``maps``; ``names`` are those there, without
    suffix. Returns why files cannot be read any more. A progress bar on a terminal.
    """
    failed: list[str] = []
    for files in read_in_parts(found.paths, method.config, failed, "drawing"):
        for file, x_hat, of_file in scored_again(method, files, device):
            name = names[file.path]
            if images:
                shown = next((score for score in (method.main_score, *of_file) if score in of_file), None)
                heat = plots.Heat(shown, of_file[shown], found.scales[shown]) if shown else None
                draw(file, x_hat, heat, captions[file.path], ending(images / name, ".png"))
            if maps:
                write_maps(maps / name, file, of_file, found.scales, method.config.fit)
    return failed


def scored_again(
    method: Method, files: list[ReadFile], device: torch.device
) -> Iterator[tuple[ReadFile, np.ndarray | None, dict[str, np.ndarray]]]:
    """Every file with its reconstruction, where the method has one, and its maps by name: (H, W) each."""
    following = iter(files)
    for batch in score_batches(torch.stack([file.pixels for file in files]), device):
        scores = method.score(to_float(batch, device), all_maps=True)
        x_hats = None if scores.reconstruction is None else scores.reconstruction.cpu().numpy()[:, 0]
        maps = {score: pixels.cpu().numpy()[:, 0] for score, pixels in scores.maps.items()}
        for i, file in enumerate(islice(following, len(batch))):
            yield file, None if x_hats is None else x_hats[i], {score: of_all[i] for score, of_all in maps.items()}


def draw(file: ReadFile, x_hat: np.ndarray | None, heat: plots.Heat | None, captions: list[str], target: Path) -> None:
    """input | reconstruction | difference | map, those that there are."""
    x = file.pixels.numpy() / 255
    gray = {"input": x}
    if x_hat is not None:
        gray |= {"reconstruction": x_hat, "difference": np.abs(x - x_hat)}
    plots.strip(printable(file.path.name), captions, gray, heat, target)


def write_maps(
    target: Path, file: ReadFile, maps: dict[str, np.ndarray], scales: dict[str, tuple[float, float]], fit: str
) -> None:
    """Every map (H, W) as it is, as a heat map of the file's size and laid over the file's image."""
    original = decoded(file.path, to_gray)
    for score, pixels in maps.items():
        heat = unfitted(pixels, original.size, fit)
        pictures = {
            "heat": plots.colours(heat, scales[score]),
            "overlay": plots.overlay(np.asarray(original), heat, scales[score]),
        }
        write_array(ending(target, f".{score}.npy"), pixels.astype(np.float32))
        for what, picture in pictures.items():
            write_picture(ending(target, f".{score}.{what}.png"), picture)


def write_array(path: Path, values: np.ndarray) -> None:
    def write(part: Path) -> None:
        with open(part, "wb") as file:  # to a name of its own np.save appends one
            np.save(file, values)

    write_atomically(path, write)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, lambda part: Image.fromarray(pixels).save(part, format="PNG"))


def ending(target: Path, suffix: str) -> Path:
    """``target`` with something after its name, which may have dots."""
    return target.with_name(target.name + suffix)


def printable(text: object) -> str:
    """Text for one line of a screen or a picture: line breaks and the like are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
