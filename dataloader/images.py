"""Reading an image file as 8-bit gray, whatever its mode, and resizing it."""

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


class DataError(Exception):
    """Data that is missing or unreadable; the message names the path and the remedy."""


def read_image(path: Path, size: int, resize: str) -> np.ndarray:
    """A file as (size, size) uint8 gray, whatever the aspect.

    Args:
        resize: Pillow's antialiased filter: ``bicubic``, ``bilinear`` or ``box``.
    Raises:
        DataError: where the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            gray = to_gray(image)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error}). Replace or remove the file.") from error
    return np.array(gray.resize((size, size), Image.Resampling[resize.upper()]))


def to_gray(image: Image.Image) -> Image.Image:
    """8-bit gray: 16-bit scaled by its full range (not clipped), colour by luma, transparency on black."""
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("32-bit pixels outside 0 … 65535")
        return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it as 8- or 16-bit")
    if image.mode in ("P", "PA", "LA", "RGBA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("L")
    return image.convert("L")


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder in a fixed order, hidden ones left out."""
    files = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in files if p.is_file())
