"""Scores and figures as CSV text."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from dataloader import Split
from evaluation.scoring import Scored


def score_table(scored: Scored, main_score: str, first: dict[str, list], last: dict[str, list] | None = None) -> str:
    """CSV text: the ``first`` columns, ``logit`` and the like, ``score`` (the main one as people read it), all
    scores by name, the ``last`` columns; ``first`` and ``last`` map column names to N values each.
    """
    shown = scored.shown.get(main_score, scored.image[main_score])
    return table_text({**first, **scored.columns, "score": shown, **scored.image, **(last or {})})


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


def table_text(columns: dict[str, Sequence]) -> str:
    """CSV text of columns: name → N values each."""
    rows = zip(*([_cell(value) for value in values] for values in columns.values()), strict=True)
    return csv_text(list(columns), (dict(zip(columns, row, strict=True)) for row in rows))


def csv_text(columns: Sequence[str], rows: Iterable[dict[str, object]]) -> str:
    """Rows of named values as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, (float, np.floating)) else str(value)
