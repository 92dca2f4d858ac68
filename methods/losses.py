"""Losses of more than one method."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def adversarial_loss(logits: torch.Tensor, real: bool) -> torch.Tensor:
    """Binary cross-entropy of (B, 1) logits against all-real or all-generated."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def gradient_penalty(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """R1: mean over the images of the squared norm of the logits' gradient (Mescheder et al., ICML 2018, equation 9).

    Args:
        logits: (B, 1), computed from x.
        x: (B, 1, H, W) images that require gradients.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def distillation_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Sum over the levels of MSE(student feature, teacher feature); gradients flow into both decoders."""
    return sum(mean_squared_error(s, t) for s, t in zip(student, teacher, strict=True))


def mean_squared_error(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """In float32 where x and y are bfloat16, yet without float32 copies of them, which take longer than the rest."""
    if x.dtype != torch.bfloat16:
        return mse_loss(x, y)
    return torch.linalg.vector_norm(x - y, dtype=torch.float32).square() / x.numel()
