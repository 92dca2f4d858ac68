"""An evaluation disease by disease, for datasets whose images are labelled with diseases."""

import difflib

from dataloader import DataError, Dataset, Split
from evaluation import metrics
from evaluation.scoring import Scored

COLUMNS = ("disease", "images", "score", "auc", "average_precision", "auc_others_as_normal")


def wanted(option: str, dataset: Dataset) -> tuple[str, ...]:
    """The diseases that ``disease`` (all of the dataset's) or ``disease=NAME`` asks for. Raises DataError."""
    what, _, name = option.partition("=")
    if what != "disease":
        raise DataError(f"--by {option}: write --by disease or --by disease=NAME.")
    if not dataset.diseases:
        raise DataError(
            f"--by {option}: {type(dataset).__name__} does not label its images with diseases; "
            "CheXpert does. Leave --by out."
        )
    if not name:
        return dataset.diseases
    known = {disease.lower(): disease for disease in dataset.diseases}
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" Did you mean {known[near[0]]!r}?" if near else ""
        raise DataError(f"--by {option}: unknown disease.{hint} Known are {', '.join(dataset.diseases)}.")
    return (known[name.lower()],)


def figures(split: Split, scored: Scored, diseases: tuple[str, ...]) -> list[dict[str, object]]:
    """One row per disease and image score, in fractions; None where no image has the disease.

    ``auc`` and ``average_precision`` set the images with the disease against the normal ones, all others left out.
    ``auc_others_as_normal`` is the released program's reading: images with other diseases count as normal.

    Raises:
        DataError: where no image of the split has any disease.
    """
    if not any(split.diseases or ()):
        raise DataError("No evaluated image is labelled with a disease: add diseases.txt, or take the official CSV.")
    anomalous = split.labels.numpy() == 1
    rows = []
    for disease in diseases:
        has = anomalous & [disease in of_image for of_image in split.diseases]
        chosen = has | ~anomalous
        for name, scores in scored.image.items():
            known = has.any()
            rows.append(
                {
                    "disease": disease, "images": int(has.sum()), "score": name,
                    "auc": metrics.auc(has[chosen], scores[chosen]) if known else None,
                    "average_precision": metrics.average_precision(has[chosen], scores[chosen]) if known else None,
                    "auc_others_as_normal": metrics.auc(has, scores) if known else None,
                }
            )  # fmt: skip
    return rows


def table(rows: list[dict[str, object]], main_score: str) -> str:
    """The main score's rows, in percent, for the screen."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.1f}"

    lines = [f"{'':>28}  images   AUC   AP   AUC with other diseases as normal   (score: {main_score}, in %)"]
    for row in rows:
        if row["score"] == main_score:
            against = f"{percent(row['auc']):>5} {percent(row['average_precision']):>5}"
            lines.append(f"{row['disease']:>28}  {row['images']:>6} {against}   {percent(row['auc_others_as_normal'])}")
    return "\n".join(lines)
