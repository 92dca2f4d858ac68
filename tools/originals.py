"""What the four original downloads hold, as a list of labelled images. Labels: 0 normal, 1 anomalous."""

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dataloader import DataError
from dataloader.images import image_files

Box = tuple[float, float, float, float]  # left, top, right and bottom, in pixels of the original


@dataclass
class Original:
    """One image of a download; ``name`` is what it is called in Med-AD's images/."""

    path: Path
    name: str
    label: int
    kind: str
    boxes: tuple[Box, ...] = ()  # around what is anomalous, where the download has them


def rsna(root: Path) -> list[Original]:
    """RSNA Pneumonia Detection: Normal against Lung Opacity; neither of both is left out."""
    classes = rows_by_id(root / "stage_2_detailed_class_info.csv", "patientId", "class")
    targets = rows_by_id(root / "stage_2_train_labels.csv", "patientId", "Target")
    boxes = boxes_by_id(root / "stage_2_train_labels.csv", "patientId", ("x", "y", "width", "height"))
    found = []
    for patient, names in classes.items():
        (name,) = sole(names, root / "stage_2_detailed_class_info.csv", patient)
        label = {"Normal": 0, "Lung Opacity": 1}.get(name)
        if label is None:
            continue
        if patient in targets and targets[patient] != {str(label)}:
            raise DataError(
                f"{root}: {patient} is {name!r} in stage_2_detailed_class_info.csv, but Target "
                f"{', '.join(sorted(targets[patient]))} in stage_2_train_labels.csv. Fetch both lists anew."
            )
        kind = "normal" if label == 0 else "lung opacity"
        own = tuple((x, y, x + width, y + height) for x, y, width, height in boxes.get(patient, ()))
        found.append(Original(root / "stage_2_train_images" / f"{patient}.dcm", f"{patient}.png", label, kind, own))
    return found


def vindr(root: Path) -> list[Original]:
    """VinDr-CXR (Kaggle): normal where every radiologist's class is 14, no finding; boxes are all radiologists'."""
    boxes = boxes_by_id(root / "train.csv", "image_id", ("x_min", "y_min", "x_max", "y_max"))
    found = []
    for image, classes in rows_by_id(root / "train.csv", "image_id", "class_id").items():
        label = int(classes != {"14"})
        kind, own = "abnormal" if label else "normal", tuple(boxes.get(image, ()))
        found.append(Original(root / "train" / f"{image}.dicom", f"{image}.png", label, kind, own))
    return found


def brain(root: Path) -> list[Original]:
    """Brain Tumor MRI (Kaggle masoudnickparvar): no tumor against glioma and meningioma; pituitary is not used."""
    folders = {
        name: [root / part / name for part in ("Training", "Testing")] for name in ("notumor", "glioma", "meningioma")
    }
    return from_folders(folders, normal="notumor")


def lag(root: Path) -> list[Original]:
    """LAG: fundus images without and with suspected glaucoma."""
    folders = {name: [root / name / "image"] for name in ("non_glaucoma", "suspicious_glaucoma")}
    return from_folders(folders, normal="non_glaucoma")


def from_folders(folders: dict[str, list[Path]], normal: str) -> list[Original]:
    """Images by class folder; of equal file names in two folders all get their class in front, and where a class has
    two of them the folder that the class is in.
    """
    paths = [(name, place, path) for name, places in folders.items() for place in places for path in listed(place)]
    often = Counter(path.name for _, _, path in paths)
    of_class = Counter((name, path.name) for name, _, path in paths)
    found = []
    for name, place, path in paths:
        called = path.name if often[path.name] == 1 else f"{name}_{path.name}"
        if of_class[name, path.name] > 1:
            called = f"{place.parent.name}_{called}"
        found.append(Original(path, called, int(name != normal), "normal" if name == normal else name))
    return found


def listed(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Name the unpacked original download with --source.")
    return image_files(folder)


def rows_by_id(path: Path, key: str, column: str) -> dict[str, set[str]]:
    """The values of a column by id, each once however many rows an id has. Raises DataError."""
    found: dict[str, set[str]] = {}
    for _, row in read_rows(path, key, column):
        found.setdefault(row[key], set()).add(row[column])
    return found


def boxes_by_id(path: Path, key: str, columns: tuple[str, str, str, str]) -> dict[str, list[Box]]:
    """The numbers in four columns by id, of the rows that have any; a list without these columns has none.

    Raises:
        DataError: for a row that has some of the four alone, or no numbers.
    """
    found: dict[str, list[Box]] = {}
    for line, row in read_rows(path, key):
        texts = [row.get(column) or "" for column in columns]
        if any(texts):
            try:
                found.setdefault(row[key], []).append(tuple(map(float, texts)))
            except ValueError:
                raise DataError(
                    f"{path}, line {line}: {', '.join(columns)} must be four numbers or blank, not {texts}. Fetch the "
                    "list anew."
                ) from None
    return found


def read_rows(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a list that has these columns, with their numbers. Raises DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such list. Name the unpacked original download with --source.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = set(columns) - set(reader.fieldnames or ())
            if absent:
                missing = ", ".join(sorted(absent))
                raise DataError(f"{path}: has no column {missing}; it has {reader.fieldnames}. Fetch the list anew.")
            for row in reader:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}). Fetch the list anew.") from error


def sole(values: set[str], path: Path, of: str) -> set[str]:
    if len(values) != 1:
        raise DataError(f"{path}: {of} has {len(values)} classes: {', '.join(sorted(values))}. Fetch the list anew.")
    return values


def present(found: list[Original], source: Path) -> list[Original]:
    """Those whose file is there; says how many are not. Raises DataError where none is."""
    there = [original for original in found if original.path.is_file()]
    if not there:
        example = f", for example {found[0].path}" if found else ""
        raise DataError(
            f"{source}: none of the {len(found)} listed images is there{example}. "
            "Name the unpacked original download with --source."
        )
    if len(there) < len(found):
        absent = next(original.path for original in found if not original.path.is_file())
        print(
            f"note: {len(found) - len(there)} of {len(found)} listed images are missing, such as {absent}",
            file=sys.stderr,
        )
    return there


READERS: dict[str, Callable[[Path], list[Original]]] = {"rsna": rsna, "vindr": vindr, "brain": brain, "lag": lag}
