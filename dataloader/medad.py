"""The Med-AD benchmarks (Cai et al. 2023): RSNA, VinDr-CXR, Brain Tumor MRI and LAG in one layout.

``images/`` and ``data.json`` = {"train": {"0": [names], "unlabeled": {"0": [names], "1": [names]}},
"test": {"0": [names], "1": [names]}}. There is no validation set; with ``held_out`` that share of the normal training
images is not trained on, and is the split ``val``. Of the unlabeled images a method that trains on them takes
``extra_data``: int(extra_data · anomaly_rate) anomalous and the rest normal, the first of each list. ``masks/``, where
it is there, has NAME.png for images/NAME of whatever ending: what of an anomalous image is anomalous
(``tools/prepare_data.py`` makes it of the boxes that RSNA and VinDr-CXR come with).

MedIAnomaly (Cai et al. 2024, Zenodo 12677223) hands out the same four in folders RSNA, VinCXR, BrainTumor and LAG, of
images/ and data.json each. Its program reads "train" "0" and "test" "0" and "1" alone, so that the unlabeled lists, or
their images, may be missing where none is asked for.
"""

import json
import re
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from dataloader.base import OWN_IMAGES, FileDataset, Item, Split, require_items, unlabeled_in_words
from dataloader.held_out import hold_out
from dataloader.images import DataError

# what is unlabeled may be left out, all of it
FORM = '{"train": {"0": [...], "unlabeled": {"0": [...], "1": [...]}}, "test": {"0": [...], "1": [...]}}'
BRAIN_KINDS = {"gl": "glioma", "me": "meningioma"}
# Kaggle's Te-gl_0010.jpg and Te-glTr_0009.jpg; or the class that tools/prepare_data.py puts in front of equal names
BRAIN_KIND = re.compile("(?:^|[-_])(gl|me)(?:ioma|ningioma|Tr)?_")


class MedAd(FileDataset):
    how_to_get = (
        "Get the original dataset (docs/datasets.md says where) and make the layout with tools/prepare_data.py, or "
        "unpack a Med-AD download there (images/ and data.json; MedIAnomaly's is Zenodo record 12677223), or name its "
        "folder with --data-root. " + OWN_IMAGES
    )
    has_validation = False
    confounders = {
        "brain": "Brain Tumor's normal images come from another collection than the tumors, in another colour mode, "
        "and most of the normal test images repeat training images."
    }
    folders = {"rsna": ("RSNA",), "vindr": ("VinCXR",), "brain": ("BrainTumor",), "lag": ("LAG",)}

    def list_items(self) -> dict[str, list[Item]]:
        lists = read_lists(self.root, self.how_to_get, unlabeled=any(self.config.unlabeled()))
        items: dict[str, list[Item]] = {"train": [], "unlabeled": [], "val": [], "test": []}
        for (split, label), names in lists.items():
            items[split] += [self._item(name, label) for name in names]
        for split, label in (("train", 0), ("test", 0), ("test", 1)):
            require_items(items[split], label, f"{split} {'anomalous' if label else 'normal'}", self.root)
        if self.config.held_out:
            items["train"], items["val"] = hold_out(items["train"], self.config.held_out, self.root, self.item_id)
        return items

    def _item(self, name: str, label: int) -> Item:
        tumor = BRAIN_KIND.search(name) if label and self.config.dataset == "brain" else None
        kind = BRAIN_KINDS[tumor[1]] if tumor else ("anomalous" if label else "normal")
        mask = (self.root / "masks" / name).with_suffix(".png")
        return Item(self.root / "images" / name, label, kind, mask=mask if mask.is_file() else None)

    def split(self, name: str) -> Split:
        if not self.items[name]:
            raise DataError(
                f"{self.root}: the Med-AD benchmarks have no validation set; --split {name} is not there. To hold "
                "normal images out of training: main.py --set held_out=0.2."
            )
        return super().split(name)

    @cached_property
    def unlabeled_items(self) -> list[Item]:
        """The images of unknown label that are trained on too, normal ones first. Raises DataError."""
        wanted = dict(enumerate(self.config.unlabeled()))
        chosen = []
        for label, what in ((0, "normal"), (1, "anomalous")):
            pool = [item for item in self.items["unlabeled"] if item.label == label]
            if wanted[label] and not pool:
                raise DataError(
                    f"{self.root / 'data.json'}: extra_data with anomaly_rate asks for "
                    f"{wanted[label]} {what} unlabeled images, and there are none. Change the rate, or fill the list."
                )
            if len(pool) < wanted[label]:
                print(
                    f"note: {self.root / 'data.json'}: {wanted[label]} {what} unlabeled images are asked for, "
                    f"and all {len(pool)} that there are will be used.",
                    file=sys.stderr,
                )
            chosen += pool[: wanted[label]]
        return chosen

    @cached_property
    def _unlabeled(self) -> torch.Tensor:
        return self.read(self.unlabeled_items, "unlabeled")

    def unlabeled_images(self) -> torch.Tensor:
        return self._unlabeled

    def used_items(self) -> list[Item]:
        return super().used_items() + self.unlabeled_items

    def training_in_words(self) -> str:
        return super().training_in_words() + unlabeled_in_words([item.label for item in self.unlabeled_items])

    def record(self) -> dict[str, Any]:
        return {**super().record(), "unlabeled_images": [self.item_id(item) for item in self.unlabeled_items]}


def parse_lists(path: Path, how_to_get: str) -> dict[tuple[str, int], list[str]]:
    """A data.json as (``train``, ``unlabeled`` or ``test``; label) → file names.

    Raises:
        DataError: where it is missing or malformed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. {how_to_get}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        train, test = content["train"], content["test"]
        lists = {("train", 0): train["0"]}
        unlabeled = train.get("unlabeled") or {"0": [], "1": []}
        lists |= {("unlabeled", label): unlabeled[str(label)] for label in (0, 1)}
        lists |= {("test", label): test[str(label)] for label in (0, 1)}
        if not all(
            isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists.values()
        ):
            raise TypeError("a name that is no string, or names that are no list")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: must be {FORM} ({error!r}).") from error
    return lists


def read_lists(root: Path, how_to_get: str, unlabeled: bool) -> dict[tuple[str, int], list[str]]:
    """The lists of a Med-AD folder, whose names are those of files below images/.

    Args:
        unlabeled: whether unlabeled images are trained on; otherwise those that are not there are left out.
    Raises:
        DataError: as :func:`parse_lists`, and for a file that is named twice or is not there.
    """
    path = root / "data.json"
    lists = parse_lists(path, how_to_get)
    place: dict[str, str] = {}
    for (split, label), names in lists.items():
        for name in names:
            where = f"{split} {label}"
            if name in place:
                raise DataError(f"{path}: {name} is named twice, in {place[name]} and in {where}. Take one out.")
            place[name] = where
    on_disk = {p.relative_to(root / "images").as_posix() for p in (root / "images").rglob("*") if p.is_file()}
    absent = [name for name in place if name not in on_disk]
    if absent and not unlabeled and all(place[name].startswith("unlabeled") for name in absent):
        print(f"note: {path}: {len(absent)} unlabeled images are not there; none is asked for.", file=sys.stderr)
        return {part: [name for name in names if name in on_disk] for part, names in lists.items()}
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of {len(place)} files are not in {root / 'images'}, the first {absent[0]} "
            f"({place[absent[0]]}). Complete the images, or take the names out of the lists."
        )
    return lists
