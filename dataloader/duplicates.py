"""Test images that repeat images of other splits: the same file, or nearly the same picture.

What is near was set for Brain Tumor MRI (docs/methods.md). Chest radiographs, alike as they are, stay below it: no two
different files of ZhangLab are near (``tools/prepare_data.py --check zhang``), and one that is saved anew as a JPEG of
256 × 256 pixels is near to itself. A copy that was cropped or moved is not found.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from dataloader.images import read_images

SIDE = 64
CORRELATION = 0.999
RULE = f"byte-identical files, or gray images averaged to {SIDE}×{SIDE} (box filter) that correlate above {CORRELATION}"
CHUNK = 256  # references at a time, which bounds the memory


def duplicates_of(test: Sequence[Path], references: Sequence[Path], root: Path | None = None) -> list[str]:
    """For every test file ``identical``, ``near`` or an empty string, by :data:`RULE`.

    ``root`` as of :func:`dataloader.images.read_images`. Raises DataError.
    """
    images, others = (
        read_images(paths, SIDE, what, "box", root=root) for paths, what in ((test, "test"), (references, "references"))
    )
    near = correlated(images, others)
    return [
        "identical" if same else "near" if close else ""
        for same, close in zip(identical(test, references), near, strict=True)
    ]


def identical(test: Sequence[Path], references: Sequence[Path]) -> list[bool]:
    """Whether any of the references has the same bytes as each test file."""
    sizes = {path.stat().st_size for path in test}
    known = {_digest(path) for path in references if path.stat().st_size in sizes}
    return [_digest(path) in known for path in test]


def correlated(test: torch.Tensor, references: torch.Tensor) -> list[bool]:
    """Whether any of the references (M, H, W) correlates above :data:`CORRELATION` with each test image (N, H, W)."""
    rows, highest = standardised(test), torch.full((len(test),), -1.0)
    for chunk in references.split(CHUNK):
        highest = torch.maximum(highest, (rows @ standardised(chunk).T).amax(1))
    return (highest > CORRELATION).tolist()


def standardised(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W) → (N, H·W) float32 rows of mean 0 and length 1; a constant image is a row of zeros."""
    rows = images.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    return torch.nn.functional.normalize(rows, dim=1).float()


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
