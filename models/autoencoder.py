"""The auto-encoders of DDAD: plain, with a predicted variance (AE-U), with a memory over the latent (MemAE)."""

import math
from typing import NamedTuple

import torch
from torch import nn

from models.blocks import full_precision
from models.memory import Memory, hard_shrinkage, initial_slots
from models.sizes import AUTOENCODER_CHANNELS, check_autoencoder_sizes


class Decoded(NamedTuple):
    """What an auto-encoder makes of images (B, 1, S, S) in [−1, 1]."""

    x_hat: torch.Tensor  # (B, 1, S, S), no activation at its end
    log_var: torch.Tensor | None = None  # (B, 1, S, S): AE-U's log-variance of every pixel
    weights: torch.Tensor | None = None  # (B, slots): how much MemAE's latent has of each slot


class AutoEncoder(nn.Module):
    """(B, 1, S, S) → :class:`Decoded`; S is divisible by 16. ``multiplier`` scales the convolutions' channels only,
    ``hidden_size`` is between them and the latent.

    Raises:
        ValueError: for a side or a multiplier that cannot be built.
    """

    out_channels = 1
    codes = 1  # of the latent's size, that the encoder gives

    def __init__(self, image_size: int, multiplier: float = 1.0, latent_size: int = 16, hidden_size: int = 2048):
        super().__init__()
        check_autoencoder_sizes(image_size, multiplier)
        channels = [int(c * multiplier) for c in AUTOENCODER_CHANNELS]
        self.bottom = (channels[-1], image_size // 16, image_size // 16)
        flat = math.prod(self.bottom)
        encoder, decoder = [], []
        for c_in, c_out in zip((1, *channels[:-1]), channels, strict=True):
            encoder += [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        for c_in, c_out in zip(channels[::-1], channels[-2::-1], strict=False):
            decoder += [nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder)
        self.to_latent = nn.Sequential(
            nn.Linear(flat, hidden_size),
            nn.BatchNorm1d(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, self.codes * latent_size),
        )
        self.from_latent = nn.Sequential(
            nn.Linear(latent_size, hidden_size), nn.BatchNorm1d(hidden_size), nn.ReLU(), nn.Linear(hidden_size, flat)
        )
        last = nn.ConvTranspose2d(channels[0], self.out_channels, 4, 2, 1, bias=False)
        self.decoder = nn.Sequential(*decoder, last)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        f = self.encoder(x)  # (B, 64m, S/16, S/16)
        return self.to_latent(f.flatten(1))  # (B, codes · latent)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        f = self.from_latent(z).unflatten(1, self.bottom)  # (B, 64m, S/16, S/16)
        f = self.decoder[:-1](f)  # (B, 16m, S/2, S/2)
        last = self.decoder[-1]
        with full_precision(f):  # bfloat16 has too few gray levels, and exp(−log_var) magnifies its rounding
            return last(f.to(last.weight))  # (B, out_channels, S, S)

    def forward(self, x: torch.Tensor) -> Decoded:
        return Decoded(self.decode(self.encode(x)))


class UncertainAutoEncoder(AutoEncoder):
    """AE-U: every pixel's mean and log-variance."""

    out_channels = 2

    def forward(self, x: torch.Tensor) -> Decoded:
        x_hat, log_var = self.decode(self.encode(x)).chunk(2, dim=1)  # (B, 1, S, S) each
        return Decoded(x_hat, log_var)


class LatentMemory(Memory):
    """MemAE's memory: a latent is rebuilt from softmax weights of learned slots, hard-shrunk above a threshold of 0."""

    def __init__(self, num_slots: int, dim: int, threshold: float):
        super().__init__()
        self.threshold = threshold
        self.slots = nn.Parameter(initial_slots(1, num_slots, dim))

    def weights(self, query: torch.Tensor) -> torch.Tensor:  # (B, 1, d) → (1, B, S)
        with full_precision(query):
            soft = (query.to(self.slots).transpose(0, 1) @ self.slots.transpose(1, 2)).softmax(-1)
            return hard_shrinkage(soft, self.threshold) if self.threshold else soft

    def forward(self, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, d) → what was read, (B, 1, d), and the weights it was read with, (1, B, S)."""
        weights = self.weights(query)
        return (weights @ self.slots).transpose(0, 1), weights


class MemoryAutoEncoder(AutoEncoder):
    """MemAE: the decoder sees only what the memory can make of the latent."""

    def __init__(
        self,
        image_size: int,
        multiplier: float = 1.0,
        latent_size: int = 16,
        hidden_size: int = 2048,
        num_slots: int = 25,
        threshold: float = 0.0,
    ):
        super().__init__(image_size, multiplier, latent_size, hidden_size)
        self.memory = LatentMemory(num_slots, latent_size, threshold)

    def forward(self, x: torch.Tensor) -> Decoded:
        z = self.encode(x).unsqueeze(1)  # (B, 1, latent)
        z_hat, weights = self.memory(z)
        return Decoded(self.decode(z_hat.squeeze(1)), weights=weights.squeeze(0))
