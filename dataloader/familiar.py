"""Whether an image looks like the training images at all: by its mean, its contrast and its coarse layout.

A radiograph given to a model of digits gets a score like any other image. What an experiment keeps of its training
images (data.json) is enough to say that this score means nothing.
"""

from typing import Any

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

COARSE = 8  # pixels of a side: the layout, whatever the detail
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
QUANTILES = (0.005, 0.995)
FEW = 10  # images whose range says so little that it is taken twice as wide


def record(images: torch.Tensor) -> dict[str, Any]:
    """What to keep of training images (N, H, W) or, in colour, (N, 3, H, W) uint8, ready for JSON: ``mean_image``, its
    COARSE² gray levels row by row, and the ``low`` and ``high`` that their :func:`statistics` reach, the outermost left
    out.
    """
    images = gray(images)
    mean_image = coarse(images).mean(0).round().numpy()
    low, high = np.quantile(statistics(images, mean_image), QUANTILES, axis=0).round(4)
    return {"images": len(images), "mean_image": mean_image.tolist(), "low": low.tolist(), "high": high.tolist()}


def unfamiliar(images: torch.Tensor, known: dict[str, Any]) -> np.ndarray:
    """Which of images (as :func:`record`'s) have statistics clearly outside those of the training images, of which
    ``known`` is the :func:`record`: (N,) bool. Clearly is a quarter of the range away, and more where it is of few
    images.
    """
    low, high = np.array(known["low"]), np.array(known["high"])
    away = (high - low) * (1 / 4 + FEW / known["images"])
    found = statistics(gray(images), np.array(known["mean_image"]))
    return ((found < low - away) | (found > high + away)).any(1)


def statistics(images: torch.Tensor, mean_image: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 → (N, 3): mean and standard deviation of the gray levels, correlation with the mean image."""
    layouts = standardised(coarse(images).numpy())
    correlations = layouts @ standardised(mean_image[None])[0] / COARSE**2
    levels = [torch.std_mean(part.float(), dim=(1, 2), correction=0) for part in images.split(256)]
    deviations, means = (torch.cat(values).numpy() for values in zip(*levels, strict=True))
    return np.stack([means, deviations, correlations], axis=1)


def gray(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W) as they are; (N, 3, H, W) uint8 → (N, H, W) uint8, by luma."""
    if images.dim() == 3:
        return images
    luma = torch.tensor(LUMA)
    return torch.cat([torch.einsum("nchw,c->nhw", part.float(), luma).round().byte() for part in images.split(256)])


def coarse(images: torch.Tensor) -> torch.Tensor:
    """(N, H, W) uint8 → (N, COARSE²) gray levels."""
    return torch.cat([adaptive_avg_pool2d(part.float(), COARSE).flatten(1) for part in images.split(256)])


def standardised(rows: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and deviation 1; a constant row becomes 0."""
    centred = rows - rows.mean(1, keepdims=True)
    deviations = centred.std(1, keepdims=True)
    return np.divide(centred, deviations, out=np.zeros_like(centred), where=deviations > 0)
