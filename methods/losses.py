"""Losses of more than one method."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


def adversarial_loss(logits: torch.Tensor, real: bool) -> torch.Tensor:
    """Binary cross-entropy of (B, 1) logits against all-real or all-generated."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def distillation_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Sum over the levels of MSE(student feature, teacher feature); gradients flow into both decoders."""
    return sum(mse_loss(s, t) for s, t in zip(student, teacher, strict=True))
