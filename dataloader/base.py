"""What a dataset is: items on disk or images made on the fly, as uint8 grayscale tensors."""

import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch

import configs
from configs import BaseConfig
from dataloader import familiar
from dataloader.duplicates import duplicates_of
from dataloader.images import FORMATS, DataError, image_files, read_images, read_mask, require_utf8
from system.seeding import generator

DATA_ROOT_VARIABLE = "ANOMALY_DATA_ROOT"
SAMPLED = 1 << 16  # bytes of a file that tell it from others
DARK = 32  # gray levels of images that were hardly meant so
T = TypeVar("T")
OWN_IMAGES = "For your own images: --set dataset=folder (docs/own_images.md)."


@dataclass
class Item:
    """One image file: label 0 is normal, 1 anomalous; kind says of what sort."""

    path: Path
    label: int
    kind: str = "normal"
    diseases: tuple[str, ...] = ()
    person: str = ""  # whose image it is, where the dataset says so
    mask: Path | None = None  # the file that marks what is anomalous, where there is one


@dataclass
class Split:
    """Images of one split in memory."""

    images: torch.Tensor  # (N, H, W) uint8; (N, 3, H, W) in colour
    labels: torch.Tensor  # (N,) int64, 0 normal, 1 anomalous
    kinds: list[str]
    ids: list[str]
    masks: torch.Tensor | None = None  # (N, H, W) bool, True where anomalous, where the dataset knows
    diseases: list[tuple[str, ...]] | None = None  # of each image, where the dataset knows
    persons: list[str] | None = None  # of each image; None where the dataset knows none

    def __len__(self) -> int:
        return len(self.images)

    def in_words(self) -> str:
        return in_words(int(self.labels.sum()), len(self))


class Dataset(ABC):
    """A dataset gives its normal training images and the labelled validation and test splits."""

    how_to_get = ""
    has_validation = True  # with anomalous images, to choose epochs and thresholds by
    has_held_out = True  # normal images in val, which may be all that is there
    has_test = True
    folders: dict[str, tuple[str, ...]] = {}  # by dataset: what public copies call its folder
    diseases: tuple[str, ...] = ()  # the names that images may be labelled with
    confounders: dict[str, str] = {}  # by dataset: what its figures may owe something to beside the disease

    def __init__(self, config: BaseConfig, root: Path):
        self.config = config
        self.root = root

    @classmethod
    def root_from(cls, config: BaseConfig, given: str | None) -> Path:
        """The data root, as :func:`find_root`. Raises DataError where ``given`` (--data-root) is no folder."""
        if given and not Path(given).expanduser().is_dir():  # even for a dataset that can do without files
            raise DataError(f"--data-root {given}: no such folder. {cls.how_to_get}")
        named = os.environ.get(DATA_ROOT_VARIABLE)
        if not given and named and not Path(named).expanduser().is_dir():
            raise DataError(f"${DATA_ROOT_VARIABLE} = {named}: no such folder. Mend it, or unset it.")
        return find_root(config, given, cls.folders.get(config.dataset, ()))

    @abstractmethod
    def training_images(self, epoch: int) -> torch.Tensor:
        """The training images of an epoch: (N, H, W) uint8; the same every epoch unless made anew.

        All are normal, unless ``train_normal_fraction`` asks for anomalous ones among them.
        """

    def unlabeled_images(self) -> torch.Tensor:
        """The ``extra_data`` images of unknown label that a method may train on too: (N, H, W) uint8.

        Raises:
            DataError: where the dataset has none.
        """
        raise DataError(
            f"{self.root}: {type(self).__name__} has no unlabeled images, which {self.config.method} trains on too. "
            f"Take a dataset that has (the Med-AD benchmarks, digit), or another method: all but "
            f"{', '.join(configs.with_unlabeled())} train on normal images alone."
        )

    @abstractmethod
    def split(self, name: str) -> Split:
        """``val`` or ``test``, where the dataset has it."""

    def duplicates(self) -> dict[str, str] | None:
        """Test images that repeat others: id → ``identical`` or ``near``; None where that cannot be looked for."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of what is trained on, so that a resumed run cannot go on with other data."""

    def has_fingerprint(self, recorded: str) -> bool:
        """Whether an experiment that recorded this fingerprint was trained on these data."""
        return recorded == self.fingerprint()

    def fingerprint_of_all(self) -> str:
        """A digest of all splits, whichever of the images this experiment's seed and settings take."""
        return self.fingerprint()

    def anomalous_training_ids(self) -> list[str]:
        """The anomalous images among the training images (train_normal_fraction)."""
        return []

    @abstractmethod
    def training_in_words(self) -> str:
        """How many images of an epoch are normal, and how many are not."""

    def training_name(self, index: int) -> str:
        """What to call a training image in a figure."""
        return f"image {index}"

    def record(self) -> dict[str, Any]:
        """What an experiment keeps about its training data, ready for JSON."""
        return {
            "fingerprint": self.fingerprint(),
            "training_images": self.training_in_words(),
            "anomalous_training_images": self.anomalous_training_ids(),
            "looks": familiar.record(self.training_images(0)),
        }


class FileDataset(Dataset):
    """A dataset of image files; a subclass lists them. They are read once, and kept decoded (dataloader/cache.py)."""

    def __init__(self, config: BaseConfig, root: Path):
        super().__init__(config, root)
        self._training: torch.Tensor | None = None

    @abstractmethod
    def list_items(self) -> dict[str, list[Item]]:
        """All items of ``train`` (normal and anomalous), ``val`` and ``test``. Raises DataError."""

    @cached_property
    def items(self) -> dict[str, list[Item]]:
        items = self.list_items()
        for item in chain.from_iterable(items.values()):
            require_utf8(item.path)
        return items

    @property
    def has_held_out(self) -> bool:
        return bool(self.items["val"])

    def training_items(self) -> list[Item]:
        """Those of :func:`contaminated`: the normal ones alone, unless the configuration asks for others."""
        return contaminated(self.config, self.root, self.items["train"], [item.label for item in self.items["train"]])

    def training_images(self, epoch: int) -> torch.Tensor:
        if self._training is None:
            self._training = self.read(self.training_items(), "train")
            if (brightest := int(self._training.max())) < DARK:
                print(
                    f"note: {self.root}: no pixel of the training images is brighter than {brightest} of 255. Of 12 "
                    "bits in 16-bit files, or of 0 and 1, little is left: stretch them, or keep DICOM.", file=sys.stderr
                )  # fmt: skip
        return self._training

    def split(self, name: str) -> Split:
        items = self.items[name]
        return Split(
            images=self.read(items, name),
            labels=torch.tensor([i.label for i in items]),
            kinds=[i.kind for i in items],
            ids=[self.item_id(i) for i in items],
            masks=self.read_masks(items),
            diseases=[i.diseases for i in items] if self.diseases else None,
            persons=self.persons(items),
        )

    def read(self, items: list[Item], what: str) -> torch.Tensor:
        """(N, H, W) uint8 as configured, with ``colour`` (N, 3, H, W). Raises DataError with the path."""
        config, paths = self.config, [item.path for item in items]
        return read_images(
            paths, config.image_size, what, config.resize, config.fit, root=self.root, colour=in_colour(config)
        )

    def read_masks(self, items: list[Item]) -> torch.Tensor | None:
        """(N, H, W) bool, nothing marked where an image has no mask; None where none has one. Raises DataError."""
        if not any(item.mask for item in items):
            return None
        size = self.config.image_size
        masks = torch.zeros(len(items), size, size, dtype=torch.bool)
        for mask, item in zip(masks, items, strict=True):
            if item.mask:
                mask[:] = torch.from_numpy(read_mask(item.mask, item.path, size, self.config.fit))
            if not item.label and mask.any():
                raise DataError(
                    f"{item.mask}: marks pixels of {item.path}, a normal image. Remove it, or mend the label."
                )
        return masks

    def duplicates(self) -> dict[str, str]:
        """Test images that repeat an image of any other split: id → ``identical`` or ``near``.

        Of the other splits all images count, those too that this experiment makes no use of, so that what is left is
        the same for every method and seed. Raises DataError.
        """
        test = self.items["test"]
        others = [item.path for split, items in self.items.items() if split != "test" for item in items]
        found = duplicates_of([item.path for item in test], others, self.root)
        return {self.item_id(item): duplicate for item, duplicate in zip(test, found, strict=True) if duplicate}

    def persons(self, items: list[Item]) -> list[str] | None:
        """Whose image each is, one of unknown person being a person's of its own; None where all are unknown."""
        return [i.person or self.item_id(i) for i in items] if any(i.person for i in items) else None

    def files(self, folder: Path) -> list[Path]:
        """The image files of a folder that the layout needs. Raises DataError that says how to get the data."""
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. {self.how_to_get}")
        return image_files(folder)

    def item_id(self, item: Item) -> str:
        """The path below the data root."""
        return Path(os.path.relpath(item.path, self.root)).as_posix()

    def fingerprint(self) -> str:
        """Of the names, sizes and labels of the files that a run depends on; wherever they lie."""
        return digest(map(self.described, self.used_items()))

    def fingerprint_of_all(self) -> str:
        return digest(f"{split} {self.described(item)}" for split, items in self.items.items() for item in items)

    def described(self, item: Item) -> str:
        """What the fingerprint knows of a file."""
        return f"{item.path.name} {item.path.stat().st_size} {item.label}"

    def used_items(self) -> list[Item]:
        """What a run depends on: training and validation files."""
        return self.training_items() + self.items["val"]

    def anomalous_training_ids(self) -> list[str]:
        return [self.item_id(item) for item in self.training_items() if item.label]

    def training_name(self, index: int) -> str:
        return self.training_items()[index].path.stem

    def training_in_words(self) -> str:
        return in_words(len(self.anomalous_training_ids()), len(self.training_items()))


def contaminated(config: BaseConfig, root: Path, images: Sequence[T], labels: Sequence[int]) -> list[T]:
    """The normal ones; below a ``train_normal_fraction`` of 1 the last of them give way to anomalous ones.

    Raises:
        DataError: where there are too few anomalous ones.
    """
    normal, anomalous = ([i for i, label in zip(images, labels, strict=True) if label == of] for of in (0, 1))
    fraction, first = config.train_normal_fraction, config.contamination == "first"
    if fraction == 1:
        return normal
    kept = int(len(normal) * fraction)
    wanted = len(normal) - kept
    if wanted > len(anomalous):
        raise DataError(
            f"train_normal_fraction = {fraction} asks for {wanted} anomalous training images, and {root} has "
            f"{len(anomalous)}. Give --set train_normal_fraction=1 to train on normal images alone, which every "
            "method can, or add anomalous ones."
        )
    drawn = torch.randperm(len(anomalous), generator=generator(config.seed, "contamination"))
    order = range(len(anomalous)) if first else drawn
    return normal[:kept] + [anomalous[i] for i in order[:wanted]]


def in_colour(config: BaseConfig) -> bool:
    """Whether images keep their colours; most methods have no such setting."""
    return getattr(config, "colour", False)


def in_words(anomalous: int, images: int) -> str:
    """So many of ``images`` in words."""
    return f"{images - anomalous} normal, {anomalous} anomalous"


def unlabeled_in_words(labels: list[int]) -> str:
    """How many unlabeled images are trained on too, in words; nothing where there are none."""
    return f"; unlabeled: {in_words(sum(labels), len(labels))}" if labels else ""


def read_lines(path: Path) -> list[str]:
    """The lines of a list. Raises DataError where it is no text."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8 ({error}). Save it anew.") from error


def sampled(path: Path) -> str:
    """A digest of at most ``SAMPLED`` bytes from a file's middle. Raises DataError."""
    return hashlib.sha256(read_bytes(path, SAMPLED)).hexdigest()


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """A file's bytes, or so many from its middle. Raises DataError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most) // 2 if most else 0)
            return file.read(most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Change its permissions, or remove it.") from error


def digest(parts: Iterable[str]) -> str:
    """A short hash of strings in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def require_items(items: list[Item], label: int, what: str, folder: Path) -> None:
    """Raise a DataError where a class has no image."""
    if not any(item.label == label for item in items):
        raise DataError(
            f"No {what} image in {folder}: the folder is empty or holds no {FORMATS}, or its lists name none. Add some."
        )


def find_root(config: BaseConfig, given: str | None, folders: Sequence[str] = ()) -> Path:
    """The data root: ``given`` (--data-root), else $ANOMALY_DATA_ROOT, else the configuration's.

    The first two may name the dataset's own folder or one that holds it under the dataset's name, else under one of
    the names ``folders``, capitals or not.
    """
    for value in (given, os.environ.get(DATA_ROOT_VARIABLE)):
        if value:
            root = Path(value).expanduser()
            named = [root / config.dataset, *(path for name in folders for path in spelled(root, name))]
            return next((path for path in named if path.is_dir()), root)
    return Path(config.data_root or Path("data") / config.dataset).expanduser()


def spelled(folder: Path, name: str) -> list[Path]:
    """What a folder holds of that name, however it is capitalised, in a fixed order."""
    return sorted(path for path in folder.glob("*") if path.name.lower() == name.lower())
