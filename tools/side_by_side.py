"""The same test images as several experiments see them: input, and each one's reconstruction and error or map.

    python tools/side_by_side.py SQUID=digit_quick AE=digits_ae padim --out results/digits.png

The paper's figure of DigitAnatomy. Of each kind of image the first test image is shown (--images: so many), or those
named with --ids. All images and errors are on one gray scale; a method without reconstructions shows the map of its
main score, in colours as eval.py's. Many methods stand in blocks, one below the other, each with the input at its left.
--out x.pdf writes a PDF; more than one file may be named.
"""

import argparse
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from matplotlib.figure import Figure

from commands import cli
from dataloader import DataError, Split, build_dataset
from evaluation.plots import HEAT, save, scale
from experiments.folder import ExperimentError
from system.device import to_float
from tools import results_page

PANELS = 10  # of a row, beside the input: the letters of more would be too small on a page of its width
SIDE = 1.0  # inches, of a panel
SIZE = 8.5  # points: "reconstruction" is as wide as its panel
LETTERS = 12  # of a line of names, which must not run into the next
DPI = 150


class Seen(NamedTuple):
    """What one experiment makes of N images: panels (N, H, W) by title, on the gray scale 0 … ``high`` or as heat."""

    inputs: np.ndarray
    panels: dict[str, np.ndarray]
    heat: bool


def main() -> None:
    args = arguments()
    seen, shown = {}, None
    for given in args.experiments:
        name, _, experiment = given.rpartition("=")
        trained = cli.load_trained(argparse.Namespace(**vars(args), exp=experiment))
        split = build_dataset(trained.config, args.data_root).split("test")
        shown = shown or chosen(split, args.ids, args.images)
        if missing := [each for each in shown if each not in split.ids]:
            raise ExperimentError(
                f"{experiment}: its test images have no {missing[0]}. Give experiments of one dataset, or other --ids."
            )
        seen[name or experiment] = see(trained, split, [split.ids.index(each) for each in shown])
    kinds = dict(zip(split.ids, split.kinds, strict=True))
    figure = draw(seen, [kinds[each] for each in shown])
    for path in args.out:
        save(figure, path, DPI)
    results_page.follow(args.out)
    print("Written: " + ", ".join(map(str, args.out)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="[NAME=]EXP", help="trained experiments of one dataset")
    parser.add_argument("--out", type=Path, nargs="+", required=True, metavar="FILE", help="the figure: .png or .pdf")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="test images, as scores.csv names them")
    parser.add_argument("--images", type=int, default=1, metavar="N", help="of each kind; default: 1")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    cli.add_trained(parser)
    cli.add_data_root(parser)
    args = parser.parse_args()
    if any(path.suffix.lower() not in (".png", ".pdf") for path in args.out) or args.images < 1:
        parser.error("--out must end in .png or .pdf, and --images be at least 1")
    return args


def chosen(split: Split, ids: list[str] | None, each: int) -> list[str]:
    """The ids that are asked for, or the first of each kind. Raises DataError for one that is not there."""
    if ids is None:
        places = [np.flatnonzero(np.array(split.kinds) == kind)[:each] for kind in dict.fromkeys(split.kinds)]
        return [split.ids[place] for place in np.concatenate(places)]
    if unknown := [each for each in ids if each not in split.ids]:
        raise DataError(f"--ids {unknown[0]}: no test image is called so; scores.csv lists them.")
    return ids


def see(trained: cli.Trained, split: Split, places: list[int]) -> Seen:
    """Raises ExperimentError for a method that has neither reconstructions nor maps."""
    method = trained.method
    images = to_float(split.images[places], trained.device)
    scores = method.score(images)
    inputs = images.mean(1).cpu().numpy()  # of three colours the mean
    if scores.reconstruction is not None:
        x_hat = scores.reconstruction[:, 0].float().cpu().numpy()
        return Seen(inputs, {"reconstruction": x_hat, "error": np.abs(inputs - x_hat)}, heat=False)
    if not scores.maps:
        raise ExperimentError(f"{trained.experiment.folder}: {trained.config.method} has no picture to show.")
    name = method.main_score if method.main_score in scores.maps else next(iter(scores.maps))
    return Seen(inputs, {f"{name} map": scores.maps[name][:, 0].float().cpu().numpy()}, heat=True)


def draw(seen: dict[str, Seen], kinds: list[str]) -> Figure:
    """A row an image; a column for the input and for each experiment's panels, in as many blocks as these take."""
    parts = blocks(seen)
    columns = 1 + max(map(len, parts))
    figure = Figure(figsize=(SIDE * columns, SIDE * (len(kinds) + 0.4) * len(parts)), layout="compressed")
    axes = figure.subplots(len(kinds) * len(parts), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    finest = max((each.inputs for each in seen.values()), key=lambda images: images.shape[-1])
    for part, block in zip(parts, np.split(axes, len(parts)), strict=True):  # block (N, columns)
        show(block[:, 0], finest, ["input"], heat=False)
        for axis, kind in zip(block[:, 0], kinds, strict=True):
            axis.set_ylabel(textwrap.fill(kind, LETTERS), fontsize=SIZE, parse_math=False)
        for column, (name, title) in enumerate(part, start=1):
            above = [*textwrap.wrap(name, LETTERS), *textwrap.wrap(title, LETTERS, break_long_words=False)]
            show(block[:, column], seen[name].panels[title], above, seen[name].heat)
        for axis in block[:, 1 + len(part) :].flat:
            axis.set_axis_off()
    return figure


def blocks(seen: dict[str, Seen]) -> list[list[tuple[str, str]]]:
    """(experiment, panel) of every column beside the input, block by block; no experiment stands in two of them."""
    found = [[]]
    for name, each in seen.items():
        if len(found[-1]) + len(each.panels) > PANELS:
            found.append([])
        found[-1] += [(name, title) for title in each.panels]
    return found


def show(column: np.ndarray, panels: np.ndarray, above: list[str], heat: bool) -> None:
    """``panels`` (N, H, W) in the axes (N,) of a column, with these lines above it."""
    low, high = scale(panels) if heat else (0, 1)
    for axis, panel in zip(column, panels, strict=True):
        small = 2 * panel.shape[-1] <= SIDE * DPI  # as pixels, of which files stay small
        interpolation = "none" if small else "auto"
        axis.imshow(panel, cmap=HEAT if heat else "gray", vmin=low, vmax=high, interpolation=interpolation)
    column[0].set_title("\n".join(above), fontsize=SIZE, parse_math=False)


if __name__ == "__main__":
    cli.run(main)
