"""Score image files or folders with a trained experiment.

    python predict.py --exp ID PATH ... [--csv FILE] [--images DIR] [--maps DIR] [--false-alarms RATE]

One line per image: path, the discriminator's logit (where the method has one), score (the main one; higher = more
anomalous), every image score by name, and whether the main score reaches the threshold chosen on validation. With the
scores of held-out normal images, which eval.py keeps, p_value is the share of normal images that score as high, and
anomalous_at_normals_threshold says whether it is at most --false-alarms. Both thresholds are of the column named after
the main score; score is that column as people read it (the paper's 1 − sigmoid((logit − mu)/sigma) where that is the
discriminator's). With --csv the screen has a summary.

--maps writes of every image and every score that has a map NAME.SCORE.npy (the map as it is: float32, of the size that
the networks see), NAME.SCORE.heat.png (in colour, at the image's own size; what fit=crop has cut off is transparent)
and NAME.SCORE.overlay.png (the same over the image). All pictures of a run have one colour scale per score, printed at
the end: compare them within a run, not across runs.

An unreadable file is named and left without scores; the exit code is then 1.
"""

import argparse
import sys
from pathlib import Path

import torch

from commands import cli
from evaluation import normals, pictures
from evaluation.files import ScoredFiles, check_apart, listed_files, score_files
from evaluation.metrics import require_finite
from evaluation.tables import score_table
from evaluation.verdicts import Verdicts, doubts
from experiments.folder import ExperimentError, is_within_epoch, reached
from system.files import check_writable, check_writable_folder, write_text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_common(parser)
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="image files, or folders of them (nested too)"
    )
    cli.add_trained(parser)
    cli.add_false_alarms(parser)
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
    if args.csv and args.csv.resolve() in {path.resolve() for path in names}:
        raise ExperimentError(f"--csv {args.csv}: is one of the images to score; name another file.")
    if args.csv and (args.csv.resolve().parent / "config.json").exists():
        raise ExperimentError(f"--csv {args.csv}: lies in an experiment's own folder; name a file elsewhere.")
    if args.maps:
        require_maps(trained)
    if args.csv:
        check_writable(args.csv)
    for folder in filter(None, (args.images, args.maps)):
        check_writable_folder(folder)
    if cli.is_stale(trained.experiment, method, trained.checkpoint):
        print(
            f"note: the {trained.weights} weights are of within an epoch, and what is fitted to them of the validation "
            "before; eval.py, which has the training images, fits it anew, and so its scores differ.", file=sys.stderr
        )  # fmt: skip
    known = trained.experiment.training_looks()
    found, failed = score_files(method, list(names), trained.device, known, bool(args.images or args.maps))
    for failure in failed:
        print(f"error: {failure}", file=sys.stderr)
    unread = len(failed)
    if found:
        captions = write_scores(args, trained, found)
        for warning in doubts(found, method.config.image_size):
            print(f"warning: {warning}", file=sys.stderr)
        if args.images or args.maps:
            failed += pictures.write(method, found, names, captions, trained.device, args.images, args.maps)
            say_where(args, found)
    for failure in failed[unread:]:
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


def write_scores(args: argparse.Namespace, trained: cli.Trained, found: ScoredFiles) -> dict[Path, list[str]]:
    """The table, and with --csv its summary on the screen. Returns what to write over each file's picture."""
    main_score, scored = trained.method.main_score, found.scored
    values = scored.image[main_score]
    require_finite(values, f"the {len(found.paths)} images")
    told = Verdicts(values, scored.shown.get(main_score, values), main_score)
    if (threshold := trained.checkpoint.get("val_thresholds", {}).get(main_score)) is not None:
        told.by_validation(threshold)
    epoch, precision = reached(trained.checkpoint), trained.method.config.precision
    if is_within_epoch(trained.checkpoint):
        print("note: no p-values: the weights are of within an epoch, and eval.py keeps the scores of held-out normal "
              "images of whole ones alone.", file=sys.stderr)  # fmt: skip
    elif kept := normals.read(trained.experiment, trained.weights, epoch, precision):
        told.by_normals(kept[main_score], args.false_alarms)
    else:
        print(f"note: no p-values: {normals.how_to_get(args.exp, args.checkpoint, args.precision)}", file=sys.stderr)
    table = score_table(scored, main_score, {"path": [str(path) for path in found.paths]}, told.columns)
    if args.csv:
        write_text(args.csv, table)
        print(f"{len(found.paths)} images scored: {args.csv}")
        print("\n".join([*told.summary(), *told.highest(found.paths)]))
    else:
        print(table, end="")
    for note in told.notes:
        print(f"note: {note}", file=sys.stderr)
    return {path: told.of(i) for i, path in enumerate(found.paths)}


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
