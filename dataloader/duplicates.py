"""Test images that repeat training images: the same file, or nearly the same picture."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloader.base import read_images

SIDE = 64
CORRELATION = 0.999
RULE = f"byte-identical files, or gray images averaged to {SIDE}×{SIDE} (box filter) that correlate above {CORRELATION}"


def duplicates_of(test: Sequence[Path], references: Sequence[Path]) -> list[str]:
    """For every test file ``identical``, ``near`` or an empty string, by :data:`RULE`. Raises DataError."""
    known = {_digest(path) for path in references}
    identical = [_digest(path) in known for path in test]
    near = correlated(*(standardised(read_images(paths, SIDE, "duplicates", "box")) for paths in (test, references)))
    return ["identical" if same else "near" if close else "" for same, close in zip(identical, near, strict=True)]


def standardised(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W) → (N, H·W) float32 rows of mean 0 and length 1; a constant image is a row of zeros."""
    rows = images.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    return torch.nn.functional.normalize(rows, dim=1).float()


def correlated(test: torch.Tensor, references: torch.Tensor) -> list[bool]:
    """Whether any of the references correlates above :data:`CORRELATION` with each standardised test image."""
    return [bool(value > CORRELATION) for chunk in test.split(256) for value in (chunk @ references.T).amax(1)]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
