"""ZhangLab chest X-rays (Kermany et al. 2018; Kaggle chest-xray-pneumonia): normal against pneumonia.

Layouts: {train,test}/{NORMAL,PNEUMONIA}, with or without CellData/chest_xray/ above (Kaggle's 16 val images belong
to train); or SQUID's {train,val,test}/{normal_256,pneumonia_256}. Validation, where the folders have none, is
val_split.json in the data root or beside train/ ({"val": {"NORMAL": [names], "PNEUMONIA": [names]}}), else ours beside
this file where train has all its images, else 100 + 100 by a fixed rule. Pneumonia images of one person stand in
training and validation, which only matters where train_normal_fraction lets anomalous images into training.

Persons are read off the file names. Pneumonia: ``person100`` of person100_bacteria_475.jpeg; a number with a bacterial
and a viral image counts as one person. Normal: no name says whose image it is, so that what shares its IM number and
series counts as one person's: ``IM-0011`` of IM-0011-0001-0002.jpeg, ``NORMAL2-IM-0374`` of
NORMAL2-IM-0374-0001-0002.jpeg. The two series count on their own, hence the prefix; no number of a series is in both
train and test, as it must be where the authors split by person.
"""

import json
import re
import sys
from pathlib import Path

import torch

from dataloader.base import OWN_IMAGES, FileDataset, Item, require_items
from dataloader.images import DataError
from system.seeding import generator

CLASSES = ("NORMAL", "PNEUMONIA")
SQUID_CLASSES = ("normal_256", "pneumonia_256")
VALIDATION_PER_CLASS = 100
OUR_LIST = Path(__file__).with_name("zhang_val_split.json")  # all our figures are of it


class ZhangLab(FileDataset):
    how_to_get = (
        "Get 'Chest X-Ray Images (Pneumonia)' (Kermany et al., Mendeley Data rscbjbr9sj, or Kaggle "
        "paultimothymooney/chest-xray-pneumonia) and unpack it there, or name its folder with --data-root. "
        + OWN_IMAGES
    )

    def list_items(self) -> dict[str, list[Item]]:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. {self.how_to_get}")
        for folder in (self.root, self.root / "chest_xray", self.root / "CellData" / "chest_xray"):
            for classes in (CLASSES, SQUID_CLASSES):
                if any((folder / "train" / name).is_dir() for name in classes):
                    return self._read_layout(folder, classes)
        raise DataError(f"{self.root}: holds neither train/NORMAL nor train/normal_256. {self.how_to_get}")

    def _read_layout(self, folder: Path, classes: tuple[str, str]) -> dict[str, list[Item]]:
        official = classes == CLASSES
        items: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
        for split in items:
            for label, name in enumerate(classes):
                where = folder / split / name
                # of the official copies Kaggle's alone has val; SQUID's layout needs no anomalous training images
                if where.is_dir() or not (split == "val" if official else (split, label) == ("train", 1)):
                    items[split] += [self._item(p, label) for p in self.files(where)]
        if official:
            # Kaggle's val is far too small to validate with; in some copies it is part of train already
            there = {(item.label, item.path.name) for item in items["train"]}
            train = items["train"] + [item for item in items["val"] if (item.label, item.path.name) not in there]
            for label, name in enumerate(classes):
                require_items(train, label, f"train {name}", folder / "train" / name)
            items |= self._carve_validation(train, folder)
        for split, label in (("train", 0), ("val", 0), ("val", 1), ("test", 0), ("test", 1)):
            require_items(items[split], label, f"{split} {classes[label]}", folder / split / classes[label])
        return items

    @staticmethod
    def _item(path: Path, label: int) -> Item:
        # Kaggle's names, or Mendeley's: the disease, the patient and the number of the patient's image
        person = re.match(r"person\d+|(NORMAL2-)?IM-\d+|(?:NORMAL|BACTERIA|VIRUS)-(?P<patient>\d+)(?=-\d)", path.name)
        name = (person["patient"] or person[0]) if person else ""
        return Item(path, label, _kind(path) if label else "normal", person=name)

    def _carve_validation(self, train: list[Item], folder: Path) -> dict[str, list[Item]]:
        lists = (self.root / "val_split.json", folder / "val_split.json")
        listed = next((path for path in lists if path.exists()), None)
        chosen = self._listed(listed, train) if listed else self._ours(train, folder)
        return {
            "train": [item for item in train if item.path not in chosen],
            "val": [item for item in train if item.path in chosen],
        }

    @staticmethod
    def _listed(path: Path, train: list[Item]) -> set[Path]:
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["val"]
            wanted = {(label, name) for label, cls in enumerate(CLASSES) for name in names[cls]}
            if not all(isinstance(names[cls], list) and names[cls] for cls in CLASSES):
                raise TypeError("a class without a list of names")
        except (ValueError, KeyError, TypeError) as error:
            form = '{"val": {"NORMAL": [...], "PNEUMONIA": [...]}}'
            raise DataError(f"{path}: must be {form} ({error!r}).") from error
        found = {(item.label, item.path.name): item.path for item in train}
        absent = sorted(str(name) for label, name in wanted if (label, name) not in found)
        if absent:
            raise DataError(
                f"{path}: {len(absent)} listed files are not in train, the first {absent[0]}. Complete the images, or "
                "take the names out."
            )
        return {found[key] for key in wanted}

    def _ours(self, train: list[Item], folder: Path) -> set[Path]:
        """Our list's, or of images of other names as many."""
        try:
            return self._listed(OUR_LIST, train)
        except DataError:
            print(f"note: {folder / 'train'}: has not all images of {OUR_LIST.name}, by which our figures validate; "
                  "validation is drawn of those that are there.", file=sys.stderr)  # fmt: skip
            return self._drawn(train)

    @staticmethod
    def _drawn(train: list[Item]) -> set[Path]:
        chosen: set[Path] = set()
        for label, name in enumerate(CLASSES):
            of_person: dict[object, list[Path]] = {}  # who has all images held out, or none
            for item in train:
                if item.label == label:
                    of_person.setdefault(item.person or item.path, []).append(item.path)
            files = list(of_person.values())
            count = min(VALIDATION_PER_CLASS, max(1, sum(map(len, files)) // 5))
            held_out: list[Path] = []
            for i in torch.randperm(len(files), generator=generator(0, "zhang", name)):
                if len(held_out) + len(files[i]) <= count:
                    held_out += files[i]
            chosen.update(held_out or files[0])
        return chosen


def _kind(path: Path) -> str:
    """The file name tells bacterial from viral pneumonia."""
    found = re.search(r"bacteria|virus", path.name.lower())
    return {"bacteria": "bacterial", "virus": "viral"}[found[0]] if found else "pneumonia"
