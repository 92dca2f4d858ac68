"""Densities of normal features: a Gaussian, and kernels at all of them."""

import math

import torch
from sklearn.covariance import LedoitWolf

from models.fitted import Fitted
from system.tuning import full_products


class Density(Fitted):
    """Of features (d,); none at first."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, 0))  # (n, d): the features
        self.register_buffer("mean", torch.zeros(0))  # (d,)
        self.register_buffer("precision", torch.zeros(0, 0))  # (d, d): the inverse of the shrunk covariance

    def fit(self, rows: torch.Tensor) -> None:
        """Of features (n, d); the covariance is Ledoit and Wolf's."""
        found = LedoitWolf().fit(rows.cpu().double().numpy())
        self.rows = rows
        self.mean, self.precision = (torch.from_numpy(x).to(rows) for x in (found.location_, found.precision_))

    @full_products()
    def mahalanobis(self, z: torch.Tensor) -> torch.Tensor:
        """Distance to the mean: (B, d) → (B,)."""
        offset = z - self.mean
        return (offset @ self.precision * offset).sum(1).clamp(min=0).sqrt()  # rounding

    def log_density(self, z: torch.Tensor, bandwidth: float) -> torch.Tensor:
        """Of Gaussian kernels, as scikit-learn's ``KernelDensity.score_samples``: (B, d) → (B,) float64 on the CPU.

        Features of length 1 may be close together: their distances are no differences of products, and the constant,
        some hundreds, is not subtracted in float32.
        """
        n, d = self.rows.shape
        distances = torch.cdist(z, self.rows, compute_mode="donot_use_mm_for_euclid_dist").cpu().double()  # (B, n)
        kernels = -distances.square() / (2 * bandwidth**2)
        return kernels.logsumexp(1) - math.log(n) - d / 2 * math.log(2 * math.pi * bandwidth**2)
