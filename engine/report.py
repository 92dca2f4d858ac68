"""An evaluation's files: results.json, scores.csv, figures, and the summary on the screen."""

import json

import numpy as np
import torch

from engine import metrics, plots
from engine.device import to_float
from engine.evaluation import Scored, score_table
from engine.experiment import Experiment, write_text

SHOWN = 6  # images of each group in samples.png


def build_results(split, scored: Scored, val_thresholds: dict[str, float]) -> dict[str, object]:
    """``scores``: name → figures (fractions in [0, 1]); ``pixel_auc`` where masks and maps are known."""
    labels = split.labels.numpy()
    found: dict[str, object] = {
        "scores": {
            name: metrics.evaluate(labels, values, split.kinds, val_thresholds[name])
            for name, values in scored.image.items()
        }
    }
    if split.masks is not None and scored.maps is not None:
        found["pixel_auc"] = metrics.auc(split.masks.numpy().ravel().astype(int), scored.maps.ravel())
    return found


def write(experiment: Experiment, method, split, scored: Scored, results: dict, device: torch.device) -> None:
    """All files of an evaluation."""
    labels = split.labels.numpy()
    main = method.main_score
    write_text(experiment.path("results.json"), json.dumps(results, indent=2) + "\n")
    first = {"id": split.ids, "label": labels.tolist(), "kind": split.kinds}
    write_text(experiment.path("scores.csv"), score_table(scored, main, first))
    figures = experiment.path("figures")
    plots.roc_pr(labels, scored.image, results["scores"], figures / "roc_pr.png")
    plots.histograms(labels, scored.image, results["scores"], figures / "histograms.png")
    plots.curves(experiment.read_metrics(), figures / "curves.png")
    groups = {
        title: _triples(method, split, scored.image[main], chosen, device)
        for title, chosen in telling_images(labels, scored.image[main]).items()
    }
    if all(groups.values()):
        plots.samples(groups, figures / "samples.png")


def telling_images(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of the highest, the lowest and the worst-judged images (anomalous ones low, normal ones high)."""
    order = np.argsort(-scores, kind="stable")
    half = SHOWN // 2
    missed = order[labels[order] == 1][::-1][:half]
    alarms = order[labels[order] == 0][:half]
    return {
        "highest scores": order[:SHOWN],
        "lowest scores": order[::-1][:SHOWN],
        "worst judged": np.concatenate([missed, alarms]),
    }


def _triples(method, split, scores, chosen, device) -> list[tuple[str, np.ndarray, np.ndarray]]:
    images = to_float(split.images[torch.from_numpy(chosen.copy())], device)
    reconstructions = method.score(images).reconstruction
    if reconstructions is None:
        return []
    pairs = zip(chosen, images.cpu().numpy()[:, 0], reconstructions.cpu().numpy()[:, 0], strict=True)
    return [(f"{split.kinds[i]}, {scores[i]:.3g}", image, x_hat) for i, image, x_hat in pairs]


def summary(results: dict) -> str:
    """The figures people look for first, in percent as the papers print them."""
    lines = []
    for name, found in results["scores"].items():
        low, high = found["auc_ci95"]
        mark = "  (main score)" if name == results["main_score"] else ""
        lines.append(
            f"{name:>16}: {results['split']} AUC {100 * found['auc']:.1f} % "
            f"[95 % interval {100 * low:.1f} – {100 * high:.1f}], AP {100 * found['average_precision']:.1f} %{mark}"
        )
        kinds = ", ".join(f"{kind} {100 * of['auc']:.1f}" for kind, of in found["per_kind"].items())
        lines.append(f"{'AUC per kind, %':>34}: {kinds}")
        for key, what in (
            ("at_val_threshold", "threshold from validation"),
            ("at_oracle_threshold", "oracle threshold"),
        ):
            at = found[key]
            figures = ", ".join(
                f"{k} {100 * at[k]:.1f}" for k in ("accuracy", "f1", "recall", "precision", "specificity")
            )
            lines.append(f"{what:>34}: {figures}")
    if "pixel_auc" in results:
        lines.append(f"{'pixel AUC of the error map':>34}: {100 * results['pixel_auc']:.1f} %")
    return "\n".join(lines)
