"""Figures for people, drawn without a display. Images share one grey scale, 0 black and 1 white; maps get brighter all
the way, and lines have colours that the colour-blind tell apart."""

import textwrap
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import binary_erosion
from sklearn.metrics import precision_recall_curve, roc_curve

from system.files import write_atomically

style.use("tableau-colorblind10")
NORMAL, ANOMALOUS = "#006ba4", "#c85200"  # of its colours
OUTLINE = "#00e5ff"  # of masks, on gray and on HEAT
HEAT = "inferno"
SHOWN_QUANTILES = (0.5, 0.995)  # maps of distances lie far above 0 everywhere
OPAQUE = 0.7  # a map over its image, where it is highest
PANEL = 2.4  # inches, of a strip
DPI = 110
ACROSS = 3  # histograms in a row
SAMPLED = 32  # pixels of a map's side that a scale of colours is made by, of 10,000 maps 40 MB
QUICK = {"compress_level": 1}  # larger files, written sooner
# an evaluation's figures, in the order of their use → what they show
FIGURES = {
    "roc_pr": "ROC and precision–recall curves of every score",
    "histograms": "histograms of every score, of normal and anomalous images",
    "samples": "input, reconstruction and difference of the highest, the lowest and the worst-judged images",
    "maps": "every map of some of these images",
    "curves": "losses and validation AUC over the epochs of training",
}
# entry of results.json → how it is called, its marker on the ROC, its line in the histograms
THRESHOLDS = {
    "at_val_threshold": ("threshold from validation", "o", "--"),
    "at_normals_threshold": ("threshold of normals alone", "^", ":"),
}


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """As PNG, or what else the path ends in."""
    if figure.get_layout_engine() is None:
        figure.tight_layout()
    write_atomically(path, lambda part: figure.savefig(part, dpi=dpi, format=path.suffix[1:]))


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
    """ROC and precision–recall curves of every image score; the ROC with its thresholds as points."""
    figure = Figure(figsize=(10, 4.6))
    roc, pr = figure.subplots(1, 2)
    for name, values in scores.items():
        fpr, tpr, _ = roc_curve(labels, values)
        (line,) = roc.plot(fpr, tpr, label=f"{name}: AUC {100 * results[name]['auc']:.1f} %")
        for threshold, (_, marker, _) in THRESHOLDS.items():
            if at := results[name].get(threshold):
                roc.plot(1 - at["specificity"], at["recall"], marker, color=line.get_color())
        precision, recall, _ = precision_recall_curve(labels, values)
        pr.plot(recall, precision, label=f"{name}: AP {100 * results[name]['average_precision']:.1f} %")
    for threshold, (what, marker, _) in THRESHOLDS.items():
        if any(threshold in found for found in results.values()):
            roc.plot([], [], marker, color="grey", label=what)
    roc.plot([0, 1], [0, 1], color="grey", linewidth=0.5)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC", aspect="equal")
    pr.axhline(labels.mean(), color="grey", linewidth=0.5)
    pr.set(xlabel="recall", ylabel="precision", title="precision–recall", ylim=(0, 1.02), aspect="equal")
    roc.legend(fontsize=8)
    pr.legend(fontsize=8)
    save(figure, path)


def histograms(
    labels: np.ndarray, scores: dict[str, np.ndarray], results: dict[str, dict], path: Path, across: int = ACROSS
) -> None:
    """Densities of normal and anomalous images' scores, their χ² distance, the thresholds; ``across`` in a row."""
    columns, rows = min(len(scores), across), -(-len(scores) // across)
    figure = Figure(figsize=(5 * columns, 4 * rows))
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(scores) :]:
        axis.set_axis_off()
    for axis, (name, values) in zip(axes, scores.items(), strict=False):
        bins = np.histogram_bin_edges(values, 100)  # as many as the distance is of
        for label, what, color in ((0, "normal", NORMAL), (1, "anomalous", ANOMALOUS)):
            if (labels == label).any():
                axis.hist(values[labels == label], bins, density=True, alpha=0.6, color=color, label=what)
        for key, (what, _, line) in THRESHOLDS.items():
            threshold = results[name].get(key, {}).get("threshold", "inf")
            if threshold != "inf":
                axis.axvline(threshold, color="black", linewidth=1, linestyle=line, label=what)
        distance = results[name].get("chi2_distance")  # of two classes
        axis.set(xlabel=f"{name} score (higher = more anomalous)", ylabel="density")
        axis.xaxis.set_major_locator(MaxNLocator(5))  # whose labels do not touch
        axis.set_title("" if distance is None else f"χ² distance {distance:.2f}")
        axis.legend(fontsize=8)
    save(figure, path)


def samples(groups: dict[str, list[tuple]], score: str, path: Path) -> None:
    """Input | reconstruction | difference; ``groups`` maps a title to (caption, input, reconstruction, mask) each.

    Images are (H, W) in [0, 1]; the difference is absolute. The mask (H, W) bool is outlined on the input, where it is
    not None.
    """
    rows = max(map(len, groups.values()))
    figure = Figure(figsize=(4.6 * len(groups) + 0.8, 1.75 * rows + 0.9), layout="constrained")
    outlined = (
        ", what is anomalous outlined" if any(each[3] is not None for of in groups.values() for each in of) else ""
    )
    figure.suptitle(
        f"input{outlined} | reconstruction | absolute difference; above: kind and {score} score", fontsize=11
    )
    axes = blank_axes(figure, rows, 3 * len(groups))
    high = highest(np.stack([np.abs(x - x_hat) for of_group in groups.values() for _, x, x_hat, _ in of_group]))
    for g, (title, of_group) in enumerate(groups.items()):
        for r, (caption, image, reconstruction, mask) in enumerate(of_group):
            first, second, third = axes[r, 3 * g : 3 * g + 3]
            first.imshow(image, cmap="gray", vmin=0, vmax=1)
            outline(first, mask)
            second.imshow(reconstruction, cmap="gray", vmin=0, vmax=1)
            shown = third.imshow(np.abs(image - reconstruction), cmap=HEAT, vmin=0, vmax=high)
            second.set_title((title + "\n" if r == 0 else "") + caption, fontsize=9, parse_math=False)
    figure.colorbar(shown, ax=axes, label="absolute difference", shrink=0.5, aspect=30)
    save(figure, path)


def maps(
    captions: list[str], images: np.ndarray, masks: np.ndarray | None, found: dict[str, np.ndarray], path: Path
) -> None:
    """Every image (N, H, W) or (N, 3, H, W) in [0, 1], its mask (N, H, W) outlined, beside its maps: name → (N, H, W);
    a map's colours are those of its column.
    """
    figure = Figure(figsize=(2.2 * (len(found) + 1), 1.95 * len(images) + 0.9), layout="constrained")
    axes = blank_axes(figure, len(images), len(found) + 1)
    for r, (caption, image) in enumerate(zip(captions, images, strict=True)):
        axes[r, 0].imshow(picture(image), cmap="gray", vmin=0, vmax=1)
        outline(axes[r, 0], None if masks is None else masks[r])
        axes[r, 0].set_title(caption, fontsize=9, parse_math=False)
    for c, (name, of_score) in enumerate(found.items(), start=1):
        low, high = scale(of_score)
        for r, pixels in enumerate(of_score):
            shown = axes[r, c].imshow(pixels, cmap=HEAT, vmin=low, vmax=high)
        axes[0, c].set_title(name, fontsize=9)
        bar = figure.colorbar(shown, ax=axes[:, c], location="bottom", aspect=12, pad=0.01, ticks=MaxNLocator(3))
        bar.ax.tick_params(labelsize=8)
    save(figure, path)


def picture(image: np.ndarray) -> np.ndarray:
    """(H, W), or (3, H, W) → (H, W, 3), as matplotlib takes it."""
    return image if image.ndim == 2 else np.moveaxis(image, 0, -1)


def blank_axes(figure: Figure, rows: int, columns: int) -> np.ndarray:
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return axes


def outline(axis: Axes, mask: np.ndarray | None) -> None:
    """The border of a mask (H, W) bool, where something is marked, over the image of its size."""
    if mask is None or not mask.any():
        return
    height, width = mask.shape
    around = np.pad(mask, 1)  # so that it is closed where it reaches the image's border
    axis.contour(np.arange(-1, width + 1), np.arange(-1, height + 1), around, [0.5], colors=OUTLINE, linewidths=1)
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A uint8 RGB image (H, W, 3) with the border of a mask (H, W) bool, as :func:`outline`."""
    inside = binary_erosion(mask)  # beyond the image nothing is marked, so that it is closed there
    return np.where((mask & ~inside)[..., None], np.uint8(np.array(to_rgb(OUTLINE)) * 255), image)


def sampled(maps: np.ndarray) -> np.ndarray:
    """Pixels of maps (N, H, W), evenly apart, that are enough for a scale of all of them."""
    step = -(-maps.shape[1] // SAMPLED)
    return maps[:, ::step, ::step]


def highest(values: np.ndarray) -> float:
    """What is shown brightest of maps with these values: 0.5 % are above it."""
    return float(np.quantile(values, SHOWN_QUANTILES[1]))


def scale(values: np.ndarray) -> tuple[float, float]:
    """What is shown darkest and brightest of maps with these values: half of all are below it, 0.5 % above."""
    low, high = np.quantile(values, SHOWN_QUANTILES)
    return float(low), float(high)


def colours(heat: np.ndarray, shown: tuple[float, float]) -> np.ndarray:
    """A map (H, W) as uint8 RGBA, from darkest to brightest as ``shown``; transparent where it is NaN."""
    shades = (colormaps[HEAT](np.arange(256)) * 255).round().astype(np.uint8)  # (256, 4)
    found = shades[brightness(heat, shown)]
    found[np.isnan(heat), 3] = 0
    return found


def overlay(gray: np.ndarray, heat: np.ndarray, shown: tuple[float, float]) -> np.ndarray:
    """A map (H, W) over its image, uint8 gray, as uint8 RGB: the higher, the less of the image is seen through it."""
    opacity = OPAQUE * brightness(heat, shown)[..., None].astype(np.float32) / 255  # (H, W, 1)
    return (colours(heat, shown)[..., :3] * opacity + gray[..., None] * (1 - opacity)).round().astype(np.uint8)


def brightness(heat: np.ndarray, shown: tuple[float, float]) -> np.ndarray:
    """A map (H, W) as uint8: 0 where it is darkest, or NaN; 255 where it is brightest."""
    low, high = shown
    share = (heat - low) / (high - low) if high > low else 0 * heat
    return (np.nan_to_num(share).clip(0, 1) * 255).round().astype(np.uint8)


class Heat(NamedTuple):
    """A map (H, W), what it is called, and the values that are shown darkest and brightest (:func:`scale`)."""

    name: str
    pixels: np.ndarray
    shown: tuple[float, float]


def strip(title: str, captions: list[str], gray: dict[str, np.ndarray], heat: Heat | None, path: Path) -> None:
    """One image for people: a title, captions (two lines at most) and panels side by side, ``gray`` ones (name →
    (H, W), or (3, H, W) in colour, in [0, 1]) and a map with its colour bar.
    """
    panels = len(gray) + (heat is not None)
    width, height, side = PANEL * panels + 0.1 + 0.6 * (heat is not None), PANEL + 0.85, PANEL - 0.1  # inches
    figure = Figure(figsize=(width, height))
    # one for all panels, in inches: axes of their own take longer than all else
    page = figure.add_axes((0, 0, 1, 1), autoscale_on=False, xlim=(0, width), ylim=(0, height))
    page.set_axis_off()

    def panel(number: int, name: str, pixels: np.ndarray, **colours: object) -> AxesImage:
        left = 0.1 + PANEL * number
        page.text(left + side / 2, PANEL, name, fontsize=9, ha="center")
        return page.imshow(pixels, extent=(left, left + side, 0.05, 0.05 + side), aspect="auto", **colours)

    page.text(0.1, height - 0.08, shortened(title, int(width / 0.085)), fontsize=10, va="top", parse_math=False)
    below = textwrap.fill(" · ".join(captions), int(width / 0.075))
    page.text(0.1, height - 0.28, below, fontsize=9, va="top", parse_math=False)
    for i, (name, pixels) in enumerate(gray.items()):
        panel(i, name, picture(pixels), cmap="gray", vmin=0, vmax=1)
    if heat:
        low, high = heat.shown
        image = panel(len(gray), f"map: {heat.name}", heat.pixels, cmap=HEAT, vmin=low, vmax=high)
        beside = figure.add_axes(((0.1 + PANEL * panels) / width, 0.05 / height, 0.12 / width, side / height))
        figure.colorbar(image, cax=beside, extend="both").ax.tick_params(labelsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for it
        write_atomically(path, lambda part: figure.savefig(part, dpi=DPI, format="png", pil_kwargs=QUICK))


def shortened(text: str, room: int) -> str:
    """Text of at most ``room`` characters, its middle left out."""
    return text if len(text) <= room else f"{text[: room // 2 - 1]}…{text[-(room - room // 2) :]}"
