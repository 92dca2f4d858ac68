"""What a dataset holds, which of its images are the same, whether its splits are alike, and what tells its classes
apart without the anatomy."""

import hashlib
from collections import Counter
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dataloader import Dataset, FileDataset
from dataloader.base import in_words
from dataloader.duplicates import CORRELATION, RULE, SIDE, standardised
from dataloader.images import decoded, read_images
from dataloader.medmnist import PneumoniaMnist
from evaluation.metrics import auc

PARTS = ("train", "unlabeled", "val", "test")
SPLITS = ("train", "val", "test")
CLASSES = ("normal", "anomalous")
CHUNK = 256  # images that are compared with others at a time
COARSE = 16  # pixels a side that are enough to see whether splits differ
FOLDS = 5


class Picture(NamedTuple):
    """An image, in whatever form."""

    part: str  # of PARTS
    label: int
    kind: str
    person: str
    digest: bytes  # of its file, or of its pixels where it has none
    path: Path | None = None

    @property
    def split(self) -> str:
        """The part; what is unlabeled is trained on like the rest."""
        return "train" if self.part == "unlabeled" else self.part


def check(dataset: Dataset) -> str:
    """The report of a dataset. Raises DataError for what cannot be read."""
    pictures, grays = of_files(dataset) if isinstance(dataset, FileDataset) else in_memory(dataset)
    evaluated = [i for i, picture in enumerate(pictures) if picture.part == ("test" if dataset.has_test else "val")]
    lines = [
        f"{dataset.config.dataset}, {dataset.root}",
        *counts(pictures),
        f"Images that repeat one before them. Rule: {RULE}.",
        *repeats(pictures, standardised(grays)),
        *persons(pictures),
        *differences(pictures, grays),
        *traits([pictures[i] for i in evaluated], grays[evaluated]),
    ]
    return "\n".join(lines)


def of_files(dataset: FileDataset) -> tuple[list[Picture], torch.Tensor]:
    """The pictures, training images first, and as (N, SIDE, SIDE) uint8."""
    placed = [(part, item) for part in PARTS for item in dataset.items.get(part, ())]
    grays = read_images([item.path for _, item in placed], SIDE, "images", "box")
    pictures = [
        Picture(part, item.label, item.kind, item.person, hashlib.sha256(item.path.read_bytes()).digest(), item.path)
        for part, item in placed
    ]
    return pictures, grays


def in_memory(dataset: Dataset) -> tuple[list[Picture], torch.Tensor]:
    """As :func:`of_files`, of a dataset without them; training images that are drawn are those of the first epoch."""
    listed = isinstance(dataset, PneumoniaMnist)  # which has anomalous images in train as well
    parts = []
    if not listed:
        training = dataset.training_images(0)
        parts.append(("train", training, [0] * len(training), ["normal"] * len(training)))
    for name, there in (("train", listed), ("val", dataset.has_validation), ("test", dataset.has_test)):
        if there:
            split = dataset.split(name)
            parts.append((name, split.images, split.labels.tolist(), split.kinds))
    pictures, small = [], []
    for part, *of_part in parts:
        for image, label, kind in zip(*of_part, strict=True):
            pictures.append(Picture(part, label, kind, "", hashlib.sha256(image.numpy().tobytes()).digest()))
            small.append(shrunk(image))
    return pictures, torch.stack(small)


def shrunk(image: torch.Tensor) -> torch.Tensor:
    """(H, W) uint8 → (SIDE, SIDE) uint8."""
    small = Image.fromarray(image.numpy()).resize((SIDE, SIDE), Image.Resampling.BOX)
    return torch.from_numpy(np.array(small))


def counts(pictures: list[Picture]) -> list[str]:
    """A line for every class of every part."""
    lines = []
    for part, label in product(PARTS, (0, 1)):
        kinds = Counter(picture.kind for picture in pictures if (picture.part, picture.label) == (part, label))
        if kinds:
            of_kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
            lines.append(f"  {part} {CLASSES[label]}: {kinds.total()}" + (f" ({of_kinds})" if len(kinds) > 1 else ""))
    return lines


# -- the same images, the same persons --------------------------------------------------------------------------------


def repeats(pictures: list[Picture], rows: torch.Tensor) -> list[str]:
    """A line for every split with itself and with those before it. Rows (N, D) are standardised."""
    places = {split: [i for i, picture in enumerate(pictures) if picture.split == split] for split in SPLITS}
    lines = []
    for end, split in enumerate(SPLITS, start=1):
        for other in SPLITS[:end]:
            if places[split] and places[other]:
                found = repeated(pictures, rows, places[split], places[other])
                where = f"within {split}" if split == other else f"{split}, of {other}"
                lines.append(f"  {where}: {by_class([pictures[i] for i in places[split]], found)}")
    return lines


def repeated(pictures: list[Picture], rows: torch.Tensor, own: list[int], others: list[int]) -> list[str]:
    """For each of ``own`` whether one of ``others`` that comes before it is ``identical``, ``near`` or neither, ""."""
    first: dict[bytes, int] = {}
    for i in others:
        first.setdefault(pictures[i].digest, i)
    references, places = rows[others], torch.tensor(others)
    near = []
    for chunk in torch.tensor(own).split(CHUNK):
        before = places < chunk.unsqueeze(1)
        near += ((rows[chunk] @ references.T > CORRELATION) & before).any(1).tolist()
    identical = [first.get(pictures[i].digest, i) < i for i in own]
    return ["identical" if same else "near" if close else "" for same, close in zip(identical, near, strict=True)]


def by_class(pictures: list[Picture], found: list[str]) -> str:
    parts = []
    for label, name in enumerate(CLASSES):
        how = Counter(what for picture, what in zip(pictures, found, strict=True) if picture.label == label)
        if how:
            parts.append(f"{name} {how['identical']} identical and {how['near']} nearly, of {how.total()}")
    return "; ".join(parts)


def persons(pictures: list[Picture]) -> list[str]:
    """A line for every two splits, of the persons that are in both."""
    of_split = {split: {p.person for p in pictures if p.split == split} - {""} for split in SPLITS}
    if not any(of_split.values()):
        return ["Persons: the dataset does not say whose an image is."]
    lines = ["Persons in two splits, by the names that the dataset has for them:"]
    for split, other in combinations([split for split in SPLITS if of_split[split]], 2):
        both = of_split[split] & of_split[other]
        labels = [picture.label for picture in pictures if picture.split == other and picture.person in both]
        lines.append(f"  {split} and {other}: {len(both)} (of {other}'s images {in_words(sum(labels), len(labels))})")
    return lines


# -- whether the splits are alike ----------------------------------------------------------------------------------


def differences(pictures: list[Picture], grays: torch.Tensor) -> list[str]:
    """A line for every class of validation and test: how well its images are told from training's of the same class.

    By a linear classifier of :data:`COARSE` × :data:`COARSE` pixels, cross-validated, a person's images in one fold.
    """
    rows = standardised(torch.nn.functional.avg_pool2d(grays.float(), SIDE // COARSE)).numpy()
    whose = np.array([picture.person or f"image {i}" for i, picture in enumerate(pictures)])
    lines = []
    for split, (label, name) in product(SPLITS[1:], enumerate(CLASSES)):
        sides = [
            [i for i, picture in enumerate(pictures) if (picture.split, picture.label) == (side, label)]
            for side in ("train", split)
        ]
        if all(sides):
            enough = min(len(set(whose[side])) for side in sides) >= FOLDS
            found = f"AUC {100 * told_apart(rows, whose, *sides):.1f} %" if enough else "too few to say"
            lines.append(f"  {split} {name}, of train {name}: {found}")
    header = "Whether another split's images are like training's of the same class, to a linear classifier of"
    return [f"{header} {COARSE}×{COARSE} pixels (50 % if so):", *lines] if lines else []


def told_apart(rows: np.ndarray, whose: np.ndarray, of_train: list[int], of_other: list[int]) -> float:
    """The cross-validated AUC with which rows (N, D) of one split are told from another's."""
    places = of_train + of_other
    other = np.repeat([0, 1], [len(of_train), len(of_other)])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    said = cross_val_predict(model, rows[places], other, groups=whose[places], cv=folds, method="decision_function")
    return auc(other, said)


# -- what is no anatomy -----------------------------------------------------------------------------------------------


def traits(pictures: list[Picture], grays: torch.Tensor) -> list[str]:
    """What of one split's images (N, SIDE, SIDE) is no anatomy, and the AUC that each has alone."""
    labels = np.array([picture.label for picture in pictures])
    if len(set(labels)) < 2:
        return ["What tells the classes apart: nothing to say, as no split with both is evaluated."]
    lines = [f"What tells {pictures[0].part}'s classes apart without a look at the anatomy, each alone:"]
    if all(picture.path for picture in pictures):
        modes, pixels, size = map(np.array, zip(*(shape_of(picture.path) for picture in pictures), strict=True))
        lines += [
            colour_mode(labels, modes),
            number("image size", labels, pixels / 1e3, "thousand pixels"),
            number("file size", labels, size / 1e3, "kB"),
        ]
    return [
        *lines,
        number("mean gray level", labels, grays.double().mean((1, 2)).numpy(), "of 255"),
        number(f"mean step between neighbouring pixels at {SIDE}×{SIDE}", labels, mean_step(grays), "of 255"),
    ]


def mean_step(grays: torch.Tensor) -> np.ndarray:
    """How much neighbouring pixels of each image (N, H, W) differ, across and down: (N,)."""
    across, down = (grays.double().diff(dim=dim).abs().mean((1, 2)) for dim in (2, 1))
    return ((across + down) / 2).numpy()


def shape_of(path: Path) -> tuple[str, int, int]:
    """A file's colour mode, pixels and bytes. Raises DataError."""
    picture = decoded(path, Image.Image.copy)
    return picture.mode, picture.width * picture.height, path.stat().st_size


def colour_mode(labels: np.ndarray, modes: np.ndarray) -> str:
    """The files' modes in each class, and the AUC of each mode's share of anomalous images: no order does better."""
    shares = {mode: labels[modes == mode].mean() for mode in set(modes)}
    best = auc(labels, np.array([shares[mode] for mode in modes]))
    classes = (
        f"{name} " + ", ".join(f"{mode} {n}" for mode, n in Counter(modes[labels == label]).most_common())
        for label, name in enumerate(CLASSES)
    )
    return f"  colour mode: AUC {100 * best:.1f} % ({'; '.join(classes)})"


def number(what: str, labels: np.ndarray, values: np.ndarray, unit: str) -> str:
    """A number's AUC in its better direction, and its mean and deviation in each class."""
    found = auc(labels, values)
    classes = (
        f"{name} {values[labels == label].mean():.0f} ± {values[labels == label].std():.0f}"
        for label, name in enumerate(CLASSES)
    )
    return f"  {what}: AUC {100 * max(found, 1 - found):.1f} % ({'; '.join(classes)} {unit})"
