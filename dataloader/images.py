"""Reading image files as 8-bit gray, whatever their mode, and resizing them; reading the mask of one."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from dataloader.cache import Kept, cache_folder
from dataloader.dicom import read_dicom
from dataloader.errors import DataError
from system.progress import watched

DICOM = {".dcm", ".dicom"}
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"} | DICOM
# what a reader of the folder would take for images too: counted, not read
OTHERS = {".webp", ".gif", ".jp2", ".j2k", ".jfif", ".heic", ".avif", ".pgm", ".ppm", ".nii", ".mha", ".nrrd", ".npy"}
FORMATS = "PNG, JPEG, BMP, TIFF or DICOM (.dcm) files"
TURNS = {  # of EXIF's orientations but 1, the upright one
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
MOST_NAMED = 10  # files that cannot be read, after which no other is tried
READER = 4  # to be raised where read_image comes to make other pixels of a file


def read_images(
    paths: Sequence[Path], size: int, what: str, resize: str, fit: str = "stretch", root: Path | None = None,
    colour: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Files as (N, size, size) uint8 gray, or with ``colour`` as (N, 3, size, size), decoded by threads with a progress
    bar on a terminal.

    Args:
        what: the name of these files' split.
        resize, fit: as of :func:`read_image`.
        root: the dataset's, for which decoded images are kept (:mod:`dataloader.cache`); None keeps none.
    Raises:
        DataError: as :func:`read_image`.
    """
    images = np.empty((len(paths), *([3] if colour else []), size, size), np.uint8)

    unreadable: dict[int, DataError] = {}

    def read(row: int) -> None:
        if len(unreadable) < MOST_NAMED:
            try:
                images[row] = read_image(paths[row], size, resize, fit, colour)
            except DataError as error:
                unreadable[row] = error

    def decode(rows: Sequence[int]) -> None:
        with ThreadPoolExecutor() as pool:
            for _ in watched(pool.map(read, rows), f"reading {what}", len(rows)):
                pass
        if unreadable:
            found = [str(unreadable[row]) for row in sorted(unreadable)][:MOST_NAMED]
            more = ["There may be more of them."] if len(found) == MOST_NAMED else []
            raise DataError("\n".join(found + more))

    folder = cache_folder()
    if root and folder:
        Kept(folder / kept_name(root, what, size, resize, fit, colour), reader()).fill(images, paths, decode)
    else:
        decode(range(len(paths)))
    return torch.from_numpy(images)


def kept_name(root: Path, what: str, size: int, resize: str, fit: str, colour: bool) -> str:
    """The name of the file that keeps a split's images: its beginning to be understood, its end to be unique."""
    settings = json.dumps([os.path.abspath(root), what, size, resize, fit, colour])
    return f"{root.name[:40]}-{what}-{size}-{sha256(settings.encode()).hexdigest()[:16]}.zip"


def reader() -> str:
    """What decides which pixels a file becomes: the versions of this reader and of the libraries that decode."""
    versions = [f"reader {READER}"]
    for library in ("pillow", "pydicom"):
        try:
            versions.append(f"{library} {metadata.version(library)}")
        except metadata.PackageNotFoundError:  # pydicom need not be there
            versions.append(f"no {library}")
    return ", ".join(versions)


def read_image(path: Path, size: int, resize: str, fit: str = "stretch", colour: bool = False) -> np.ndarray:
    """A file as (size, size) uint8 gray, or with ``colour`` as (3, size, size) uint8, red, green and blue.

    Args:
        resize: Pillow's antialiased filter: ``bicubic``, ``bilinear`` or ``box``.
        fit: what becomes of an image that is no square, see :func:`fitted`.
    Raises:
        DataError: where the file is missing, truncated, no image or more than one.
    """
    image = fitted(decoded(path, to_rgb if colour else to_gray), size, Image.Resampling[resize.upper()], fit)
    return pixels_of(image, colour)


def pixels_of(image: Image.Image, colour: bool) -> np.ndarray:
    """(H, W) uint8, or with ``colour`` (3, H, W): of a gray picture, as DICOM gives one, three times the same."""
    return np.array(image.convert("RGB")).transpose(2, 0, 1) if colour else np.array(image)


def read_mask(path: Path, image: Path, size: int, fit: str) -> np.ndarray:
    """The mask of an image file as (size, size) bool, True where it is not black, brought into shape as the image is.

    Raises:
        DataError: as :func:`read_image`, and where the two files are of different sizes.
    """
    mask, of = decoded(path, to_marked), decoded(image, to_gray)
    if mask.size != of.size:
        sizes = [" × ".join(map(str, each.size)) for each in (mask, of)]
        raise DataError(f"{path}: is {sizes[0]} pixels, and its image {image} {sizes[1]}. Make the mask anew.")
    return np.array(fitted(mask, size, Image.Resampling.NEAREST, fit)) > 0


def decoded(path: Path, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """A file's picture at its own size, converted (DICOM is gray already). Raises DataError."""
    if path.suffix.lower() in DICOM:
        return read_dicom(path)
    try:
        # of an open file, since Pillow maps a named one of uncompressed TIFF by the size that it has when turned
        with open(path, "rb") as file, Image.open(file) as image:
            # an MPO is a camera's JPEG: its other frames are the same view again
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise ValueError(f"it has {image.n_frames} frames, and an image is one")
            return convert(turned(image))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Mend the path.") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        if is_dicom(path):
            return read_dicom(path)
        raise DataError(f"{path}: not a readable image ({error}). Replace or remove the file.") from error


def is_dicom(path: Path) -> bool:
    """Whether it begins as DICOM does, whatever it is called."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def turned(image: Image.Image) -> Image.Image:
    """The picture as it is looked at, not as the camera was held.

    By its orientation alone: Pillow's ``exif_transpose`` also writes all other EXIF anew, and fails on what cameras
    put there.
    """
    image.load()  # a TIFF turns itself
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(turn)


def fitted(image: Image.Image, size: int, resample: Image.Resampling, fit: str) -> Image.Image:
    """(size, size), of an image that is no square: ``stretch`` changes its aspect, ``pad`` puts it between black
    margins, ``crop`` takes the middle of it.
    """
    if fit == "stretch":
        return image.resize((size, size), resample)
    return (ImageOps.pad if fit == "pad" else ImageOps.fit)(image, (size, size), resample)


def unfitted(pixels: np.ndarray, size: tuple[int, int], fit: str) -> np.ndarray:
    """A map (side, side) of what :func:`fitted` made of an image of ``size`` (width, height), laid over that image:
    (height, width) float32, NaN where ``crop`` has cut the image off.
    """
    width, height = size
    white = fitted(Image.new("L", size, 255), len(pixels), Image.Resampling.NEAREST, fit)
    shown = white.getbbox()  # without the margins of pad
    covered = (min(size), min(size)) if fit == "crop" else size
    left, top = (width - covered[0]) // 2, (height - covered[1]) // 2
    found = np.full((height, width), np.nan, np.float32)
    inside = Image.fromarray(pixels.astype(np.float32)).crop(shown)
    found[top : top + covered[1], left : left + covered[0]] = inside.resize(covered, Image.Resampling.BILINEAR)
    return found


def to_gray(image: Image.Image) -> Image.Image:
    """8-bit gray: 16-bit scaled by its full range (not clipped), colour by luma, transparency on black."""
    if image.mode.startswith("I"):
        return Image.fromarray(((wide_pixels(image) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it as 8- or 16-bit")
    if image.mode in ("P", "PA", "LA", "RGBA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("L")
    return image.convert("L")


def wide_pixels(image: Image.Image) -> np.ndarray:
    """The pixels of more than 8 bits as int64 from 0 (black) to 65535. Raises ValueError."""
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels outside 0 … 65535")
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITSPERSAMPLE, (16,))[0]
    if 8 < bits < 16:  # which Pillow leaves as they are
        pixels = pixels * 65535 // (2**bits - 1)
    # Pillow turns a TIFF's WhiteIsZero round in 8 bits, and leaves it in 16
    return 65535 - pixels if tags.get(PHOTOMETRIC_INTERPRETATION) == 0 else pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit red, green and blue, a gray image three times the same; transparency on black."""
    if image.mode in ("P", "PA", "RGBA", "RGBa"):
        rgba = image.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return (
        image.convert("RGB") if image.mode in ("RGB", "CMYK", "YCbCr", "LAB", "HSV") else to_gray(image).convert("RGB")
    )


def to_marked(image: Image.Image) -> Image.Image:
    """8-bit: 255 where the image is not black, however dark it is, and not transparent."""
    if image.mode.startswith("I"):
        marked = wide_pixels(image) > 0
    elif image.mode in ("1", "L"):
        marked = np.asarray(image) > 0
    else:  # luma rounds the darkest colours to black
        rgba = np.asarray((to_gray(image) if image.mode == "F" else image).convert("RGBA"))
        marked = (rgba[..., :3].max(-1) > 0) & (rgba[..., 3] > 0)
    return Image.fromarray(np.where(marked, 255, 0).astype(np.uint8))


def require_utf8(path: Path) -> None:
    """Raise DataError for a name that cannot be written down."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!a}: its name is no UTF-8. Rename it.") from None


def image_files(folder: Path) -> list[Path]:
    """The image files below a folder in a fixed order, hidden ones left out, links followed; what looks like others of
    another format is left out too, with a note.

    Raises:
        DataError: where a folder cannot be read.
    """
    files, others = [], []
    for file in _below(folder, frozenset()):
        (files if file.suffix.lower() in SUFFIXES else others).append(file)
    if others:
        print(f"note: {folder}: {len(others)} files are not read, the first {min(others)}. Save them as {FORMATS}.",
              file=sys.stderr)  # fmt: skip
    return sorted(files)


def _below(folder: Path, above: frozenset[str]) -> Iterator[Path]:
    """Image files of whatever format."""
    real = os.path.realpath(folder)
    if real in above:  # a link back to a folder that it lies in
        return
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}). Change its permissions, or move it.") from error
    for entry in entries:
        if entry.suffix.lower() in SUFFIXES | OTHERS and entry.is_file():
            yield entry
        elif entry.is_dir():
            yield from _below(entry, above | {real})
        elif f"0{entry.suffix[1:]}".isdigit() and entry.is_file() and is_dicom(entry):
            yield entry  # 1.2.840.10008.1, or without a suffix
