"""Where an image is anomalous: figures of pixel maps against masks, all pixels of the evaluated images pooled.

They are exact: every distinct value of a map is a threshold. A pixel is marked where its value is at or above it.
"""

import numpy as np
from scipy.ndimage import label
from sklearn.metrics import auc

from dataloader import Split
from evaluation import metrics, normals
from evaluation.scoring import Scored

MOST_FALSE = 0.3  # of the normal pixels, up to which AUPRO integrates


def measure(split: Split, scored: Scored, held_out: Scored | None, false_alarms: float) -> dict[str, object]:
    """``localisation``: map → figures, and ``pixel_images``: of how many images; nothing without masks or maps.

    ``held_out`` has the maps of held-out normal images, where there are any. An anomalous image without a marked pixel
    says nothing of where it is anomalous, and is left out.

    Raises:
        MetricError: for a map that is not finite.
    """
    if split.masks is None or not scored.maps:
        return {}
    labels = split.labels.numpy()
    known = np.flatnonzero((labels == 0) | split.masks.flatten(1).any(1).numpy())
    masks = split.masks.numpy()[known]
    if not masks.any() or masks.all():
        return {}
    thresholds = {
        name: normals.threshold(pixels.ravel(), false_alarms)
        for name, pixels in (held_out.maps if held_out else {}).items()
    }
    return {
        "localisation": {
            name: figures(masks, found[known], thresholds.get(name)) for name, found in scored.maps.items()
        },
        "pixel_images": {
            what: int((labels[known] == value).sum()) for value, what in ((0, "normal"), (1, "anomalous"))
        },
    }


def figures(masks: np.ndarray, maps: np.ndarray, normals_threshold: float | None = None) -> dict[str, float]:
    """Figures in [0, 1] of ``maps`` (N, H, W), higher = more anomalous, against ``masks`` (N, H, W) bool.

    - ``pixel_auc``, ``pixel_average_precision``: the pixels as so many cases;
    - ``aupro`` (Bergmann et al., *The MVTec anomaly detection dataset*, IJCV 2021): the overlap with a marked region,
      the mean over all regions, small ones counting as much as large ones, integrated over the false-positive rate of
      the pixels up to 0.3 and divided by 0.3. Pixels that touch at a corner are of one region;
    - ``dice_oracle``: Dice of the pooled pixels at the threshold that is best for these very masks;
    - ``dice_at_normals_threshold``: at the threshold that a share of at most ``false_alarms`` of the pixels of held-out
      normal images reaches (:func:`evaluation.normals.threshold`, over pixels).
    """
    metrics.require_finite(maps.ravel(), "pixels of a map")
    order = np.argsort(maps, axis=None)[::-1]
    values = maps.ravel()[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # of the pixels of each value
    del values  # there are millions of pixels
    overlap = region_weights(masks).ravel()[order].cumsum()[last]  # at each threshold, the mean over regions
    found = masks.ravel()[order].cumsum()[last]  # marked pixels at or above it
    del order
    false = last + 1 - found
    recall, fpr = found / found[-1], false / false[-1]
    result = {
        "pixel_auc": float(auc(np.append(0, fpr), np.append(0, recall))),
        "pixel_average_precision": float(np.diff(recall, prepend=0) @ (found / (found + false))),
        "aupro": partial_area(fpr, overlap, MOST_FALSE) / MOST_FALSE,
        "dice_oracle": float((2 * found / (last + 1 + found[-1])).max()),
    }
    if normals_threshold is not None:
        called = maps >= normals_threshold
        result["dice_at_normals_threshold"] = float(2 * (called & masks).sum() / (called.sum() + masks.sum()))
    return result


def region_weights(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) of which a region's pixels sum to 1 / (the number of regions); 0 where nothing is marked."""
    weights = np.zeros(masks.shape)
    regions = 0
    for of_image, mask in zip(weights, masks, strict=True):
        numbers, count = label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(numbers.ravel())
        of_image[mask] = 1 / sizes[numbers[mask]]
        regions += count
    return weights / regions


def partial_area(fpr: np.ndarray, overlap: np.ndarray, most: float) -> float:
    """The area below a curve from (0, 0) up to ``most``; both (T,) ascending."""
    fpr, overlap = np.append(0, fpr), np.append(0, overlap)
    end = np.searchsorted(fpr, most, side="left")  # the first that is not below it
    edge = np.interp(most, fpr[end - 1 : end + 1], overlap[end - 1 : end + 1])
    return float(auc(np.append(fpr[:end], most), np.append(overlap[:end], edge)))
