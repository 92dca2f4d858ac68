"""Scoring images by the thousand, and the table of it."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from dataloader import Split
from engine import distributed, metrics
from engine.device import to_float
from methods import Method

SCORE_BATCH = 32  # images; scores do not depend on it
SCORE_PIXELS_ON_CPU = 2**17  # 8 images of 128 × 128: more take more memory and hardly less time
FEWEST_ON_CPU = 8  # images, however large: each batch reads all weights


@dataclass
class Scored:
    """Arrays of what :class:`methods.Scores` holds, for N images."""

    image: dict[str, np.ndarray]  # name → (N,) float64 ranking scores
    columns: dict[str, np.ndarray]  # name → (N,)
    shown: dict[str, np.ndarray]  # name → (N,)
    maps: np.ndarray | None  # (N, H, W), where asked for
    named_maps: dict[str, np.ndarray] = field(default_factory=dict)  # image score → (N, H, W), likewise


def score_batches(images: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    """(N, H, W) images in batches as large as the device has a use for."""
    if device.type != "cpu":
        return images.split(SCORE_BATCH)
    fitting = SCORE_PIXELS_ON_CPU // max(images.shape[1:].numel(), 1)
    return images.split(min(max(fitting, FEWEST_ON_CPU), SCORE_BATCH))


def score_images(method: Method, images: torch.Tensor, device, what: str, keep_maps: bool = False) -> Scored:
    """Score (N, H, W) uint8 images in batches, with a progress bar on a terminal.

    Several processes score whole batches each, so that every score is computed as a single process would; all get all.
    """
    found = []
    for batch in tqdm(distributed.own(score_batches(images, device)), what, disable=None, leave=False):
        scores = method.score(to_float(batch, device))
        kept = scores.map.squeeze(1).cpu() if keep_maps and scores.map is not None else None
        named = {name: pixels.squeeze(1).cpu() for name, pixels in scores.maps.items()} if keep_maps else {}
        found.append((scores.image, scores.columns, scores.shown, kept, named))
    found = distributed.gather_list(found)

    def gathered(part: int) -> dict[str, np.ndarray]:
        return {name: torch.cat([f[part][name] for f in found]).cpu().numpy() for name in found[0][part]}

    maps = torch.cat([f[3] for f in found]).numpy() if found[0][3] is not None else None
    return Scored(gathered(0), gathered(1), gathered(2), maps, gathered(4))


def selected(split: Split, scored: Scored, chosen: np.ndarray) -> tuple[Split, Scored]:
    """A split and its scores less the images where ``chosen`` (N,) bool is False."""
    index = torch.from_numpy(chosen.nonzero()[0])

    def rows(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: value[chosen] for name, value in values.items()}

    def entries(values: list | None) -> list | None:
        return values and [values[i] for i in index]

    part = Split(
        split.images[index], split.labels[index], entries(split.kinds), entries(split.ids),
        None if split.masks is None else split.masks[index], entries(split.diseases), entries(split.persons),
    )  # fmt: skip
    maps = None if scored.maps is None else scored.maps[chosen]
    return part, Scored(rows(scored.image), rows(scored.columns), rows(scored.shown), maps, rows(scored.named_maps))


def validation_auc(labels: np.ndarray, scored: Scored) -> dict[str, float]:
    """The AUC of every image score. Raises MetricError."""
    for scores in scored.image.values():
        metrics.check(labels, scores, "the validation images")
    return {name: metrics.auc(labels, scores) for name, scores in scored.image.items()}


def thresholds(labels: np.ndarray, scored: Scored) -> dict[str, float]:
    """For every image score the threshold of the highest accuracy on these (validation) labels."""
    return {name: metrics.oracle_threshold(labels, scores) for name, scores in scored.image.items()}


def score_table(scored: Scored, main_score: str, first: dict[str, list], last: dict[str, list] | None = None) -> str:
    """CSV text: the ``first`` columns, ``logit`` and the like, ``score`` (the main one as people read it), all
    scores by name, the ``last`` columns; ``first`` and ``last`` map column names to N values each.
    """
    shown = scored.shown.get(main_score, scored.image[main_score])
    return table_text({**first, **scored.columns, "score": shown, **scored.image, **(last or {})})


def table_text(columns: dict[str, Sequence]) -> str:
    """CSV text of columns: name → N values each."""
    rows = zip(*([_cell(value) for value in values] for values in columns.values()), strict=True)
    return csv_text(list(columns), (dict(zip(columns, row, strict=True)) for row in rows))


def recorded_scores(splits: dict[str, Split], recorded: dict[str, dict[str, Scored]]) -> str:
    """CSV text of an epoch: every image's split, id, label and person (where known), and its scores by name.

    ``recorded`` maps what is appended to the scores' names to the scores of every split.
    """
    columns: dict[str, list] = {"split": [], "id": [], "label": [], "person": []}
    for name, split in splits.items():
        columns["split"] += [name] * len(split)
        columns["id"] += split.ids
        columns["label"] += split.labels.tolist()
        columns["person"] += split.persons or [""] * len(split)
    for suffix, scored in recorded.items():
        for score in next(iter(scored.values())).image:
            columns[f"{score}{suffix}"] = [value for name in splits for value in scored[name].image[score]]
    return table_text(columns)


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, object]]) -> str:
    """Rows of named values as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value) -> str:
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)
