"""PneumoniaMNIST (Yang et al. 2023, MedMNIST v2): ZhangLab's chest X-rays, small and square, in one file.

pneumoniamnist.npz has them at 28×28, pneumoniamnist_64.npz, _128 and _224 (MedMNIST+) at these sides: train_images,
val_images and test_images (N, side, side) uint8, and train_labels … (N, 1), 0 normal and 1 pneumonia; 4708, 524 and 624
images, split by its authors. Of several files the smallest is read that is as large as ``image_size``, else the
largest. The file says nothing of persons; ZhangLab's have several images each.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from configs import BaseConfig
from dataloader.base import Dataset, Split, contaminated, digest, in_words
from dataloader.errors import DataError

FILES = {
    28: "pneumoniamnist.npz", 64: "pneumoniamnist_64.npz", 128: "pneumoniamnist_128.npz", 224: "pneumoniamnist_224.npz"
}  # fmt: skip
SPLITS = ("train", "val", "test")
KINDS = ("normal", "pneumonia")


class PneumoniaMnist(Dataset):
    how_to_get = (
        f"Get {FILES[28]}, or {', '.join(list(FILES.values())[1:])}, from https://zenodo.org/records/10519652 "
        "(nothing is to be installed), put it there, or name its folder with --data-root."
    )

    def __init__(self, config: BaseConfig, root: Path):
        super().__init__(config, root)
        self.path = chosen_file(root, config.image_size)
        self._arrays = read_arrays(self.path)
        labels = self._arrays["train"][1]
        self._training = contaminated(config, self.path, range(len(labels)), labels.tolist())
        self._shown: torch.Tensor | None = None

    def training_images(self, epoch: int) -> torch.Tensor:
        if self._shown is None:
            self._shown = self._resized(self._arrays["train"][0][self._training])
        return self._shown

    def split(self, name: str) -> Split:
        images, labels = self._arrays[name]
        return Split(
            images=self._resized(images),
            labels=torch.from_numpy(labels),
            kinds=[KINDS[label] for label in labels],
            ids=[image_id(name, i) for i in range(len(labels))],
        )

    def fingerprint(self) -> str:
        """Of the pixels and labels that a run depends on, whatever the file is called."""
        parts = [part[self._training] for part in self._arrays["train"]] + list(self._arrays["val"])
        return digest([hashlib.sha256(part.tobytes()).hexdigest() for part in parts])

    def fingerprint_of_all(self) -> str:
        return digest(hashlib.sha256(part.tobytes()).hexdigest() for parts in self._arrays.values() for part in parts)

    def anomalous_training_ids(self) -> list[str]:
        labels = self._arrays["train"][1]
        return [image_id("train", i) for i in self._training if labels[i]]

    def training_in_words(self) -> str:
        return in_words(len(self.anomalous_training_ids()), len(self._training))

    def training_name(self, index: int) -> str:
        return image_id("train", self._training[index])

    def _resized(self, images: np.ndarray) -> torch.Tensor:
        """(N, side, side) → (N, H, W) uint8, with the filter that the configuration names."""
        size, resample = (self.config.image_size,) * 2, Image.Resampling[self.config.resize.upper()]
        return torch.from_numpy(np.stack([np.asarray(Image.fromarray(i).resize(size, resample)) for i in images]))


def image_id(split: str, index: int) -> str:
    return f"{split}/{index:04d}"


def chosen_file(root: Path, image_size: int) -> Path:
    """The file in ``root`` that images of that side are best made from. Raises DataError where none is there."""
    there = {side: root / name for side, name in FILES.items() if (root / name).is_file()}
    if not there:
        raise DataError(f"{root / FILES[28]}: no such file. {PneumoniaMnist.how_to_get}")
    return there[min((side for side in there if side >= image_size), default=max(there))]


def read_arrays(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Split → images (N, side, side) uint8 and labels (N,) int64. Raises DataError for another file."""
    try:
        with np.load(path) as file:
            arrays = {name: (file[f"{name}_images"], file[f"{name}_labels"]) for name in SPLITS}
    except Exception as error:  # of numpy, zipfile and zlib, of many kinds
        raise DataError(f"{path}: not a readable MedMNIST file ({error}). {PneumoniaMnist.how_to_get}") from error
    for name, (images, labels) in arrays.items():
        if images.ndim != 3 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
            raise DataError(
                f"{path}: {name}_images is {images.dtype} of shape {images.shape}, and must be uint8 of (N, side, "
                f"side), gray. {PneumoniaMnist.how_to_get}"
            )
        if labels.shape != (len(images), 1) or set(np.unique(labels)) != {0, 1}:
            raise DataError(
                f"{path}: {name}_labels is of shape {labels.shape} with the values {np.unique(labels)[:5].tolist()}, "
                f"and must be ({len(images)}, 1) of 0 normal and 1 pneumonia. {PneumoniaMnist.how_to_get}"
            )
    return {name: (images, labels[:, 0].astype(np.int64)) for name, (images, labels) in arrays.items()}
