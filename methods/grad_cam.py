"""Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV
2017.
"""

from collections.abc import Callable

import torch


def grad_cam(features: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Where features speak for a high score: ReLU(Σ αₖ Aₖ), αₖ the mean over channel k of the gradient (section 3).

    Args:
        features: A, (B, C, h, w).
        score: of them, a value for each image, in which no other image has a part.

    Returns:
        (B, 1, h, w) ≥ 0, without a graph.
    """
    features = features.detach().requires_grad_()
    with torch.enable_grad():
        # no image has a part in another's score, so that the sum's gradient is each one's own
        (gradient,) = torch.autograd.grad(score(features).sum(), features)
    weights = gradient.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    return (weights * features.detach()).sum(1, keepdim=True).relu()
