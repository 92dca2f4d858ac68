"""DigitAnatomy (SQUID, section 4.1): a 3×3 grid of the digits 1–9 in reading order, made from real digits.

Normal images have every digit in its place, each a random specimen at a random scale: a random square of the specimen
at its own size, resized to that size again and then to the cell. Anomalous ones have one to three cells missing,
misordered, flipped or replaced by a zero; kind and pixel mask are known.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from configs import BaseConfig
from dataloader.base import OWN_IMAGES, Dataset, Split, digest, in_words, unlabeled_in_words
from dataloader.images import DataError
from system.seeding import generator

KINDS = ("missing", "misordered", "flipped", "zero")
PER_SIDE = 3
FLIPPABLE = (2, 3, 4, 5, 6, 7, 9)  # the mirror image of 1, 8 and 0 is (nearly) the digit itself
AREA = (0.6, 1.3)  # of a crop, as a share of the specimen's
TRIES = 10  # of a crop that fits the specimen, before the whole specimen is taken
COUNTS = {"val": 200, "test": 400}  # normal images, and as many anomalous, equal shares of the kinds
SPLIT_SHARES = {"train": (0.0, 0.7), "val": (0.7, 0.8), "test": (0.8, 1.0)}  # of the specimens of each digit
MNIST_PARTS = ("train", "t10k")


class DigitAnatomy(Dataset):
    """Needs no files: scikit-learn's digits (8×8), or MNIST where its idx files lie in the data root."""

    how_to_get = (
        "Put train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz (or the t10k files) into that folder, or take "
        f"--set digit_source=sklearn, which needs none. {OWN_IMAGES}"
    )

    @classmethod
    def root_from(cls, config: BaseConfig, given: str | None) -> Path:
        """As :func:`find_root`. Raises DataError where ``given`` is in vain, lest digits pass for what it holds."""
        root = super().root_from(config, given)
        if given and config.digit_source == "auto" and not idx_parts(root):
            raise DataError(
                f"--data-root {given}: holds no MNIST files, and dataset = digit reads no others. {OWN_IMAGES} "
                "For digits leave --data-root out."
            )
        return root

    def __init__(self, config: BaseConfig, root: Path):
        super().__init__(config, root)
        if not self._training_counts()[0]:
            given = f"train_normal_fraction = {config.train_normal_fraction}"
            raise DataError(f"{given}: leaves no normal image of {config.digits_per_epoch} an epoch. Raise it.")
        # a side that 3 does not divide is cut from the next one that it does
        self.cell = -(-config.image_size // PER_SIDE)
        self.source, digits, labels = load_digits(config.digit_source, root)
        self._digest = digest([self.source, str(digits.sum(dtype=np.int64)), str(digits.shape)])
        self._specimens = {
            name: [digits[labels == d][chosen(int((labels == d).sum()), d, shares)] for d in range(10)]
            for name, shares in SPLIT_SHARES.items()
        }
        if any(not len(of_digit) for of_split in self._specimens.values() for of_digit in of_split):
            raise DataError(
                f"{root}: has too few digits: every split needs some of each of 0 to 9. Fetch MNIST's files."
            )

    def training_images(self, epoch: int) -> torch.Tensor:
        """Of every epoch anew, the anomalous ones (``train_normal_fraction``) last."""
        return self._mixed(*self._training_counts(), generator(self.config.seed, "digits", epoch))

    def unlabeled_images(self) -> torch.Tensor:
        """The same every epoch, anomalous ones last."""
        return self._mixed(*self.config.unlabeled(), generator(self.config.seed, "digits", "unlabeled"))

    def split(self, name: str) -> Split:
        rng = generator(0, "digits", name)  # validation and test sets are the same for every seed
        n = COUNTS[name]
        normal = self._normal(name, n, rng)
        anomalous, masks = [], []
        kinds = [KINDS[i % len(KINDS)] for i in range(n)]
        for kind in kinds:
            image, mask = self._anomalous(name, kind, rng)
            anomalous.append(image)
            masks.append(mask)
        return Split(
            images=torch.cat([normal, torch.stack(anomalous)]),
            labels=torch.cat([torch.zeros(n, dtype=torch.long), torch.ones(n, dtype=torch.long)]),
            kinds=["normal"] * n + kinds,
            ids=[f"{name}/normal_{i:04d}" for i in range(n)] + [f"{name}/{k}_{i:04d}" for i, k in enumerate(kinds)],
            masks=torch.cat([torch.zeros_like(normal, dtype=torch.bool), torch.stack(masks)]),
        )

    def training_in_words(self) -> str:
        normal, anomalous = self.config.unlabeled()
        unlabeled = unlabeled_in_words([0] * normal + [1] * anomalous)
        return in_words(self._training_counts()[1], self.config.digits_per_epoch) + unlabeled

    def fingerprint(self) -> str:
        return f"{self.source}-{self._digest}"

    def _training_counts(self) -> tuple[int, int]:
        """How many normal and how many anomalous images an epoch has."""
        normal = int(self.config.digits_per_epoch * self.config.train_normal_fraction)
        return normal, self.config.digits_per_epoch - normal

    def _mixed(self, normal: int, anomalous: int, rng: torch.Generator) -> torch.Tensor:
        """Normal training images, then anomalous ones, the kinds in turn."""
        images = list(self._normal("train", normal, rng)) if normal else []
        images += [self._anomalous("train", KINDS[i % len(KINDS)], rng)[0] for i in range(anomalous)]
        return torch.stack(images)

    def _normal(self, name: str, count: int, rng: torch.Generator) -> torch.Tensor:
        cells = [self._cells(name, digit, count, rng) for digit in range(1, 10)]
        return self._assembled(torch.stack(cells, dim=1))  # (count, 9, cell, cell) → (count, H, W)

    def _cells(self, name: str, digit: int, count: int, rng: torch.Generator) -> torch.Tensor:
        specimens = self._specimens[name][digit]
        drawn = specimens[torch.randint(len(specimens), (count,), generator=rng).numpy()]
        crops = random_crops if self.config.digit_crop == "redrawn" else clamped_crops
        return crops(drawn, self.cell, rng)

    def _anomalous(self, name: str, kind: str, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.arange(9)
        cells = torch.cat([self._cells(name, digit, 1, rng) for digit in range(1, 10)])  # (9, cell, cell)
        least = 2 if kind == "misordered" else 1
        count = int(torch.randint(least, 4, (), generator=rng))
        eligible = torch.tensor(FLIPPABLE) - 1 if kind == "flipped" else places
        hit = eligible[torch.randperm(len(eligible), generator=rng)[:count]]
        if kind == "missing":
            cells[hit] = 0
        elif kind == "misordered":
            cells[hit] = cells[hit.roll(1)]  # a cycle: every digit hit leaves its place
        elif kind == "flipped":
            cells[hit] = cells[hit].flip(-1)
        else:
            cells[hit] = self._cells(name, 0, count, rng)
        masks = torch.zeros_like(cells, dtype=torch.bool)
        masks[hit] = True
        return self._assembled(cells.unsqueeze(0))[0], self._assembled(masks.unsqueeze(0))[0]

    def _assembled(self, cells: torch.Tensor) -> torch.Tensor:
        side = self.config.image_size
        return assemble(cells)[:, :side, :side].contiguous()


def assemble(cells: torch.Tensor) -> torch.Tensor:
    """(N, 9, c, c) in reading order → (N, 3c, 3c)."""
    n, _, c, _ = cells.shape
    return cells.reshape(n, PER_SIDE, PER_SIDE, c, c).permute(0, 1, 3, 2, 4).reshape(n, PER_SIDE * c, PER_SIDE * c)


def random_crops(specimens: np.ndarray, cell: int, rng: torch.Generator) -> torch.Tensor:
    """A random square of each (N, s, s) uint8 specimen, resized to its size and to the cell's: (N, cell, cell) uint8.

    As torchvision's RandomResizedCrop(s, scale=AREA, ratio=(1, 1)) draws it in the released program: a crop that does
    not fit is drawn again, so that areas are uniform over those that do.
    """
    sides, corners = draw_crops(len(specimens), specimens.shape[1], rng)
    bilinear, whole = Image.Resampling.BILINEAR, specimens.shape[1:]
    cells = []
    for pixels, side, (top, left) in zip(specimens, sides.tolist(), corners.tolist(), strict=True):
        crop = Image.fromarray(pixels[top : top + side, left : left + side])
        cells.append(np.asarray(crop.resize(whole, bilinear).resize((cell, cell), bilinear)))
    return torch.from_numpy(np.stack(cells))


def draw_crops(count: int, side: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Sides (count,) in pixels, and upper left corners (count, 2), of crops of specimens of ``side`` pixels."""
    areas = torch.empty(count, TRIES).uniform_(*AREA, generator=rng) * side**2
    sides = areas.sqrt().round().long()  # (count, TRIES)
    fitting = torch.cat([sides <= side, torch.ones(count, 1, dtype=torch.bool)], dim=1)
    sides = torch.cat([sides, torch.full((count, 1), side)], dim=1)
    sides = sides[torch.arange(count), fitting.int().argmax(1)]  # the first that fits
    corners = torch.rand(count, 2, generator=rng) * (side - sides + 1).unsqueeze(1)
    return sides, corners.long()


def clamped_crops(specimens: np.ndarray, cell: int, rng: torch.Generator) -> torch.Tensor:
    """As experiments of the first version saw them: crops of the cell-sized digit, too large ones clamped to it."""
    resize = torch.nn.functional.interpolate
    digits = torch.from_numpy(specimens).unsqueeze(1).float()
    digits = resize(digits, (cell, cell), mode="bilinear", antialias=True).round()
    area = torch.empty(len(specimens)).uniform_(*AREA, generator=rng)
    side = area.clamp(max=1).sqrt()  # of the crop, as a share of the cell's side
    offset = (torch.rand(len(specimens), 2, generator=rng) * 2 - 1) * (1 - side).unsqueeze(1)  # centre, in −1 … 1
    theta = torch.zeros(len(specimens), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = offset
    grid = torch.nn.functional.affine_grid(theta, list(digits.shape), align_corners=False)
    crops = torch.nn.functional.grid_sample(digits, grid, "bilinear", "border", align_corners=False)
    return crops.squeeze(1).round().to(torch.uint8)


def chosen(count: int, digit: int, shares: tuple[float, float]) -> np.ndarray:
    """Which of the ``count`` specimens of a digit are a split's, for good."""
    order = torch.randperm(count, generator=generator(0, "specimens", digit))
    return order[int(shares[0] * count) : int(shares[1] * count)].numpy()


def load_digits(source: str, root: Path) -> tuple[str, np.ndarray, np.ndarray]:
    """The source that was taken, digits (N, side, side) uint8 and labels (N,).

    Raises:
        DataError: where MNIST is asked for and neither its files nor a download can be had.
    """
    if source != "sklearn":
        parts = idx_parts(root)
        if not parts and source == "mnist":
            parts = download_mnist(root)
        if parts:
            images = [read_idx(find_idx(root, f"{part}-images"), 3) for part in parts]
            labels = [read_idx(require_idx(root, f"{part}-labels"), 1) for part in parts]
            for part, i, n in zip(parts, images, labels, strict=True):
                if len(i) != len(n):
                    raise DataError(f"{root}: {part} has {len(i)} images but {len(n)} labels. Fetch both files anew.")
            return "mnist", np.concatenate(images), np.concatenate(labels)
    from sklearn.datasets import load_digits as bundled

    data = bundled()
    return "sklearn", (data.images * (255 / 16)).astype(np.uint8), data.target


def idx_parts(root: Path) -> list[str]:
    """Which of MNIST's parts there are images of."""
    return [part for part in MNIST_PARTS if find_idx(root, f"{part}-images")]


def find_idx(root: Path, name: str) -> Path | None:
    """MNIST's file of that name: idx3-ubyte or idx1-ubyte, '-' or '.', plain or .gz, torchvision's folder too."""
    kind = "idx3-ubyte" if name.endswith("images") else "idx1-ubyte"
    for folder in (root, root / "mnist", root / "MNIST" / "raw"):
        for candidate in (f"{name}-{kind}", f"{name}.{kind}", f"{name}-{kind}.gz", f"{name}.{kind}.gz"):
            if (folder / candidate).is_file():
                return folder / candidate
    return None


def require_idx(root: Path, name: str) -> Path:
    if path := find_idx(root, name):
        return path
    raise DataError(f"{root}: {name}-idx1-ubyte (or .gz) is missing beside the images. Fetch it from MNIST's files.")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of unsigned bytes. Raises DataError where it is truncated or something else."""
    try:
        raw = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
        if raw[:4] != bytes([0, 0, 8, dimensions]):
            raise ValueError("not an idx file of unsigned bytes")
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{path}: not a readable idx file ({error}). Fetch it anew.") from error


def download_mnist(root: Path) -> list[str]:
    from torchvision.datasets import MNIST

    try:
        MNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{root}: no MNIST idx files there, and the download failed ({error}). {DigitAnatomy.how_to_get}"
        ) from error
    return list(MNIST_PARTS)
