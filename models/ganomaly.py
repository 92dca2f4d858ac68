"""GANomaly's networks: DCGAN's encoder and decoder, without biases."""

from typing import NamedTuple

import torch
from torch import nn

from models.blocks import full_precision

SLOPE = 0.2  # of the leaky ReLU
SMALLEST = 4  # side of the deepest map


class Encoder(nn.Module):
    """(B, 1, S, S) → (B, out, 1, 1) and the deepest map (B, C, 4, 4), after batch norm and leaky ReLU."""

    def __init__(self, image_size: int, channels: int, out: int):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 4, 2, 1, bias=False), nn.LeakyReLU(SLOPE)]
        side = image_size // 2
        while side > SMALLEST:
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * channels)]
            layers.append(nn.LeakyReLU(SLOPE))
            channels, side = 2 * channels, side // 2
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels, out, SMALLEST, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f = self.features(x)  # (B, C, 4, 4)
        with full_precision(f):  # the score is the difference of nearly equal latents
            return self.last(f.to(self.last.weight)), f


class Decoder(nn.Module):
    """(B, latent, 1, 1) → (B, 1, S, S) in [−1, 1]."""

    def __init__(self, image_size: int, channels: int, latent: int):
        super().__init__()
        channels = channels * image_size // 2 // SMALLEST
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, channels, SMALLEST, bias=False)]
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        side = SMALLEST
        while side < image_size // 2:
            layers += [nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(channels // 2), nn.ReLU()]
            channels, side = channels // 2, 2 * side
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels, 1, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layers(z)


class Encoded(NamedTuple):
    """What the generator makes of images (B, 1, S, S) in [−1, 1]."""

    x_hat: torch.Tensor  # (B, 1, S, S)
    z: torch.Tensor  # (B, latent, 1, 1): the image's latent
    z_hat: torch.Tensor  # (B, latent, 1, 1): the reconstruction's


class Generator(nn.Module):
    """Encoder, decoder, and a second encoder of what comes out (GANomaly, section 3.1)."""

    def __init__(self, image_size: int, channels: int, latent: int):
        super().__init__()
        self.encoder = Encoder(image_size, channels, latent)
        self.decoder = Decoder(image_size, channels, latent)
        self.second_encoder = Encoder(image_size, channels, latent)

    def forward(self, x: torch.Tensor) -> Encoded:
        z, _ = self.encoder(x)
        x_hat = self.decoder(z)
        return Encoded(x_hat, z, self.second_encoder(x_hat)[0])


@torch.no_grad()
def draw_weights(network: nn.Module) -> None:
    """Convolutions from N(0, 0.02²), batch norm's scale from N(1, 0.02²), its shift 0; statistics stay."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.normal_(0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.normal_(1, 0.02)
            module.bias.zero_()
