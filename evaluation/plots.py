"""Figures for people, drawn without a display. All images share one grey scale, 0 black and 1 white."""

import warnings
from pathlib import Path

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from system.files import write_atomically

style.use("tableau-colorblind10")
NORMAL, ANOMALOUS = "#006ba4", "#c85200"  # of its colours
OUTLINE = "#00e5ff"  # of masks, on gray and on HEAT
HEAT = "inferno"
ABOVE = 0.005  # of all pixels of maps have a value above the one that is shown brightest
OPAQUE = 0.7  # a map over its image, where it is highest
PANEL = 2.4  # inches, of a strip
DPI = 110


def save(figure: Figure, path: Path) -> None:
    figure.tight_layout()
    write_atomically(path, lambda part: figure.savefig(part, dpi=110, format="png"))


def curves(rows: list[dict], path: Path) -> None:
    """Training losses and validation AUC over the epochs, from the rows of metrics.jsonl."""
    if not any(r["losses"] for r in rows):  # a method that is only fitted has none
        return
    figure = Figure(figsize=(11, 4))
    validated = [r for r in rows if "val_auc" in r]
    losses, *others = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    for name in dict.fromkeys(name for r in rows for name in r["losses"]):
        losses.plot([r["epoch"] for r in rows], [r["losses"].get(name, np.nan) for r in rows], ".-", label=name)
    positive = all(value > 0 for r in rows for value in r["losses"].values())
    losses.set(xlabel="epoch", ylabel="weighted loss", yscale="log" if positive else "linear", title="training")
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    losses.legend(fontsize=8)
    for validation in others:
        validation_curves(validation, validated)
    save(figure, path)


def validation_curves(validation: Axes, validated: list[dict]) -> None:
    epochs = [r["epoch"] for r in validated]
    for name in validated[-1]["val_auc"]:
        (line,) = validation.plot(epochs, [100 * r["val_auc"][name] for r in validated], ".-", label=name)
        if "val_auc_averaged" in validated[-1]:
            averaged = [100 * r["val_auc_averaged"][name] for r in validated]
            validation.plot(epochs, averaged, ".--", color=line.get_color(), label=f"{name}, averaged weights")
    validation.set(xlabel="epoch", ylabel="AUC, %", title="validation", ylim=(0, 100))
    validation.axhline(50, color="grey", linewidth=0.5)
    validation.xaxis.set_major_locator(MaxNLocator(integer=True))
    validation.legend(fontsize=8)


def roc_pr(labels: np.ndarray, scores: dict[str, np.ndarray], results: dict[str, dict], path: Path) -> None:
    """ROC and precision–recall curves of every image score."""
    figure = Figure(figsize=(10, 4.6))
    roc, pr = figure.subplots(1, 2)
    for name, values in scores.items():
        fpr, tpr, _ = roc_curve(labels, values)
        roc.plot(fpr, tpr, label=f"{name}: AUC {100 * results[name]['auc']:.1f} %")
        precision, recall, _ = precision_recall_curve(labels, values)
        pr.plot(recall, precision, label=f"{name}: AP {100 * results[name]['average_precision']:.1f} %")
    roc.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", aspect="equal")
    pr.axhline(labels.mean(), color="grey", linewidth=0.5)
    pr.set(xlabel="recall", ylabel="precision", title="precision–recall", ylim=(0, 1.02), aspect="equal")
    roc.legend(fontsize=8)
    pr.legend(fontsize=8)
    save(figure, path)


def histograms(labels: np.ndarray, scores: dict[str, np.ndarray], results: dict[str, dict], path: Path) -> None:
    """Densities of normal and anomalous images' scores, their χ² distance, the threshold chosen on validation."""
    figure = Figure(figsize=(5 * len(scores), 4))
    for axis, (name, values) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        bins = np.histogram_bin_edges(values, 100)  # as many as the distance is of
        for label, what, color in ((0, "normal", NORMAL), (1, "anomalous", ANOMALOUS)):
            if (labels == label).any():
                axis.hist(values[labels == label], bins, density=True, alpha=0.6, color=color, label=what)
        threshold = results[name].get("at_val_threshold", {}).get("threshold", "inf")
        if threshold != "inf":
            axis.axvline(threshold, color="black", linewidth=1, linestyle="--", label="threshold from validation")
        distance = results[name].get("chi2_distance")  # of two classes
        axis.set(xlabel=f"{name} score (higher = more anomalous)", ylabel="density")
        axis.set_title("" if distance is None else f"χ² distance {distance:.2f}")
        axis.legend(fontsize=8)
    save(figure, path)


def samples(groups: dict[str, list[tuple[str, np.ndarray, np.ndarray]]], score: str, path: Path) -> None:
    """Input | reconstruction | difference; ``groups`` maps a title to (caption, input, reconstruction) triples.

    Images are (H, W) in [0, 1]; the difference is absolute, on the same scale.
    """
    rows = max(map(len, groups.values()))
    figure = Figure(figsize=(4.6 * len(groups), 1.75 * rows + 0.9))
    figure.suptitle(
        f"input | reconstruction | absolute difference, all on one grey scale; kind and {score} score", fontsize=10
    )
    axes = figure.subplots(rows, 3 * len(groups), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for g, (title, triples) in enumerate(groups.items()):
        for r, (caption, image, reconstruction) in enumerate(triples):
            panels = (image, reconstruction, np.abs(image - reconstruction))
            for c, panel in enumerate(panels):
                axes[r, 3 * g + c].imshow(panel, cmap="gray", vmin=0, vmax=1)
            axes[r, 3 * g + 1].set_title((title + "\n" if r == 0 else "") + caption, fontsize=8)
    save(figure, path)


def maps(captions: list[str], images: np.ndarray, found: dict[str, np.ndarray], path: Path) -> None:
    """Every image (N, H, W) in [0, 1] beside its maps: name → (N, H, W); a map's scale is one for its column."""
    figure = Figure(figsize=(1.75 * (len(found) + 1), 1.75 * len(images) + 0.5))
    axes = figure.subplots(len(images), len(found) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for r, (caption, image) in enumerate(zip(captions, images, strict=True)):
        axes[r, 0].imshow(image, cmap="gray", vmin=0, vmax=1)
        axes[r, 0].set_title(caption, fontsize=8)
    for c, (name, of_score) in enumerate(found.items(), start=1):
        high = highest(of_score)
        for r, pixels in enumerate(of_score):
            axes[r, c].imshow(pixels, cmap="inferno", vmin=0, vmax=high)
            axes[r, c].set_title(f"{name}, 0 – {high:.2g}" if r == 0 else "", fontsize=8)
    save(figure, path)


def highest(maps: np.ndarray) -> float:
    """The value that is shown brightest: of all pixels, 0.5 % are above it."""
    return float(np.quantile(maps, 1 - ABOVE))


class Brightest:
    """:func:`highest` of more maps than fit into memory, of ``pixels`` in all or fewer."""

    def __init__(self, pixels: int):
        self.room = int(ABOVE * pixels) + 2
        self.kept = np.empty(0, np.float32)
        self.seen = 0

    def add(self, maps: np.ndarray) -> None:
        pixels = np.concatenate([self.kept, maps.ravel()])
        self.kept = np.partition(pixels, -self.room)[-self.room :] if len(pixels) > self.room else pixels
        self.seen += maps.size

    def value(self) -> float:
        """Of those that were added."""
        return float(np.quantile(self.kept, 1 - ABOVE * (self.seen - 1) / (len(self.kept) - 1)))


def colours(heat: np.ndarray, high: float) -> np.ndarray:
    """A map (H, W) as uint8 RGBA, from 0 to ``high``; transparent where it is NaN."""
    shades = (colormaps[HEAT](np.arange(256)) * 255).round().astype(np.uint8)  # (256, 4)
    found = shades[brightness(heat, high)]
    found[np.isnan(heat), 3] = 0
    return found


def overlay(gray: np.ndarray, heat: np.ndarray, high: float) -> np.ndarray:
    """A map (H, W) over its image, uint8 gray, as uint8 RGB: the higher, the less is seen through it."""
    opacity = np.minimum(brightness(heat, high)[..., None] / 255, OPAQUE)  # (H, W, 1)
    return (colours(heat, high)[..., :3] * opacity + gray[..., None] * (1 - opacity)).round().astype(np.uint8)


def brightness(heat: np.ndarray, high: float) -> np.ndarray:
    """Values from 0 to ``high`` as uint8; what is NaN as 0, what is higher as 255."""
    return (np.nan_to_num(heat / high if high else heat * 0).clip(0, 1) * 255).round().astype(np.uint8)


def strip(
    title: str, captions: list[str], gray: list[tuple[str, np.ndarray]], heat: tuple[str, np.ndarray, float] | None,
    path: Path,
) -> None:  # fmt: skip
    """One image for people: a title, a line of captions and panels side by side.

    Args:
        gray: name and (H, W) in [0, 1] each, on one grey scale.
        heat: a map's name, (H, W) and the value that is shown brightest, with a colour bar.
    """
    panels = len(gray) + (heat is not None)
    width, height = PANEL * panels + 0.1 + (heat is not None) * 0.6, PANEL + 0.75  # inches
    figure = Figure(figsize=(width, height))

    def placed(left: float, across: float) -> Axes:
        return figure.add_axes((left / width, 0.05 / height, across / width, (PANEL - 0.1) / height))

    figure.text(0.1 / width, 1 - 0.2 / height, title, fontsize=10, va="center", parse_math=False)
    figure.text(0.1 / width, 1 - 0.4 / height, " · ".join(captions), fontsize=9, va="center", parse_math=False)
    axes = [placed(0.1 + PANEL * i, PANEL - 0.1) for i in range(panels)]
    for axis, (name, pixels) in zip(axes, gray, strict=False):
        axis.imshow(pixels, cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize=9, pad=3)
    if heat is not None:
        name, pixels, high = heat
        shown = axes[-1].imshow(pixels, cmap=HEAT, vmin=0, vmax=high or 1)
        axes[-1].set_title(f"map: {name}", fontsize=9, pad=3)
        figure.colorbar(shown, cax=placed(0.1 + PANEL * panels, 0.12)).ax.tick_params(labelsize=8)
    for axis in axes:
        axis.set_axis_off()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        write_atomically(path, lambda part: figure.savefig(part, dpi=DPI, format="png"))
