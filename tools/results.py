"""What the tools that write into results/ share: rows that replace an experiment's former ones, Markdown tables."""

import csv
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path

from evaluation.tables import csv_text
from experiments.folder import ExperimentError
from system.files import write_text

RESULTS = Path("results")
BAR = r"\|"  # as Markdown wants it within a cell


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, of none where it is not there. Raises ExperimentError."""
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExperimentError(f"{path}: not a CSV file in UTF-8 ({error}). Restore it, or move it away.") from error


def replace_rows(
    path: Path, fields: Sequence[str], rows: list[dict[str, object]], by: Sequence[str] = ("experiment",)
) -> list[dict[str, str]]:
    """Write rows to a CSV file, in place of what it holds of their experiments, or whatever columns they go ``by``;
    returns all as text, sorted by these.
    """
    key = itemgetter(*by)
    named = {key(row) for row in rows}
    rows = [row for row in read_rows(path) if key(row) not in named] + rows
    write_text(path, csv_text(fields, sorted(rows, key=key)))  # what is of one key keeps its order
    return read_rows(path)


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table's lines; a | within a cell is escaped."""
    return [
        f"| {' | '.join(str(text).replace('|', BAR) for text in cells)} |"
        for cells in (header, ["---"] * len(header), *rows)
    ]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"
