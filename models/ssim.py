"""Structural similarity: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", TIP
2004; of several scales: Wang et al., "Multi-Scale Structural Similarity for Image Quality Assessment", Asilomar 2003.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import avg_pool2d

from system.tuning import full_products

C1, C2 = 0.01**2, 0.03**2  # of values in [0, 1]
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest first
LEAST = 1e-3  # of a scale's similarity: the gradient of its root has no bound at 0


class Similarity(NamedTuple):
    """Of every window, at most 1: (B, C, h, w)."""

    whole: torch.Tensor  # luminance, contrast and structure
    contrast: torch.Tensor  # contrast and structure alone


def similarity(
    x: torch.Tensor, y: torch.Tensor, window: int = 11, sigma: float = 1.5, padding: int = 0, c1=C1, c2=C2
) -> Similarity:
    """Compare (B, C, H, W) x and y channel by channel, in Gaussian windows; h = H + 2 · padding − window + 1.

    ``padding`` puts zeros around both. c1 and c2 are (0.01 L)² and (0.03 L)² where L is the range of the values.
    """
    rows, columns = (band(side, window, sigma, padding).to(x) for side in x.shape[2:])
    moments = torch.stack([x, y, x * x, y * y, x * y])  # (5, B, C, H, W)
    with full_products():  # variances are differences of moments
        mu_x, mu_y, xx, yy, xy = rows @ (moments @ columns.T)  # (B, C, h, w) each
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    contrast = (2 * (xy - mu_x * mu_y) + c2) / (xx - mu_x**2 + yy - mu_y**2 + c2)
    return Similarity(luminance * contrast, contrast)


def band(side: int, window: int, sigma: float, padding: int) -> torch.Tensor:
    """The matrix (h, side) that filters a line of pixels with a Gaussian whose weights add up to 1.

    A product with it is many times as fast on a CPU as a convolution of maps of one channel.
    """
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
    starts = torch.arange(side + 2 * padding - window + 1).unsqueeze(1) - padding
    place = torch.arange(side) - starts  # (h, side): which of the window's pixels this is
    return torch.where((place >= 0) & (place < window), weights[place.clamp(0, window - 1)], 0)


def multi_scale_similarity(x: torch.Tensor, y: torch.Tensor, window: int = 11, sigma: float = 1.5) -> torch.Tensor:
    """MS-SSIM of (B, C, H, W) x and y in [0, 1], in (0, 1]: (B,).

    Of a small image the finest of the published scales count, as many as :func:`scales_of` says, and their weights are
    made to add up to 1. A scale's similarity, which may be negative, counts as at least 0.001.
    """
    scales = scales_of(min(x.shape[2:]), window)
    weights = x.new_tensor(SCALE_WEIGHTS[:scales])
    found = []
    for scale in range(scales):
        if scale:
            x, y = (avg_pool2d(image, 2, ceil_mode=True) for image in (x, y))
        here = similarity(x, y, window, sigma)
        found.append((here.whole if scale == scales - 1 else here.contrast).mean((2, 3)))  # (B, C)
    powers = torch.stack(found, dim=2).clamp(min=LEAST) ** (weights / weights.sum())  # (B, C, scales)
    return powers.prod(2).mean(1)


def scales_of(side: int, window: int = 11) -> int:
    """How many of the five scales have room for a window, each half as large as the one before it (rounded up).

    Raises:
        ValueError: where the window is larger than the image.
    """
    if side < window:
        raise ValueError(f"A window of {window} pixels does not fit into an image of {side}.")
    return sum(-(-side // 2**scale) >= window for scale in range(len(SCALE_WEIGHTS)))
