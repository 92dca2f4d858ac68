"""One's own images: normal ones in a folder, a folder of splits and classes, or a CSV file (docs/own_images.md).

Without a val split some of the normal training images are held out for it (held_out.py). Without anomalous images in
val there is nothing to choose an epoch by, without a test split nothing but val to evaluate.
"""

import os
from pathlib import Path

from configs import BaseConfig
from dataloader.base import FileDataset, Item, Split, digest, sampled
from dataloader.errors import DataError
from dataloader.held_out import hold_out
from dataloader.images import require_utf8
from dataloader.layouts import HOW_TO, Items, from_csv, from_folders

LIST = "images.csv"


class Folder(FileDataset):
    how_to_get = HOW_TO

    def __init__(self, config: BaseConfig, root: Path):
        super().__init__(config, root)
        self._sampled: dict[Path, str] = {}

    @classmethod
    def root_from(cls, config: BaseConfig, given: str | None) -> Path:
        """``given`` (--data-root) or the configuration's: a folder, or a CSV file. Raises DataError."""
        root = Path(given or config.data_root or Path("data") / config.dataset).expanduser()
        if not root.exists():
            raise DataError(f"{root}: no such folder or file. {HOW_TO}")
        return root

    @property
    def has_validation(self) -> bool:
        return any(item.label for item in self.items["val"])

    @property
    def has_test(self) -> bool:
        return bool(self.items["test"])

    def list_items(self) -> Items:
        listed = self.root if self.root.is_file() else list_in(self.root)
        items = from_csv(listed) if listed else from_folders(self.root)
        check_files(items)
        check_labels(items, self.root, anomalous_training=self.config.train_normal_fraction < 1)
        if not items["val"] and self.config.held_out:
            items["train"], items["val"] = hold_out(
                items["train"], self.config.held_out, self.root, self.item_id, self.sample
            )
        return items

    def split(self, name: str) -> Split:
        if not self.items[name]:
            raise DataError(
                f"{self.root}: has no {name} images. Add {name}/good and {name}/<class>, or score files with "
                "predict.py, which needs no labels."
            )
        return super().split(name)

    def described(self, item: Item) -> str:
        """With bytes from the file's middle, as one's own files may have equal names and sizes in all folders."""
        return f"{super().described(item)} {self.sample(item)}"

    def sample(self, item: Item) -> str:
        """A digest of bytes from the file's middle, read once."""
        if item.path not in self._sampled:
            self._sampled[item.path] = sampled(item.path)
        return self._sampled[item.path]

    def has_fingerprint(self, recorded: str) -> bool:
        """Also as it was before it knew of what files hold."""
        before = digest(FileDataset.described(self, item) for item in self.used_items())
        return super().has_fingerprint(recorded) or recorded == before

    def item_id(self, item: Item) -> str:
        """The path below the root, or below the folder of the CSV file."""
        folder = self.root.parent if self.root.is_file() else self.root
        return Path(os.path.relpath(item.path, folder)).as_posix()


def list_in(folder: Path) -> Path | None:
    """Its ``images.csv``, in capitals or not. Raises DataError for two of them."""
    found = sorted(path for path in folder.iterdir() if path.name.lower() == LIST and path.is_file())
    if len(found) > 1:
        raise DataError(f"{folder}: has {' and '.join(path.name for path in found)}. Keep one of them.")
    return found[0] if found else None


def check_files(items: Items) -> None:
    """Raise DataError for a file or a person that is in two places, and a name that cannot be written down."""
    seen: dict[str, tuple[str, Item]] = {}
    homes: dict[str, str] = {}
    for split, of_split in items.items():
        for item in of_split:
            require_utf8(item.path)
            other_split, other = seen.setdefault(os.path.realpath(item.path), (split, item))
            if other is not item:
                raise DataError(
                    f"{item.path}: is in {split} as {item.kind}, and in {other_split} as {other.kind} ({other.path}). "
                    "Keep it once."
                )
            if item.person and homes.setdefault(item.person, split) != split:
                raise DataError(
                    f"{item.path}: is person {item.person}'s, who is in {homes[item.person]} and in {split}. Put all "
                    "images of a person in one split."
                )


def check_labels(items: Items, root: Path, anomalous_training: bool) -> None:
    """Raise DataError for a class that must not be there, one that is missing, and an anomalous image without mask."""
    for item in items["train"]:
        if item.label and not anomalous_training:
            raise DataError(
                f"{item.path}: is anomalous ({item.kind}), and training images are to be normal. Move it to val or "
                "test; normal images are those in train/good, or labelled good. (To train on some anomalous images on "
                "purpose: --set train_normal_fraction=0.9.)"
            )
    for split in ("train", "val"):
        if not any(item.label == 0 for item in items[split]) and (items[split] or split == "train"):
            raise DataError(f"{root}: {split} has no normal images. Put some in {split}/good, or label them good.")
    for split, of_split in items.items():
        masked = {item.kind for item in of_split if item.mask}
        for item in of_split:
            if item.label and not item.mask and item.kind in masked:
                raise DataError(
                    f"{item.path}: has no mask, and others of {split}'s {item.kind} have. Add it (called as the image, "
                    "or with _mask after it), or remove the others."
                )
