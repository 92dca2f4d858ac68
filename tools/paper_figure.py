"""What becomes of the AUC where one setting is varied: the figure of a script whose lines are called SERIES@VALUE."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from system.files import write_atomically
from tools.make_tables import Row

# Okabe and Ito's colours, which most colour-blind people tell apart; markers for who sees none
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vP*"
Curve = dict[str, list[float]]  # value → AUC in percent of every seed


def draw(path: Path, groups: Mapping[str, Sequence[Row]]) -> bool:
    """path.png and path.pdf of the lines (name → the rows of its seeds) that are points of curves; whether there are.

    Series of the same values share a panel, as methods do; others have one each, as settings do.
    """
    curves: dict[str, Curve] = defaultdict(dict)
    for line, rows in groups.items():
        series, at, value = line.partition("@")
        if at and rows:
            curves[series][value] = [100 * row["auc"] for row in rows]
    if not curves:
        return False
    panels: dict[tuple[str, ...], dict[str, Curve]] = defaultdict(dict)
    for series, curve in curves.items():
        panels[tuple(sorted(curve))][series] = curve
    shared = len(panels) == 1 and len(curves) > 1
    shown = list(panels.values()) if shared else [{series: curve} for series, curve in curves.items()]
    columns = min(len(shown), 3)
    figure = Figure(figsize=(4.6 * columns, 3.6 * -(-len(shown) // columns)))
    axes = figure.subplots(-(-len(shown) // columns), columns, squeeze=False, sharey=True)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, series in zip(axes.flat, shown, strict=False):
        panel(axis, series)
    for axis in axes[:, 0]:
        axis.set_ylabel("AUC, %")
    figure.tight_layout()
    for ending in ("png", "pdf"):
        write_atomically(
            path.with_name(f"{path.name}.{ending}"),
            lambda part, ending=ending: figure.savefig(part, format=ending, dpi=150),
        )
    return True


def panel(axis: Axes, curves: dict[str, Curve]) -> None:
    """Mean and standard deviation over seeds of every curve, and each seed as a point; values evenly apart."""
    values = sorted({value for curve in curves.values() for value in curve}, key=float)
    for (series, curve), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
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
    if len(curves) == 1:
        axis.set_xlabel(next(iter(curves)))
    else:
        axis.legend(fontsize=8)
