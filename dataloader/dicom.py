"""Reading a DICOM radiograph as an 8-bit gray picture. Needs pydicom (requirements-dicom.txt)."""

from pathlib import Path

import numpy as np
from PIL import Image

from dataloader.errors import DataError

INSTALL = "pip install -r requirements-dicom.txt"


def patient_of(path: Path) -> str:
    """The patient's id in a DICOM file's header; an empty string where it has none or cannot be read."""
    try:
        from pydicom import dcmread

        return str(dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID") or "")
    except Exception:  # read_dicom says what is wrong with the file
        return ""


def read_dicom(path: Path, raw: bool = False) -> Image.Image:
    """The picture, gray, at its own size.

    Rescale slope and window are applied (not to ``raw`` pixels, which is what DDAD's program takes), MONOCHROME1 (high
    is dark) is inverted, and what the picture then spans is scaled to 0 … 255; a constant image becomes black. Padding
    around the picture, where the file says what value it has, is black and no part of the span (of ``raw`` it is).

    Raises:
        DataError: without pydicom; for a file that is no DICOM, holds no pixels, more than one frame or colour (also
            by a palette), is compressed in a way that no installed decoder reads, or has a rescale or window that makes
            no sense.
    """
    try:
        from pydicom import dcmread
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError:
        raise DataError(f"{path}: reading DICOM needs pydicom 3 or newer: {INSTALL}") from None
    try:
        dataset = dcmread(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Mend the path.") from None
    except Exception as error:  # of a damaged file it raises many kinds
        raise DataError(f"{path}: not a readable DICOM file ({error}). Fetch it anew.") from error
    if "PixelData" not in dataset:
        raise DataError(f"{path}: the DICOM file holds no pixel data. Fetch it anew, or leave it out.")
    try:
        pixels = dataset.pixel_array
    except Exception as error:  # pydicom and its decoders raise many kinds
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        if syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed:
            raise DataError(
                f"{path}: no installed decoder reads its compression, {syntax.name}. {INSTALL} ({error})"
            ) from error
        raise DataError(f"{path}: its pixels cannot be read ({error}). Fetch it anew.") from error
    if pixels.ndim != 2:
        raise DataError(
            f"{path}: its pixels are of shape {pixels.shape}, several frames or colour; a radiograph is one gray "
            "frame. Save the one that is meant as a file of its own, or leave it out."
        )
    meaning = dataset.get("PhotometricInterpretation") or "MONOCHROME2"
    if meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise DataError(f"{path}: its pixels are {meaning}; a radiograph's are gray. Save it as gray, or leave it out.")
    try:
        shown = pixels if raw else apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        shown = shown.astype(np.float64)
        inside = np.ones(pixels.shape, bool) if raw else ~padding(pixels, dataset)
    except Exception as error:  # of many kinds, as above
        raise DataError(
            f"{path}: its rescale, window (VOI) or padding cannot be applied ({error}). Mend the tags, or leave it out."
        ) from error
    if inside.any() and np.ptp(shown[inside]) == 0 and pixels[inside].min() < pixels[inside].max():
        raise DataError(f"{path}: its rescale or window (VOI) leaves one gray level. Mend the tags, or leave it out.")
    if meaning == "MONOCHROME1":
        shown = -shown
    return Image.fromarray(to_uint8(shown, inside))


def padding(pixels: np.ndarray, dataset) -> np.ndarray:
    """Which of the stored pixels (H, W) are padding by PixelPaddingValue and its range limit: (H, W) bool."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (pixels >= low) & (pixels <= high)


def to_uint8(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What the pixels ``inside`` span, scaled to 0 … 255; those outside, and a constant image, are black."""
    low, high = (pixels[inside].min(), pixels[inside].max()) if inside.any() else (0.0, 0.0)
    scaled = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    return (255 * np.where(inside, scaled, 0)).round().astype(np.uint8)
