"""CheXpert (Irvin et al. 2019): frontal PA radiographs, No Finding against everything else.

Layouts: {train,val,our_test}_256_pa/{normal_256,abnormal_256}, optionally with diseases.txt in the root or in a split's
folder; or the official train.csv beside its images, from which validation and test are carved by patient with a fixed
seed. An image has the diseases that the CSV marks 1 (-1, uncertain, is not counted) or that diseases.txt lists in a
line ``file/disease/disease…``. Persons are the ``patient00001`` in an image's path, or in its file's name.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch

from dataloader.base import OWN_IMAGES, FileDataset, Item, read_lines, require_items
from dataloader.images import SUFFIXES, DataError
from system.seeding import generator

FOLDERS = {"train": "train_256_pa", "val": "val_256_pa", "test": "our_test_256_pa"}
CLASSES = ("normal_256", "abnormal_256")
CARVED = 250  # images per class in each of validation and test; a tenth of the class where that is less
DISEASES = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
)  # fmt: skip
NO_DISEASES = ("No Finding", "Support Devices")  # findings of the CSV that are no diseases
POSITIVE = ("1", "1.0")
LABELS = (*POSITIVE, "0", "0.0", "-1", "-1.0", "")  # present, absent, uncertain, not mentioned
COLUMNS = ("Path", "Frontal/Lateral", "AP/PA", "No Finding")


class CheXpert(FileDataset):
    diseases = DISEASES
    how_to_get = (
        "Register for CheXpert at Stanford AIMI, download CheXpert-v1.0-small and name its folder (the one with "
        f"train.csv) with --data-root. {OWN_IMAGES}"
    )

    def list_items(self) -> dict[str, list[Item]]:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. {self.how_to_get}")
        if any((self.root / folder).is_dir() for folder in FOLDERS.values()):
            items = self._folders()
        elif (self.root / "train.csv").is_file():
            items = self._official(self.root / "train.csv")
        else:
            raise DataError(f"{self.root}: holds neither train_256_pa/ nor train.csv. {self.how_to_get}")
        for split, label in (("train", 0), ("val", 0), ("val", 1), ("test", 0), ("test", 1)):
            require_items(items[split], label, f"{split} {CLASSES[label]}", self.root)
        return items

    def _folders(self) -> dict[str, list[Item]]:
        items: dict[str, list[Item]] = {}
        everywhere = self._listed_diseases(self.root / "diseases.txt")
        for split, folder in FOLDERS.items():
            listed = everywhere | self._listed_diseases(self.root / folder / "diseases.txt")
            items[split] = []
            for label, name in enumerate(CLASSES):
                where = self.root / folder / name
                if (split, label) == ("train", 1) and not where.is_dir():
                    continue  # anomalous training images are not needed
                kind = "abnormal" if label else "normal"
                items[split] += [
                    Item(p, label, kind, listed.get(p.name, ()), _named_patient(p)) for p in self.files(where)
                ]
        return items

    @staticmethod
    def _listed_diseases(path: Path) -> dict[str, tuple[str, ...]]:
        """diseases.txt, where there is one: file name → diseases."""
        lines = read_lines(path) if path.is_file() else []
        known = {name.lower(): name for name in DISEASES + NO_DISEASES}
        found: dict[str, tuple[str, ...]] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            parts = [part.strip() for part in line.split("/")]
            # the file may be given with its folders
            at = next((i for i, part in enumerate(parts) if Path(part).suffix.lower() in SUFFIXES), None)
            if at is None:
                raise DataError(f"{path}, line {number}: must be 'file/disease/disease…', not {line!r}.")
            unknown = [name for name in parts[at + 1 :] if name and name.lower() not in known]
            if unknown:
                raise DataError(
                    f"{path}, line {number}: unknown disease {unknown[0]!r}; known are {', '.join(DISEASES)}."
                )
            names = (known[name.lower()] for name in parts[at + 1 :] if name)
            diseases = tuple(name for name in names if name not in NO_DISEASES)
            if found.setdefault(parts[at], diseases) != diseases:
                raise DataError(
                    f"{path}, line {number}: {parts[at]} is listed twice, with different diseases, and images are "
                    "known by their names alone. Rename them, or take a line out."
                )
        return found

    def _official(self, path: Path) -> dict[str, list[Item]]:
        patients: dict[str, dict[str, Item]] = defaultdict(
            dict
        )  # patient → listed path → item; repeated rows count once
        for line, row in _read_rows(path):
            if row["Frontal/Lateral"] != "Frontal" or row["AP/PA"] != "PA":
                continue
            labels = {name: row[name] for name in ("No Finding", *DISEASES) if name in row}
            wrong = [f"{name} = {value!r}" for name, value in labels.items() if value not in LABELS]
            if wrong:
                raise DataError(f"{path}, line {line}: {wrong[0]} is not 1, 0, -1 or blank. Download the file again.")
            normal = labels["No Finding"] in POSITIVE
            diseases = tuple(name for name in DISEASES if labels.get(name) in POSITIVE)
            kind, patient = "normal" if normal else "abnormal", _patient(row["Path"], path)
            item = Item(self._locate(row["Path"], path), 0 if normal else 1, kind, diseases, patient)
            if patients[patient].setdefault(row["Path"], item) != item:
                raise DataError(f"{path}, line {line}: {row['Path']} is listed twice, with different labels.")
        if not patients:
            raise DataError(f"{path}: lists no frontal PA radiograph.")
        return carve_by_patient({name: list(items.values()) for name, items in patients.items()})

    def _locate(self, listed: str, csv_path: Path) -> Path:
        """The CSV's paths begin with the name the download had, such as CheXpert-v1.0-small/."""
        for candidate in (self.root / listed, self.root.parent / listed, self.root / Path(*Path(listed).parts[1:])):
            if candidate.is_file():
                return candidate
        raise DataError(f"{csv_path}: lists {listed}, which is not below {self.root}. Unpack the download again.")


def carve_by_patient(patients: dict[str, list[Item]]) -> dict[str, list[Item]]:
    """Validation and test from whole patients, in a fixed random order, until each class has its share.

    Images of those patients beyond the share are left out of everything, so that no patient is in two splits.
    """
    totals = [sum(item.label == label for items in patients.values() for item in items) for label in (0, 1)]
    shares = [min(CARVED, max(1, total // 10)) for total in totals]
    names = sorted(patients)
    remaining = [names[i] for i in torch.randperm(len(names), generator=generator(0, "chexpert"))]
    splits: dict[str, list[Item]] = {}
    for split in ("test", "val"):
        room, splits[split], passed_over = list(shares), [], []
        for name in remaining:
            if not any(room[item.label] for item in patients[name]):
                passed_over.append(name)
            for item in patients[name]:
                if room[item.label]:
                    room[item.label] -= 1
                    splits[split].append(item)
        remaining = passed_over
    splits["train"] = [item for name in remaining for item in patients[name]]
    return splits


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CheXpert CSV with their numbers. Raises DataError for another file."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            absent = [column for column in COLUMNS if column not in (rows.fieldnames or [])]
            if absent:
                raise DataError(f"{path}: has no column {', '.join(absent)}; it is not CheXpert's train.csv.")
            for row in rows:
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {rows.line_num}: has too few or too many fields. Download it again.")
                yield rows.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error}). Download it again.") from error


def _named_patient(path: Path) -> str:
    """Of patient00001_study1_view1.png, as the folders may have them; empty where the name says none."""
    found = re.match(r"patient\d+", path.name)
    return found[0] if found else ""


def _patient(listed: str, path: Path) -> str:
    for part in Path(listed).parts:
        if part.startswith("patient"):
            return part
    raise DataError(f"{path}: {listed} names no patient (…/patient00001/study1/…).")
