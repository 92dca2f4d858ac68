"""What becomes of the AUC where one setting is varied: the figure of a script whose lines are called SERIES@VALUE."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from system.files import write_atomically
from tools.make_tables import Row

# Okabe and Ito's colours, which most colour-blind people tell apart; markers for who sees none
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vP*"
Curve = dict[str, list[float]]  # value → AUC in percent of every seed


def draw(path: Path, groups: Mapping[str, Sequence[Row]], axis: str = "") -> bool:
    """path.png and path.pdf of the lines (name → its seeds' rows) that are points of curves; whether there are any.
    ``axis`` says what the values are, where all series are of the same.
    """
    points: dict[str, dict[str, Sequence[Row]]] = defaultdict(dict)  # series → value → rows
    for line, rows in groups.items():
        series, at, value = line.partition("@")
        if at and rows:
            points[series][value] = rows
    if not points:
        return False
    shown = of_scores(*points.items()) if len(points) == 1 else of_series(points, bool(axis))
    columns = min(len(shown), 3)
    figure = Figure(figsize=(4.6 * columns, 3.6 * -(-len(shown) // columns)))
    axes = figure.subplots(-(-len(shown) // columns), columns, squeeze=False, sharey=True)
    for place in axes.flat[len(shown) :]:
        place.set_axis_off()
    for place, (name, curves) in zip(axes.flat, shown, strict=False):
        panel(place, name or axis, curves)
    for place in axes[:, 0]:
        place.set_ylabel("AUC, %")
    figure.tight_layout()
    for ending in ("png", "pdf"):
        write_atomically(
            path.with_name(f"{path.name}.{ending}"),
            lambda part, ending=ending: figure.savefig(part, format=ending, dpi=150),
        )
    return True


def of_series(points: Mapping[str, Mapping[str, Sequence[Row]]], same: bool) -> list[tuple[str, dict[str, Curve]]]:
    """A panel (its name and curves) for all series, which vary the ``same``, as methods may; or one for each."""
    curves = {
        series: {value: [100 * row["auc"] for row in rows] for value, rows in of.items()}
        for series, of in points.items()
    }
    return [("", curves)] if same else [(series, {series: curve}) for series, curve in curves.items()]


def of_scores(series: tuple[str, Mapping[str, Sequence[Row]]]) -> list[tuple[str, dict[str, Curve]]]:
    """Of a single series a curve for every score; where test images repeat others, a panel without those too."""
    name, points = series
    panels = []
    for which, images in (("scores", ""), ("removed", ", duplicates removed")):
        first, *others = (row[which] for rows in points.values() for row in rows)
        curves = {
            score: {value: [100 * row[which][score] for row in rows] for value, rows in points.items()}
            for score in first
            if all(score in row for row in others)
        }
        panels += [(name + images, curves)] if curves else []
    return panels


def panel(axis: Axes, name: str, curves: dict[str, Curve]) -> None:
    """Mean and standard deviation over seeds of every curve, and each seed as a point; values evenly apart."""
    values = sorted({value for curve in curves.values() for value in curve}, key=float)
    styles = cycle(zip(COLOURS, MARKERS, strict=True))
    for (series, curve), (colour, marker) in zip(curves.items(), styles, strict=False):
        places = [place for place, value in enumerate(values) if value in curve]
        aucs = [curve[values[place]] for place in places]
        means = [statistics.mean(of) for of in aucs]
        spreads = [statistics.stdev(of) if len(of) > 1 else 0.0 for of in aucs]
        axis.plot(places, means, color=colour, marker=marker, markersize=5, label=series)
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        for place, of in zip(places, aucs, strict=True):
            axis.plot([place] * len(of), of, ".", color=colour, markersize=3, alpha=0.6)
    axis.set_xticks(range(len(values)), values)
    axis.grid(alpha=0.3)
    axis.set_xlabel(name)
    if len(curves) > 1:  # above the panel: within it there may be no place without a curve or a band
        axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
