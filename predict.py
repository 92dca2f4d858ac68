"""Score image files or folders with a trained experiment.

    python predict.py --exp ID PATH ... [--csv FILE] [--images DIR] [--maps DIR]

One line per image: path, the discriminator's logit (where the method has one), score (the main one; higher = more
anomalous), every image score by name, and whether the main score reaches the threshold chosen on validation. The
threshold is of the column named after the main score; score is that column as people read it (the paper's
1 − sigmoid((logit − mu)/sigma) where that is the discriminator's). With --csv the screen has a summary.

--maps writes of every image and every score that has a map NAME.SCORE.npy (the map as it is: float32, of the size that
the networks see), NAME.SCORE.heat.png (in colour, at the image's own size; what fit=crop has cut off is transparent)
and NAME.SCORE.overlay.png (the same over the image). All pictures of a run have one colour scale per score, printed at
the end: compare them within a run, not across runs.

An unreadable file is named and left without scores; the exit code is then 1.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from commands import cli
from evaluation import pictures
from evaluation.files import ScoredFiles, check_apart, listed_files, score_files
from evaluation.metrics import require_finite
from evaluation.pictures import printable
from evaluation.tables import score_table
from experiments.folder import ExperimentError
from system.files import write_text

LISTED = 10  # images on the screen


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
    parser.add_argument("--maps", type=Path, metavar="DIR", help="write maps: as arrays, in colour, over the images")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    trained = cli.load_trained(args)
    method = trained.method
    names = listed_files(args.paths)
    for option, folder in (("--images", args.images), ("--maps", args.maps)):
        if folder:
            check_apart(option, folder, args.paths)
    if args.maps:
        require_maps(trained)
    known = trained.experiment.training_looks()
    found, failed = score_files(method, list(names), trained.device, known, bool(args.images or args.maps))
    if found:
        captions = write_scores(args, trained, found)
        for warning in warnings(found, method.config.image_size):
            print(f"warning: {warning}", file=sys.stderr)
        if args.images or args.maps:
            failed += pictures.write(method, found, names, captions, trained.device, args.images, args.maps)
            say_where(args, found)
    for failure in failed:
        print(f"error: {failure}", file=sys.stderr)
    if failed:
        print(f"error: {len(failed)} of {len(names)} files have no scores.", file=sys.stderr)
    return 1 if failed else 0


def require_maps(trained: cli.Trained) -> None:
    """Raise an ExperimentError for a method without maps, before anything else is scored."""
    side = trained.config.image_size
    scores = trained.method.score(torch.zeros(1, 1, side, side, device=trained.device), all_maps=True)
    if not scores.maps:
        raise ExperimentError(
            f"--maps: {trained.config.method} has no maps, only scores of whole images: {', '.join(scores.image)}. "
            "Leave --maps out, or train a method that has maps, such as patchcore."
        )


def write_scores(args, trained: cli.Trained, found: ScoredFiles) -> dict[Path, list[str]]:
    """The table, and with --csv its summary on the screen. Returns what to write over each file's picture."""
    main_score, scored = trained.method.main_score, found.scored
    require_finite(scored.image[main_score], f"the {len(found.paths)} images")
    last = {}
    threshold = trained.checkpoint.get("val_thresholds", {}).get(main_score)
    if threshold is not None:
        last["anomalous_at_val_threshold"] = (scored.image[main_score] >= threshold).astype(int)
    table = score_table(scored, main_score, {"path": [str(path) for path in found.paths]}, last)
    shown = scored.shown.get(main_score, scored.image[main_score])
    verdicts = ["anomalous" if called else "normal" for called in last.get("anomalous_at_val_threshold", ())]
    if args.csv:
        write_text(args.csv, table)
        print(f"{len(found.paths)} images scored: {args.csv}")
        if threshold is None:
            print(no_threshold(trained))
        else:
            called = f"{verdicts.count('anomalous')} of them are called anomalous"
            print(f"{called}: the column {main_score} reaches {threshold:.4g}, the threshold chosen on validation.")
        print(highest(found, shown, verdicts, main_score))
    else:
        print(table, end="")
    captions = {path: [f"{main_score} {score:.4g}"] for path, score in zip(found.paths, shown, strict=True)}
    for path, verdict in zip(found.paths, verdicts, strict=False):
        captions[path].append(f"{verdict} by the threshold chosen on validation")
    return captions


def no_threshold(trained: cli.Trained) -> str:
    """Why there are no verdicts, and what to do."""
    if "val_thresholds" not in trained.checkpoint:
        return "None is called anomalous or normal: the threshold is kept with --checkpoint best."
    name = trained.experiment.name
    return (
        "None is called anomalous or normal: a threshold is chosen in training, on validation images of which some are "
        "anomalous, and there were none. Add such images (val/<class>) and train anew, or compare with the scores of "
        f"held-out normal images: python eval.py --exp {name} writes {trained.experiment.path('scores.csv')}"
    )


def highest(found: ScoredFiles, shown: np.ndarray, verdicts: list[str], main_score: str) -> str:
    """The files of the highest scores, as lines for the screen; ``shown`` are the scores as people read them."""
    order = np.argsort(-found.scored.image[main_score], kind="stable")[:LISTED]
    rows = [("score", "verdict" if verdicts else "", "path")]
    rows += [(f"{shown[i]:.4g}", verdicts[i] if verdicts else "", printable(found.paths[i])) for i in order]
    scores, words = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{score:>{scores}}  {verdict:<{words}}  {path}" for score, verdict, path in rows]
    return "\n".join([f"The {len(order)} highest scores:", *lines])


def warnings(found: ScoredFiles, side: int) -> Iterator[str]:
    """A line for each thing that makes scores doubtful."""
    doubts = (
        (found.small, f"have a side below half of the {side} pixels that the networks see: enlarged, without detail"),
        (found.unlike, "look unlike the training images, by gray levels or layout: their scores may mean nothing"),
    )
    for doubtful, why in doubts:
        if doubtful.any():
            first = printable(found.paths[int(doubtful.argmax())])
            yield f"{doubtful.sum()} of {len(doubtful)} images {why}. The first: {first}"


def say_where(args: argparse.Namespace, found: ScoredFiles) -> None:
    """Where pictures and maps are, and what their colours mean."""
    if args.images:
        print(f"{len(found.paths)} pictures: {args.images}", file=sys.stderr)
    if args.maps:
        print(f"maps of {len(found.paths)} images: {args.maps}", file=sys.stderr)
    if found.scales:
        ranges = ", ".join(f"{score} {low:.4g} – {high:.4g}" for score, (low, high) in found.scales.items())
        print(f"colours of the maps, black to bright: {ranges}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
