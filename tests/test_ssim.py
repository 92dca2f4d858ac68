"""Structural similarity against its formulas, window by window."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from models.ssim import multi_scale_similarity, scales_of, similarity


def pair(*shape, noise=0.2):
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(*shape, generator=rng, dtype=torch.float64)
    return x, (x + noise * torch.randn(*shape, generator=rng, dtype=torch.float64)).clamp(0, 1)


def kernel(window, sigma):
    offsets = np.arange(window) - window // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return np.outer(weights, weights) / weights.sum() ** 2


def by_hand(x, y, weights, mode):
    """SSIM and its contrast term of two images, by SciPy's convolution."""
    mx, my, xx, yy, xy = (convolve2d(m, weights, mode) for m in (x, y, x * x, y * y, x * y))
    contrast = (2 * (xy - mx * my) + 9e-4) / (xx - mx**2 + yy - my**2 + 9e-4)
    return contrast * (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4), contrast


@pytest.mark.parametrize(("padding", "mode", "side"), [(2, "same", 12), (0, "valid", 8)])
def test_every_window_is_compared_as_the_formula_says(padding, mode, side):
    x, y = pair(2, 3, 12, 12)
    found = similarity(x, y, 5, 1.5, padding)
    assert found.whole.shape == found.contrast.shape == (2, 3, side, side)
    for b in range(2):
        for c in range(3):
            whole, contrast = by_hand(x[b, c].numpy(), y[b, c].numpy(), kernel(5, 1.5), mode)
            np.testing.assert_allclose(found.whole[b, c], whole, rtol=1e-9)
            np.testing.assert_allclose(found.contrast[b, c], contrast, rtol=1e-9)


def test_one_window_written_out():
    x, y = (torch.tensor(v, dtype=torch.float64).reshape(1, 1, 3, 1).expand(1, 1, 3, 3) for v in ([0, 1, 0], [0, 0, 1]))
    side = np.exp(-0.5)  # of the centre's weight, at sigma 1
    a, b = 1 / (1 + 2 * side), side / (1 + 2 * side)  # the rows' weights: b, a, b
    whole = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4) * (-2 * a * b + 9e-4) / (a - a**2 + b - b**2 + 9e-4)
    assert similarity(x, y, 3, 1.0).whole.item() == pytest.approx(whole, rel=1e-9)


def test_alike_is_one_and_nothing_is_more():
    x, y = pair(2, 1, 64, 64)
    torch.testing.assert_close(similarity(x, x).whole, torch.ones(2, 1, 54, 54, dtype=torch.float64))
    assert similarity(x, y).whole.max() < 1
    assert multi_scale_similarity(x, x).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("side", [176, 45])
def test_of_several_scales_the_contrasts_and_the_coarsest_whole_are_multiplied(side):
    x, y = pair(2, 1, side, side, noise=0.05)
    scales = {176: 5, 45: 3}[side]
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales])
    weights /= weights.sum()
    for b, found in enumerate(multi_scale_similarity(x, y)):
        p, q, product = x[b, 0].numpy(), y[b, 0].numpy(), 1.0
        for scale in range(scales):
            whole, contrast = by_hand(p, q, kernel(11, 1.5), "valid")
            product *= (whole if scale == scales - 1 else contrast).mean() ** weights[scale]
            p, q = halved(p), halved(q)
        assert found.item() == pytest.approx(product, rel=1e-9)


def halved(image):
    """Means of 2 × 2 pixels; where the side is odd, of those that are left."""
    rows = [image[i : i + 2].mean(0) for i in range(0, len(image), 2)]
    return np.stack([np.stack(rows)[:, i : i + 2].mean(1) for i in range(0, image.shape[1], 2)], axis=1)


def test_small_images_have_fewer_scales_and_those_without_one_are_refused():
    assert [scales_of(side) for side in (11, 20, 21, 32, 160, 161, 256)] == [1, 1, 2, 2, 4, 5, 5]
    with pytest.raises(ValueError, match="A window of 11 pixels does not fit into an image of 10"):
        multi_scale_similarity(*pair(1, 1, 10, 10))


def test_the_gradient_is_finite_where_structure_is_opposite_or_nowhere():
    x, _ = pair(1, 1, 32, 32)
    for y in (1 - x, torch.zeros_like(x), torch.full_like(x, 0.5), x.clone()):
        y.requires_grad_()
        found = multi_scale_similarity(x, y)
        found.sum().backward()
        assert 0 < found <= 1 and y.grad.isfinite().all()
