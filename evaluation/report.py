"""An evaluation's files: results.json, scores.csv, figures, and the summary on the screen."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from configs.stages import stage_epochs
from dataloader.base import Split, in_words
from dataloader.duplicates import RULE
from evaluation import localisation, metrics, normals, plots
from evaluation.scoring import Scored, selected
from evaluation.tables import score_table
from experiments.folder import IMPORTED, Experiment, ExperimentError, reached
from methods import Method
from system.files import write_atomically, write_text

SHOWN = 6  # images of each group in samples.png


def progress(experiment: Experiment, method: Method, checkpoint: dict) -> dict[str, object]:
    """How far the run was planned, how far it was trained, and where the evaluated ``checkpoint`` stands.

    Epochs are whole ones, counted through all stages; ``training_seconds`` are those of all of the training, every
    part of it. What nobody recorded, as of imported weights, is None.
    """
    planned, epoch = sum(stage.epochs for stage in method.stages), reached(checkpoint)
    saved = [checkpoint]
    with suppress(ExperimentError):  # best.pt can be evaluated without it
        saved.insert(0, experiment.load_checkpoint("last.pt"))
    latest = max(saved, key=reached)
    # a killed run may have trained further than it saved
    trained = max([reached(latest), *(row["epoch"] for row in experiment.read_metrics())])
    known = "imported" not in checkpoint
    return {
        "epochs": planned,
        "epochs_trained": trained if known else None,
        "epoch": epoch,
        "stages_planned": stage_epochs(method.stages, planned),
        "stages_trained": stage_epochs(method.stages, trained) if known else None,
        "stages": stage_epochs(method.stages, epoch),
        "training_seconds": latest.get("seconds") if reached(latest) == trained else None,
    }


def build_results(
    split: Split, scored: Scored, val_thresholds: dict[str, float], groups: dict[str, tuple[str, ...]] | None = None,
    held_out: Scored | None = None, false_alarms: float = normals.FALSE_ALARMS,
) -> dict[str, object]:  # fmt: skip
    """``classes``: images of each; ``interval``: how the intervals were made, by images or by persons, and of how many;
    ``scores``: name → figures (fractions in [0, 1]); ``networks``: group (:attr:`methods.Method.groups`) → the
    spread of its scores; and what :func:`localisation.measure` says where masks are known. A score without a threshold
    from validation has no figures at one, and none has at a threshold of the scores of ``held_out`` normal images where
    there are none. Of a single class there are neither intervals nor networks, and of the scores what
    :func:`metrics.evaluate_one_class` says.
    """
    labels = split.labels.numpy()
    found: dict[str, object] = {"classes": of_each_class(range(len(labels)), labels)}
    if one_class(found):
        found["scores"] = {
            name: metrics.evaluate_one_class(labels, values, val_thresholds.get(name))
            for name, values in scored.image.items()
        }
    else:
        found["interval"] = {
            "by": "image" if split.persons is None else "person",
            **of_each_class(split.persons or range(len(labels)), labels),
            "level": metrics.LEVEL,
            "resamples": metrics.RESAMPLES,
        }
        found["scores"] = {
            name: metrics.evaluate(labels, values, split.kinds, val_thresholds.get(name), split.persons)
            for name, values in scored.image.items()
        }
        if groups:
            found["networks"] = {
                group: metrics.spread(labels, [scored.columns[name] for name in names])
                for group, names in groups.items()
            }
    if held_out:
        for name, values in scored.image.items():
            at = normals.figures(labels, values, held_out.image[name], false_alarms)
            found["scores"][name]["at_normals_threshold"] = at
    return found | localisation.measure(split, scored, held_out, false_alarms)


def one_class(results: dict) -> str:
    """The class that all images are of, "" where they are of both."""
    counts = results["classes"]
    return "" if all(counts.values()) else max(counts, key=counts.get)


def of_each_class(whose: Sequence, labels: np.ndarray) -> dict[str, int]:
    """How many different values (N,) the normal images have, and how many the anomalous ones."""
    return {what: len(set(np.array(whose)[labels == label])) for label, what in ((0, "normal"), (1, "anomalous"))}


def prevalence(classes: dict[str, int]) -> float:
    """The share of anomalous images."""
    return classes["anomalous"] / sum(classes.values())


def without_duplicates(
    split: Split, scored: Scored, duplicates: dict[str, str], val_thresholds: dict[str, float],
    groups: dict[str, tuple[str, ...]], held_out: Scored | None = None, false_alarms: float = normals.FALSE_ALARMS,
) -> dict[str, object]:  # fmt: skip
    """The same figures without the test images that repeat others (id → how), and how many those are.

    Where there are none, or nothing of a class is left, ``scores`` is empty.
    """
    kept = np.array([name not in duplicates for name in split.ids])
    labels = split.labels.numpy()
    found: dict[str, object] = {"rule": RULE, "removed": {}}
    for label, what in ((0, "normal"), (1, "anomalous")):
        hows = [
            duplicates[name]
            for name, of_class in zip(split.ids, labels == label, strict=True)
            if of_class and name in duplicates
        ]
        found["removed"][what] = {how: hows.count(how) for how in ("identical", "near")}
    if duplicates and len(set(labels[kept])) == 2:
        part, part_scored = selected(split, scored, kept)
        figures = build_results(part, part_scored, val_thresholds, groups, held_out, false_alarms)
        return found | {"images": part.in_words()} | figures
    return found | {"images": in_words(int(labels[kept].sum()), int(kept.sum())), "scores": {}}


def write(
    experiment: Experiment, split: Split, scored: Scored, results: dict, duplicates: dict[str, str] | None = None
) -> None:
    """Scores and figures of an evaluation; ``duplicates`` says of test images how they repeat others. Its results.json
    is to be written when all else is there.
    """
    labels = split.labels.numpy()
    main = results["main_score"]
    first = {"id": split.ids, "label": labels.tolist(), "kind": split.kinds}
    if split.persons is not None:
        first["person"] = split.persons
    if duplicates is not None:
        first["duplicate"] = [duplicates.get(name, "") for name in split.ids]
    write_text(experiment.path("scores.csv"), score_table(scored, main, first))
    for name in ("results.json", "index.html", "by_disease.csv", "maps.npz"):  # of another evaluation
        experiment.path(name).unlink(missing_ok=True)
    figures = experiment.path("figures")
    for name in plots.FIGURES:
        (figures / f"{name}.png").unlink(missing_ok=True)  # of an evaluation of other images
    if not one_class(results):
        plots.roc_pr(labels, scored.image, results["scores"], figures / "roc_pr.png")
    plots.histograms(labels, scored.image, results["scores"], figures / "histograms.png")
    plots.curves(experiment.read_metrics(), figures / "curves.png")
    telling = telling_images(labels, scored.image[main])
    if scored.maps:
        chosen = np.concatenate([of_group[: SHOWN // 2] for of_group in telling.values()])
        chosen = np.array(list(dict.fromkeys(chosen)))  # of one class, the worst judged are the highest again
        captions = [f"{split.kinds[i]}, {scored.image[main][i]:.3g}" for i in chosen]
        masks = None if split.masks is None else split.masks.numpy()[chosen]
        images = split.images.numpy()[chosen] / 255
        plots.maps(captions, images, masks, scored.selected(chosen).maps, figures / "maps.png")
    if scored.pictures:
        groups = {title: _samples(split, scored, main, chosen) for title, chosen in telling.items()}
        plots.samples(groups, main, figures / "samples.png")


def write_maps(experiment: Experiment, split: Split, scored: Scored) -> None:
    """maps.npz: ``id`` (N,) and every map (N, H, W) float32, by the image score that it explains."""

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez_compressed(file, id=np.array(split.ids), **scored.maps)

    write_atomically(experiment.path("maps.npz"), write)


def telling_images(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the highest, the lowest and the worst-judged images (anomalous ones low, normal ones high)."""
    order = np.argsort(-scores, kind="stable")
    half = SHOWN // 2
    missed = order[labels[order] == 1][::-1][:half]
    alarms = order[labels[order] == 0][:half]
    return {
        "highest scores": order[:SHOWN],
        "lowest scores": order[::-1][:SHOWN],
        "worst judged: anomalous low, normal high": np.concatenate([missed, alarms]),
    }


def _samples(
    split: Split, scored: Scored, main: str, chosen: np.ndarray
) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Caption, input, reconstruction and mask of the chosen images."""
    captions = [f"{split.kinds[i]}, {scored.image[main][i]:.3g}" for i in chosen]
    pairs = split.images.numpy()[chosen] / 255, scored.pictures["reconstruction"][chosen] / 255
    masks = [None] * len(chosen) if split.masks is None else split.masks.numpy()[chosen]
    return list(zip(captions, *pairs, masks, strict=True))


def summary(results: dict) -> str:
    """The figures people look for first, in percent as the papers print them."""
    lines = []
    trained, planned = results["epochs_trained"], results["epochs"]
    if trained is not None and trained < planned:
        lines.append(f"Not finished: {trained} of {planned} epochs were trained.")
    if only := one_class(results):
        lines.append(
            f"All images are {only}: AUC, average precision and oracle threshold need normal and anomalous images. "
            "The scores are in scores.csv."
        )
    for name, found in results["scores"].items():
        mark = "  (main score)" if name == results["main_score"] else ""
        lines += [f"{name:>16}: no AUC{mark}"] if only else auc_lines(name, found, results, mark)
        for key, what in (
            ("at_val_threshold", "threshold from validation"),
            ("at_oracle_threshold", "oracle threshold"),
        ):
            if key not in found:
                continue
            at = found[key]
            figures = ", ".join(
                f"{k} {100 * at[k]:.1f}" for k in ("accuracy", "f1", "recall", "precision", "specificity") if k in at
            )
            lines.append(f"{what:>34}: {figures}")
        if "at_normals_threshold" in found:
            lines.append(normals_line(found["at_normals_threshold"]))
    lines += network_lines(results) + pixel_lines(results)
    if not any("at_val_threshold" in found for found in results["scores"].values()):
        lines.append(
            "A threshold chosen on validation would be of these very images, so there are no figures at one."
            if results["split"] == "val"
            else "There is no validation set with anomalous images, so there are no figures at a threshold chosen on "
            "one."
        )
    if not any("at_normals_threshold" in found for found in results["scores"].values()):
        lines.append(
            "The threshold of normal images alone is of these very images, so there are no figures at it."
            if results["split"] == "val"
            else "The data are not those that were trained on, so there is no threshold of held-out normal images."
            if results["trained_on"] not in (results["data"], IMPORTED)
            else "No normal images are held out, so there is no threshold of them: train with --set held_out=0.2."
        )
    if "duplicates_removed" in results:
        lines += duplicate_lines(results["duplicates_removed"], results["classes"])
    return "\n".join(lines)


def auc_lines(name: str, found: dict, results: dict, mark: str) -> list[str]:
    """AUC with its interval and average precision of one score; the AUC per kind."""
    by = " by person" if results["interval"]["by"] == "person" else ""
    low, high = found["auc_ci95"]
    kinds = ", ".join(f"{kind} {100 * of['auc']:.1f}" for kind, of in found["per_kind"].items())
    return [
        f"{name:>16}: {results['split']} AUC {100 * found['auc']:.1f} % "
        f"[95 % interval{by} {100 * low:.1f} – {100 * high:.1f}], AP {100 * found['average_precision']:.1f} %{mark}",
        f"{'AUC per kind, %':>34}: {kinds}",
    ]


def normals_line(at: dict) -> str:
    """What the threshold of held-out normal images comes to on these."""
    said = normals.too_few(at["normals"], at["false_alarms"])
    if not said:
        parts = [f"recall {100 * at['recall']:.1f}"] if "recall" in at else []
        if "false_alarm_rate" in at:
            low, high = at["false_alarm_rate_ci95"]
            parts.append(
                f"realised false alarms {100 * at['false_alarm_rate']:.1f} % [{100 * low:.1f} – {100 * high:.1f}]"
            )
        said = f"{', '.join(parts)} (for {100 * at['false_alarms']:g} % by {at['normals']} normal images)"
    return f"{'threshold of normals alone':>34}: {said}"


def pixel_lines(results: dict) -> list[str]:
    """The figures of every map, and of how many images they are where that is not all."""
    names = {
        "pixel_auc": "pixel AUC", "pixel_average_precision": "AP", "aupro": "AUPRO", "dice_oracle": "oracle Dice",
        "dice_at_normals_threshold": "Dice at that of normals",
    }  # fmt: skip
    if "localisation" not in results:
        return []
    masked, of = (part["anomalous"] for part in (results["pixel_images"], results["classes"]))
    others = f" (of {masked} of {of} anomalous images: the others have no mask, or none that a pixel is left of)"
    part = others if masked < of else ""
    return [
        f"{f'map of {name}, %':>34}: {', '.join(f'{names[key]} {100 * found[key]:.1f}' for key in found)}{part}"
        for name, found in results["localisation"].items()
    ]


def network_lines(results: dict) -> list[str]:
    return [
        f"{group + ', each network':>34}: AUC {_spread(found, 'auc')}, AP {_spread(found, 'average_precision')}"
        for group, found in results.get("networks", {}).items()
    ]


def _spread(found: dict, name: str) -> str:
    return f"{100 * found[f'{name}_mean']:.1f} ± {100 * found[f'{name}_std']:.1f} %"


def duplicate_lines(found: dict, all_classes: dict[str, int]) -> list[str]:
    """The figures without the test images that repeat others, for the screen."""
    if not any(count for of in found["removed"].values() for count in of.values()):
        return ["Duplicates of other splits' images: none."]
    removed = "; ".join(f"{what} {of['identical']} + {of['near']}" for what, of in found["removed"].items())
    lines = [f"Duplicates of other splits' images removed (identical + near: {removed}), {found['images']} left:"]
    for name, figures in found["scores"].items():
        low, high = figures["auc_ci95"]
        lines.append(
            f"{name:>16}: AUC {100 * figures['auc']:.1f} % [{100 * low:.1f} – {100 * high:.1f}], "
            f"AP {100 * figures['average_precision']:.1f} %"
        )
        if "at_normals_threshold" in figures:
            lines.append(normals_line(figures["at_normals_threshold"]))
    if found["scores"]:
        left, whole = (f"{100 * prevalence(classes):.1f} %" for classes in (found["classes"], all_classes))
        lines.append(
            f"Their AP, accuracy and F1 are not comparable with those above: {left} of these images are anomalous, "
            f"{whole} of all."
        )
    return lines + network_lines(found)
