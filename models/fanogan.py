"""f-AnoGAN's networks: the residual ones of Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

SMALLEST = 4  # side of the deepest map
WIDEST = 8  # times as many channels as at the image's side
HE = 2**0.5  # the gain that makes Glorot's variance He's

Norm = Callable[[int], nn.Module]  # channels → the norm of a map


def batch_norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def layer_norm(channels: int) -> nn.Module:
    """Statistics of an image's whole map; a scale and an offset for every channel."""
    return nn.GroupNorm(1, channels)


def drawn(layer: nn.Conv2d | nn.Linear, gain: float = 1.0) -> nn.Module:
    """The layer with weights from U(±gain · √(6/(fan in + fan out))) and biases 0."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def activated(norm: Norm, channels: int) -> tuple[nn.Module, ...]:
    return norm(channels), nn.ReLU(inplace=True)


def convolution(in_channels: int, out_channels: int, bias: bool = True) -> nn.Module:
    return drawn(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias), HE)


def widths(image_size: int, channels: int) -> list[int]:
    """The channels at each side, from the image's down to 4: of 64 pixels and 64 channels 64, 128, 256, 512, 512."""
    halvings = (image_size // SMALLEST).bit_length() - 1
    return [channels * min(2**k, WIDEST) for k in range(halvings + 1)]


class UpBlock(nn.Module):
    """(B, in, h, w) → (B, out, 2h, 2w), residual."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            *activated(batch_norm, in_channels),
            nn.Upsample(scale_factor=2),
            convolution(in_channels, out_channels, bias=False),
            *activated(batch_norm, out_channels),
            convolution(out_channels, out_channels),
        )
        # doubled after the 1 × 1 convolution: the same as before it, for a quarter of the work
        self.shortcut = nn.Sequential(drawn(nn.Conv2d(in_channels, out_channels, 1)), nn.Upsample(scale_factor=2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)


class DownBlock(nn.Module):
    """(B, in, h, w) → (B, out, h/2, w/2), residual."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm):
        super().__init__()
        self.layers = nn.Sequential(
            *activated(norm, in_channels),
            convolution(in_channels, in_channels, bias=False),
            *activated(norm, in_channels),
            convolution(in_channels, out_channels),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), drawn(nn.Conv2d(in_channels, out_channels, 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.layers(x)


class Generator(nn.Module):
    """(B, latent) → (B, 1, S, S) in [−1, 1]."""

    def __init__(self, image_size: int, channels: int, latent: int):
        super().__init__()
        steps = widths(image_size, channels)[::-1]
        self.layers = nn.Sequential(
            drawn(nn.Linear(latent, steps[0] * SMALLEST**2)),
            nn.Unflatten(1, (steps[0], SMALLEST, SMALLEST)),
            *(UpBlock(a, b) for a, b in zip(steps, steps[1:], strict=False)),
            *activated(batch_norm, channels),
            convolution(channels, 1),
            nn.Tanh(),
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


class Trunk(nn.Module):
    """What critic and encoder have in common: ``features``, (B, 1, S, S) → (B, C, 4, 4), and ``last``, linear."""

    def __init__(self, image_size: int, channels: int, out: int, norm: Norm):
        super().__init__()
        steps = widths(image_size, channels)
        self.features = nn.Sequential(
            drawn(nn.Conv2d(1, channels, 3, padding=1)),
            *(DownBlock(a, b, norm) for a, b in zip(steps, steps[1:], strict=False)),
        )
        self.last = drawn(nn.Linear(steps[-1] * SMALLEST**2, out))

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
