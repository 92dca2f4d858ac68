"""A variational auto-encoder: the small auto-encoder with a Gaussian for its latent."""

from typing import NamedTuple

import torch

from models.autoencoder import AutoEncoder


class Inferred(NamedTuple):
    """What the network makes of images (B, 1, S, S) in [−1, 1]."""

    x_hat: torch.Tensor  # (B, 1, S, S), no activation at its end
    mu: torch.Tensor  # (B, latent)
    log_var: torch.Tensor  # (B, latent): log σ²


class VariationalAutoEncoder(AutoEncoder):
    """In training it decodes a sample of each latent's Gaussian, in evaluation the mean."""

    codes = 2  # μ and log σ²

    def forward(self, x: torch.Tensor) -> Inferred:
        mu, log_var = self.encode(x).chunk(2, dim=1)  # (B, latent) each
        z = mu + (log_var / 2).exp() * torch.randn_like(mu) if self.training else mu
        return Inferred(self.decode(z), mu, log_var)
