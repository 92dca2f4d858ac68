"""Score image files or folders with a trained experiment.

    python predict.py --exp ID PATH ... [--csv FILE] [--images DIR]

One line per image: path, the discriminator's logit (where the method has one), score (the main one; higher = more
anomalous), every image score by name, and whether the main score reaches the threshold chosen on validation. The
threshold is of the column named after the main score; score is that column as people read it (the paper's
1 − sigmoid((logit − mu)/sigma) where that is the discriminator's).
An unreadable file is named and left without scores; the exit code is then 1.
"""

import argparse
import itertools
import sys
from pathlib import Path

import torch
from PIL import Image

from commands import cli
from dataloader import DataError
from dataloader.images import FORMATS, image_files, read_image
from evaluation import plots
from evaluation.metrics import require_finite
from evaluation.scoring import Scored, score_batches, score_images
from evaluation.tables import score_table
from experiments.folder import ExperimentError
from system.device import to_float
from system.files import write_atomically, write_text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_common(parser)
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="image files, or folders of them (nested too)"
    )
    cli.add_trained(parser)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there (default: to the screen)")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="write pictures: input | reconstruction | difference | map"
    )
    return parser.parse_args()


def main() -> int:
    args = arguments()
    trained = cli.load_trained(args)
    config = trained.config
    names = listed_files(args.paths)
    if args.images:
        check_apart(args.images, args.paths)
    readable, images, failures = [], [], []
    for path in names:
        try:
            images.append(torch.from_numpy(read_image(path, config.image_size, config.resize, config.fit)))
            readable.append(path)
        except DataError as error:
            failures.append(str(error))
    if readable:
        write_scores(args, trained, names, readable, torch.stack(images))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        print(f"error: {len(failures)} of {len(names)} files have no scores.", file=sys.stderr)
    return 1 if failures else 0


def listed_files(paths: list[Path]) -> dict[Path, Path]:
    """Every file to score → its picture's name below --images. Raises DataError for a path that is not there."""
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder.")
        files = image_files(path) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path}: holds no {FORMATS}.")
        for file in files:
            found.setdefault(file, Path(file.name) if file == path else file.relative_to(path))
    return found


def check_apart(pictures: Path, inputs: list[Path]) -> None:
    """Raise an ExperimentError where pictures would be written over, or among, the images to score."""
    target = pictures.resolve()
    for path in inputs:
        folder = path.resolve() if path.is_dir() else path.resolve().parent
        if target == folder or (path.is_dir() and folder in target.parents):
            raise ExperimentError(f"--images {pictures}: would write among the images to score; name another folder.")


def write_scores(args, trained: cli.Trained, names, readable, images: torch.Tensor) -> None:
    method, device = trained.method, trained.device
    scored = score_images(method, images, device, "scoring", keep_maps=bool(args.images))
    main_score = method.main_score
    require_finite(scored.image[main_score], f"the {len(readable)} images")
    last = {}
    threshold = trained.checkpoint.get("val_thresholds", {}).get(main_score)
    if threshold is not None:
        last["anomalous_at_val_threshold"] = (scored.image[main_score] >= threshold).astype(int)
    table = score_table(scored, main_score, {"path": [str(path) for path in readable]}, last)
    if args.csv:
        write_text(args.csv, table)
        print(f"{len(readable)} images scored: {args.csv}")
    else:
        print(table, end="")
    if args.images:
        write_pictures(args.images, method, [names[path] for path in readable], images, scored, device)


def free(target: Path, taken: set[Path]) -> Path:
    """``target``, or that with the first number that is not taken."""
    numbered = (target.with_name(f"{target.stem}_{number}.png") for number in itertools.count(2))
    return next(path for path in itertools.chain([target], numbered) if path not in taken)


def write_pictures(folder: Path, method, names: list[Path], images: torch.Tensor, scored: Scored, device) -> None:
    """One PNG per image, the folders kept; of equal names the later ones get a number."""
    taken: set[Path] = set()
    maps = scored.maps.get(method.main_score, next(iter(scored.maps.values()), None))  # (N, H, W)
    high = 0.0 if maps is None else plots.highest(maps)
    number = 0
    for batch in score_batches(images, device):
        batch = to_float(batch, device)
        x_hats = method.score(batch).reconstruction
        for i, image in enumerate(batch.cpu().numpy()):
            x_hat = None if x_hats is None else x_hats[i, 0].cpu().numpy()
            heat = None if maps is None else maps[number]
            target = free(folder / names[number].with_suffix(".png"), taken)
            taken.add(target)
            picture = Image.fromarray(plots.strip(image[0], x_hat, heat, high))
            write_atomically(target, lambda part, picture=picture: picture.save(part, format="PNG"))
            number += 1
    print(f"{len(taken)} pictures: {folder}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
