"""f-AnoGAN's networks: the residual ones of Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.residual import DownBlock, Norm, UpBlock, activated, layer_norm

SMALLEST = 4  # side of the deepest map
WIDEST = 8  # times as many channels as at the image's side
HE = 2**0.5  # the gain that makes Glorot's variance He's


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def draw_weights(network: nn.Module) -> None:
    """U(±gain · √(6/(fan in + fan out))): He's gain for 3 × 3 convolutions of features, 1 for all other; biases 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            inner = isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.in_channels > 1
            nn.init.xavier_uniform_(module.weight, HE if inner else 1.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def widths(image_size: int, channels: int) -> list[int]:
    """The channels at each side, from the image's down to 4: of 64 pixels and 64 channels 64, 128, 256, 512, 512."""
    halvings = (image_size // SMALLEST).bit_length() - 1
    return [channels * min(2**k, WIDEST) for k in range(halvings + 1)]


class Generator(nn.Module):
    """(B, latent) → (B, 1, S, S) in [−1, 1]."""

    def __init__(self, image_size: int, channels: int, latent: int):
        super().__init__()
        steps = widths(image_size, channels)[::-1]
        self.layers = nn.Sequential(
            nn.Linear(latent, steps[0] * SMALLEST**2),
            nn.Unflatten(1, (steps[0], SMALLEST, SMALLEST)),
            *(UpBlock(a, b, batch_norm) for a, b in pairwise(steps)),
            *activated(batch_norm, channels),
            nn.Conv2d(channels, 1, 3, padding=1),
            nn.Tanh(),
        )
        draw_weights(self)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


class Trunk(nn.Module):
    """What critic and encoder have in common: ``features``, (B, 1, S, S) → (B, C, 4, 4), and ``last``, linear."""

    def __init__(self, image_size: int, channels: int, out: int, norm: Norm):
        super().__init__()
        steps = widths(image_size, channels)
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            *(DownBlock(a, b, norm) for a, b in pairwise(steps)),
        )
        self.last = nn.Linear(steps[-1] * SMALLEST**2, out)
        draw_weights(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.features(x).flatten(1))  # (B, out)


class Critic(Trunk):
    """(B, 1, S, S) → (B, 1), high on real images; no image's depends on another's."""

    def __init__(self, image_size: int, channels: int):
        super().__init__(image_size, channels, 1, layer_norm)


class Encoder(Trunk):
    """(B, 1, S, S) → (B, latent) in [−1, 1]."""

    def __init__(self, image_size: int, channels: int, latent: int):
        super().__init__(image_size, channels, latent, batch_norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).tanh()


@contextmanager
def standing_statistics(network: nn.Module) -> Iterator[None]:
    """Within the ``with``, forwards in training mode leave batch norm's running means and variances as they are."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
