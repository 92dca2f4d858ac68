"""The same test images as several experiments see them: input, and each one's reconstruction and error or map.

    python tools/side_by_side.py SQUID=digit_quick AE=digits_ae padim --out results/digits.png

The paper's figure of DigitAnatomy. Of each kind of image the first test image is shown (--images: so many), or those
named with --ids. All images and errors are on one gray scale; a method without reconstructions shows the map of its
main score, in colours as eval.py's. --out x.pdf writes a PDF.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from matplotlib.figure import Figure

from commands import cli
from dataloader import DataError, Split, build_dataset
from evaluation.plots import HEAT, scale
from experiments.folder import ExperimentError
from system.device import to_float
from system.files import write_atomically


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
    write_atomically(args.out, lambda part: figure.savefig(part, format=args.out.suffix[1:].lower(), dpi=80))
    print(f"Written: {args.out}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="[NAME=]EXP", help="trained experiments of one dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the figure: .png or .pdf")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="test images, as scores.csv names them")
    parser.add_argument("--images", type=int, default=1, metavar="N", help="of each kind; default: 1")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    cli.add_trained(parser)
    cli.add_data_root(parser)
    args = parser.parse_args()
    if args.out.suffix.lower() not in (".png", ".pdf") or args.images < 1:
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
    """A row an image; a column for the input and for each experiment's panels."""
    columns = 1 + sum(len(each.panels) for each in seen.values())
    figure = Figure(figsize=(1.25 * columns, 1.25 * len(kinds) + 0.6), layout="compressed")
    axes = figure.subplots(len(kinds), columns, squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    finest = max((each.inputs for each in seen.values()), key=lambda images: images.shape[-1])
    for row, kind in enumerate(kinds):
        axes[row, 0].imshow(finest[row], cmap="gray", vmin=0, vmax=1)
        axes[row, 0].set_ylabel(kind, fontsize=9)
    axes[0, 0].set_title("input", fontsize=9)
    column = 1
    for name, each in seen.items():
        for title, panels in each.panels.items():
            low, high = scale(panels) if each.heat else (0, 1)
            for row, panel in enumerate(panels):
                axes[row, column].imshow(panel, cmap=HEAT if each.heat else "gray", vmin=low, vmax=high)
            axes[0, column].set_title(f"{name}\n{title}", fontsize=9)
            column += 1
    return figure


if __name__ == "__main__":
    cli.run(main)
