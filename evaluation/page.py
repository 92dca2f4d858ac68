"""A page to look at an evaluation: index.html in the experiment's folder, and strips/, a picture of every image.

It opens from disk in any browser, without a server or a package. Its links are relative and it asks for nothing beyond
the folder, so that the folder can be moved or mailed.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from dataloader.base import Split
from evaluation import plots, report
from evaluation.scoring import Scored
from experiments.folder import Experiment
from system.files import write_atomically, write_text

HERE = Path(__file__).parent
STRIPS = "strips"
SIDE = 256  # pixels of a panel, at the most
THRESHOLDS = {key: what for key, (what, *_) in plots.THRESHOLDS.items()} | {"at_oracle_threshold": "oracle threshold"}
UNKNOWN = "–"


def write(
    experiment: Experiment, split: Split, scored: Scored, results: dict, files: list[str],
    duplicates: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """index.html and strips/ of the evaluated images.

    Args:
        files: what the evaluation wrote into the folder, to be linked; its figures are found there.
        duplicates: id → how a test image repeats another.
    """
    shutil.rmtree(experiment.path(STRIPS), ignore_errors=True)  # of another evaluation
    names = [f"{STRIPS}/{i:05d}.jpg" for i in range(len(split))]
    panels, strip = painter(split, scored, results["main_score"])
    with ThreadPoolExecutor() as pool:  # one draws while others wait for the disk
        list(pool.map(lambda i: save(strip(i), experiment.path(names[i])), range(len(split))))
    found = {
        "title": results["experiment"],
        "about": f"{results['method']} on {results['dataset']}, configuration {results['config']}, seed "
        f"{results['seed']}; {results['checkpoint']} checkpoint of epoch {results['epoch']}; {results['split']}: "
        f"{results['images']}; commit {results['commit']}",
        "files": files,
        "table": table(results["scores"]),
        "summary": report.summary(results),
        "figures": {
            f"figures/{name}.png": what
            for name, what in plots.FIGURES.items()
            if experiment.path(f"figures/{name}.png").exists()
        },
        "panels": panels,
        "main": results["main_score"],
        "thresholds": {name: thresholds(figures) for name, figures in results["scores"].items()},
        "scores": {name: values.tolist() for name, values in scored.image.items()},
        "ids": split.ids,
        "labels": split.labels.tolist(),
        "kinds": split.kinds,
        "remarks": remarks(split, duplicates or {}),
        "strips": names,
    }
    # </script> in a name would end the element
    data = json.dumps(found, ensure_ascii=False, allow_nan=False).replace("<", r"\u003c")
    write_text(experiment.path("index.html"), filled(HERE / "page.html", DATA=data))


def filled(template: Path, **parts: str) -> str:
    """The text of a page: ``template`` with the style that all share and these parts, each in the place >NAME<."""
    text = template.read_text(encoding="utf-8")
    for name, part in {"STYLE": (HERE / "page.css").read_text(encoding="utf-8"), **parts}.items():
        text = text.replace(f">{name}<", f">\n{part}<", 1)
    return text


def table(scores: dict[str, dict]) -> list[list[str]]:
    """A header and a row for every score, in percent; columns in which nothing is known are left out."""
    header = ["score, %", "AUC", "95 % interval", "AP"]
    header += [f"{rate}, {what}" for what in THRESHOLDS.values() for rate in ("recall", "specificity")]
    rows = []
    for name, figures in scores.items():
        at = [figures.get(key, {}) for key in THRESHOLDS]
        rates = [percent(found.get(rate)) for found in at for rate in ("recall", "specificity")]
        interval = " – ".join(map(percent, figures.get("auc_ci95", [None])))
        rows.append([name, percent(figures.get("auc")), interval, percent(figures.get("average_precision")), *rates])
    known = [column for column in zip(header, *rows, strict=True) if set(column[1:]) != {UNKNOWN}]
    return [list(row) for row in zip(*known, strict=True)]


def percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.1f}"


def thresholds(figures: dict) -> dict[str, float]:
    """The finite thresholds of a score by what they are called."""
    found = {what: figures[key]["threshold"] for key, what in THRESHOLDS.items() if key in figures}
    return {what: threshold for what, threshold in found.items() if threshold != "inf"}


def remarks(split: Split, duplicates: dict[str, str]) -> list[str]:
    """Of every image whose it is, where that is known, and how it repeats another."""
    found = []
    for name, person in zip(split.ids, split.persons or split.ids, strict=True):
        of_it = [f"person {person}"] if person != name else []
        if name in duplicates:
            of_it.append(f"{duplicates[name]} duplicate")
        found.append(" · ".join(of_it))
    return found


# -- strips -----------------------------------------------------------------------------------------------------------


def painter(split: Split, scored: Scored, main: str) -> tuple[list[str], Callable[[int], np.ndarray]]:
    """What the panels of a strip are, in words, and what makes the strip of image i: (H, panels · W, 3) uint8.

    They are those that there are of input, reconstruction, difference and map, of the main score where it has one. All
    strips share their scales of colours.
    """
    images, panels = split.images.numpy(), {"input": lambda i: rgb(images[i])}
    if split.masks is not None:
        masks = split.masks.numpy()
        panels = {"input, what is anomalous outlined": lambda i: plots.outlined(rgb(images[i]), masks[i])}
    if scored.pictures:
        x_hats = scored.pictures["reconstruction"]
        most = plots.highest(difference(plots.sampled(images), plots.sampled(x_hats)))
        panels["reconstruction"] = lambda i: rgb(x_hats[i])
        panels[f"difference (brightest: {most / 255:.2g})"] = lambda i: heat(
            difference(images[i], x_hats[i]), (0, most)
        )
    if scored.maps:
        name = main if main in scored.maps else next(iter(scored.maps))
        maps = scored.maps[name]
        shown = plots.scale(plots.sampled(maps))
        panels[f"map of {name} ({shown[0]:.2g} – {shown[1]:.2g})"] = lambda i: heat(maps[i], shown)
    return list(panels), lambda i: np.concatenate([panel(i) for panel in panels.values()], axis=1)


def difference(image: np.ndarray, x_hat: np.ndarray) -> np.ndarray:
    """Absolute, of uint8 images: float32 in [0, 255]."""
    return np.abs(image.astype(np.float32) - x_hat)


def heat(pixels: np.ndarray, shown: tuple[float, float]) -> np.ndarray:
    return plots.colours(pixels, shown)[..., :3]


def rgb(image: np.ndarray) -> np.ndarray:
    """(H, W), or (3, H, W) in colour → (H, W, 3)."""
    return np.moveaxis(np.broadcast_to(image, (3, *image.shape[-2:])), 0, -1)


def save(strip: np.ndarray, path: Path) -> None:
    image = Image.fromarray(np.ascontiguousarray(strip))
    if image.height > SIDE:
        image = image.resize((SIDE * image.width // image.height, SIDE), Image.Resampling.BOX)
    write_atomically(path, partial(image.save, format="JPEG", quality=85))
