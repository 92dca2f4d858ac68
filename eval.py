"""Evaluate an experiment: results.json, scores.csv, figures and index.html in its folder, a summary on the screen.

    python eval.py --exp ID [--checkpoint NAME] [--precision fp32|tf32|bf16] [--split test|val] [--by disease[=NAME]]
                   [--reestimate-batch-norm] [--false-alarms RATE] [--save-maps]

Where there are anomalous validation images, the threshold is chosen on validation; figures at the oracle threshold
(chosen on the evaluated labels, as the papers do) stand beside it under that name. Where normal images are held out of
training, there is a threshold of them alone, for the rate of false alarms that is asked for; their scores are kept in
normals.json, with which predict.py gives p-values. Test images that repeat training, unlabeled or validation images are
looked for in every dataset of files, and where there are any, every figure is given without them too. Where all images
are of one class there is no AUC, and their scores are written all the same.

index.html shows it all in a browser, from disk: the figures, and every image with its reconstruction and map (strips/),
sorted by score, by kind, and what a threshold misses or takes for anomalous.
"""

import argparse
import json
import sys

from commands import cli
from configs import ConfigError
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from evaluation import by_disease, normals, page, report
from evaluation.metrics import require_finite
from evaluation.scoring import score_images, thresholds, validation_auc
from evaluation.tables import csv_text
from experiments.folder import IMPORTED, ExperimentError, is_within_epoch, reached
from experiments.log import run_parts
from experiments.settings import changed_settings
from system import distributed
from system.files import check_writable, write_text
from system.provenance import packages, provenance


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_common(parser)
    cli.add_trained(parser)
    parser.add_argument("--split", choices=("test", "val"), help="default: test, where there is one")
    parser.add_argument(
        "--by", metavar="disease[=NAME]",
        help="of by_disease.csv, every disease against the normal images, one alone; an error where none is known",
    )  # fmt: skip
    parser.add_argument(
        "--reestimate-batch-norm", action="store_true",
        help="first take batch norm's statistics anew, over all training images (squid, simsid)",
    )  # fmt: skip
    cli.add_false_alarms(parser)
    parser.add_argument("--save-maps", action="store_true", help="also maps.npz: every pixel map, (N, H, W) float32")
    cli.add_data_root(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    experiment, name, config, trained_on, method, checkpoint, weights, device = cli.load_trained(args)
    if distributed.is_main_process():
        check_writable(experiment.path("results.json"))
    dataset = build_dataset(config, args.data_root)
    found = dataset.fingerprint()
    evaluated = args.split or ("test" if dataset.has_test else "val")
    same_data = trained_on == IMPORTED or dataset.has_fingerprint(trained_on)
    if not (same_data or dataset.root.exists()):
        raise ExperimentError(
            f"{experiment.folder} was trained on {trained_on}, but {dataset.root} is not there, and without it there "
            f"is {found}. If the data have moved, name them with --data-root."
        )
    if not same_data:
        print(f"note: trained on {trained_on}, but {dataset.root} gives {found}: not the same data.", file=sys.stderr)
    if trained_on == IMPORTED and dataset.has_held_out:
        print(
            "note: of imported weights it is not known which images they were trained on; thresholds of validation and "
            "of held-out normal images, and predict.py's p-values, hold where these were not among them.",
            file=sys.stderr,
        )
    asked = by_disease.wanted(args.by, dataset) if args.by else ()
    if args.reestimate_batch_norm:
        if not hasattr(config, "reestimate_batch_norm"):
            raise ConfigError(f"--reestimate-batch-norm: {config.method} has no such setting; squid and simsid have.")
        config.reestimate_batch_norm = method.config.reestimate_batch_norm = True
    refitted = args.reestimate_batch_norm or (same_data and cli.is_stale(experiment, method, checkpoint))
    if refitted:
        method.fit(TrainLoader(dataset, config, device), reached(checkpoint))

    val_thresholds, held_out = {}, None
    split = dataset.split(evaluated)
    if dataset.has_held_out:
        val = split if evaluated == "val" else dataset.split("val")
        with_maps = evaluated == "val" or split.masks is not None
        scored = score_images(
            method, val.images, device, "scoring val", keep_maps=with_maps, keep_pictures=evaluated == "val"
        )
        for values in scored.image.values():
            require_finite(values, "the validation images")
        held_out = scored.selected(val.labels.numpy() == 0)
    if dataset.has_validation:
        validation_auc(val.labels.numpy(), scored)  # raises for labels without an AUC
        val_thresholds = thresholds(val.labels.numpy(), scored)
    if evaluated == "test":
        scored = score_images(method, split.images, device, "scoring test", keep_maps=True, keep_pictures=True)
    if not distributed.is_main_process():
        return  # its scores are with the first process, which writes
    duplicates = dataset.duplicates() if evaluated == "test" else None

    if evaluated == "val":  # a threshold is not judged on the images that it is of
        val_thresholds = {}
    # of other data, nobody knows which images were held out
    unseen = held_out if evaluated == "test" and same_data else None
    results = {
        "experiment": args.exp,
        "config": name,
        "method": config.method,
        "dataset": config.dataset,
        "data": found,
        "data_set": dataset.fingerprint_of_all(),
        "trained_on": trained_on,
        "seed": config.seed,
        "settings": changed_settings(name, config),
        "pretrained": experiment.pretrained(),
        "checkpoint": weights,
        **report.progress(experiment, method, checkpoint),
        "trained": run_parts(experiment),
        "precision": method.config.precision,
        "split": evaluated,
        "images": split.in_words(),
        "main_score": method.main_score,
        **report.build_results(split, scored, val_thresholds, method.groups, unseen, args.false_alarms),
        **provenance(device),
        "packages": packages(),
    }
    if duplicates is not None:
        results["duplicates_removed"] = report.without_duplicates(
            split, scored, duplicates, val_thresholds, method.groups, unseen, args.false_alarms
        )
    report.write(experiment, split, scored, results, duplicates)
    written = ["results.json", "scores.csv"]
    # of other data nobody knows what was trained on, and with other statistics these are not predict.py's weights
    keeps_normals = held_out is not None and same_data and not (refitted or is_within_epoch(checkpoint))
    if keeps_normals:
        normals.write(experiment, held_out.image, weights, results["epoch"], results["precision"])
        written.append(normals.FILE)
    if args.save_maps:
        report.write_maps(experiment, split, scored)
        written.append("maps.npz")
    print(f"{args.exp}: {name}, {weights} checkpoint of epoch {results['epoch']}, {evaluated}: {split.in_words()}")
    if not dataset.has_test:
        unknown = "" if same_data else ", if these are the same data"
        print(f"There is no test set: these are the validation images, which were not trained on{unknown}.")
    print(report.summary(results))
    if asked or any(split.diseases or ()):
        rows = by_disease.figures(split, scored, asked or dataset.diseases)
        write_text(experiment.path("by_disease.csv"), csv_text(by_disease.COLUMNS, rows))
        print(by_disease.table(rows, method.main_score))
        written.append("by_disease.csv")
    page.write(experiment, split, scored, results, written, duplicates)
    write_text(experiment.path("results.json"), json.dumps(results, indent=2) + "\n")
    print(f"Written: {', '.join(written)}, figures/ and index.html, a page of it all, in {experiment.folder}")


if __name__ == "__main__":
    cli.run(main)
