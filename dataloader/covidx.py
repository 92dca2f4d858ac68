"""COVIDx (CXR-2 and later, Wang et al. 2020): normal chest X-rays against pneumonia and COVID-19.

Layout: the images in train/ and test/, and beside these folders the lists train_squid.txt, val_squid.txt,
test_COVIDx9A.txt and, for contaminated training, train_squid_abnormal.txt. A line is ``patient_id filename label
source``; older lists have no source, and some patient ids contain a space; a line that begins with # is a comment. The
label normal is 0, all else 1. Persons are the patient ids of the lists.

The authors' three lists are not public; ``tools/prepare_data.py covidx`` makes such lists from COVIDx's own.
"""

import re
import sys
from pathlib import Path
from typing import Any

from dataloader.base import OWN_IMAGES, FileDataset, Item, read_lines, require_items
from dataloader.images import SUFFIXES, DataError

# split → its lists, and the folders its images may lie in (of the same name in both, the latter counts)
LISTS = {
    "train": (("train_squid.txt", "train_squid_abnormal.txt"), ("train",)),
    "val": (("val_squid.txt",), ("train", "val")),
    "test": (("test_COVIDx9A.txt",), ("test",)),
}
COMMENT = "#"
OPTIONAL = "train_squid_abnormal.txt"
MISSING_ALLOWED = 0.05  # share of a list whose images may be missing on disk


class Covidx(FileDataset):
    confounders = {"covidx": "COVIDx's normal images come from RSNA, and the COVID-19 ones do not."}
    how_to_get = (
        "Get COVIDx CXR-2 or later (Kaggle andyczhao/covidx-cxr2, or its authors' scripts) and name its folder with "
        "--data-root. tools/prepare_data.py covidx makes the lists from COVIDx's own: of the training list the normal "
        "ones in train_squid.txt, the others in train_squid_abnormal.txt, some of both held out in val_squid.txt; "
        "test_COVIDx9A.txt as it is. " + OWN_IMAGES
    )

    def list_items(self) -> dict[str, list[Item]]:
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder. {self.how_to_get}")
        self.missing: dict[str, list[str]] = {}  # list → its files that are not on disk
        items: dict[str, list[Item]] = {}
        images = {folder: self._folder(folder) for folder in ("train", "val", "test")}
        for split, (lists, folders) in LISTS.items():
            on_disk = {path.name: path for folder in folders for path in images[folder]}
            items[split] = [item for name in lists for item in self._read_list(self.root / name, on_disk)]
        items = listed_once(items)
        for split, label in (("train", 0), ("val", 0), ("val", 1), ("test", 0), ("test", 1)):
            require_items(items[split], label, f"{split} {'anomalous' if label else 'normal'}", self.root)
        for name, files in self.missing.items():
            print(f"note: {self.root / name}: {len(files)} listed images are missing: {_some(files)}", file=sys.stderr)
        return items

    def record(self) -> dict[str, Any]:
        return {**super().record(), "missing_files": self.missing}

    def _folder(self, name: str) -> list[Path]:
        if name == "val" and not (self.root / name).is_dir():
            return []  # validation images are held out from train/
        return self.files(self.root / name)

    def _read_list(self, path: Path, on_disk: dict[str, Path]) -> list[Item]:
        if not path.is_file():
            if path.name == OPTIONAL:
                return []
            raise DataError(f"{path}: no such list. {self.how_to_get}")
        items, missing = [], []
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip() or line.startswith(COMMENT):
                continue
            patient, name, label = parse_line(line, f"{path}, line {number}")
            found = on_disk.get(name) or on_disk.get(_renamed(name))
            if found is None:
                missing.append(name)
            else:
                items.append(Item(found, int(label != "normal"), label, person=patient))
        if missing:
            self.missing[path.name] = missing
            if len(missing) > MISSING_ALLOWED * (len(items) + len(missing)):
                raise DataError(
                    f"{path}: {len(missing)} of {len(items) + len(missing)} listed images are missing, more than "
                    f"{MISSING_ALLOWED:.0%}: {_some(missing)}. {self.how_to_get}"
                )
        return items


def listed_once(items: dict[str, list[Item]]) -> dict[str, list[Item]]:
    """Without what a split lists again. Raises DataError for an image of two labels or in two splits."""
    seen: dict[Path, tuple[str, Item]] = {}
    for split, of_split in items.items():
        for item in of_split:
            other_split, other = seen.setdefault(item.path, (split, item))
            if (split, item.kind) != (other_split, other.kind):
                raise DataError(
                    f"{item.path}: is listed as {other.kind} of {other_split}, and as {item.kind} of {split}. Mend the "
                    "lists."
                )
    return {split: [item for item in of_split if seen[item.path][1] is item] for split, of_split in items.items()}


def parse_line(line: str, where: str) -> tuple[str, str, str]:
    """A line's patient id, file name and label, read from the right because patient ids may contain spaces.

    Raises:
        DataError: for another line, and for the labels positive and negative.
    """
    fields = line.split()
    # the label follows the file name, and the source, where there is one, ends the line
    at = next((at for at in (-2, -3) if len(fields) > -at and _is_image(fields[at])), None)
    if at is None:
        raise DataError(f"{where}: must be 'patient_id filename label source' or without the source, not {line!r}.")
    name, label = fields[at], fields[at + 1]
    if label.lower() in ("positive", "negative"):
        raise DataError(
            f"{where}: the label is {label!r}. This list tells COVID-19 from everything else; take the list of the "
            "same images with the labels normal, pneumonia and COVID-19."
        )
    return " ".join(fields[:at]), name, "normal" if label.lower() == "normal" else label


def _is_image(field: str) -> bool:
    return Path(field).suffix.lower() in SUFFIXES


def _renamed(name: str) -> str:
    """Some downloads have COVID-1.png where the lists say COVID(1).png."""
    return re.sub(r"\((\d+)\)", r"-\1", name)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
