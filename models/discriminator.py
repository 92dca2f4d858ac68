"""The patch-free discriminator: strided convolutions and one logit per image, high on normal images."""

import torch
from torch import nn

SQUID_CHANNELS = (16, 32, 64, 128, 128)


def simsid_channels(num_layers: int) -> tuple[int, ...]:
    """16, then ``num_layers`` more, doubling up to 256."""
    return tuple(min(16 * 2**k, 256) for k in range(num_layers + 1))


class Discriminator(nn.Module):
    """(B, 1, S, S) → (B, 1) logits: a conv 5×5 of stride 2 per entry of ``channels``, batch norm from the second on.

    The released programs score one image at a time in training mode, so that batch norm normalises with that
    image's own statistics; ``per_image=True`` computes the same for a whole batch at once.
    """

    def __init__(self, image_size: int, channels: tuple[int, ...] = SQUID_CHANNELS):
        super().__init__()
        ins = (1, *channels[:-1])
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 5, stride=2, padding=2) for i, o in zip(ins, channels, strict=True))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels[1:])
        side = image_size
        for _ in channels:
            side = (side + 1) // 2
        self.regressor = nn.Linear(channels[-1] * side**2, 1)

    def forward(self, x: torch.Tensor, per_image: bool = False) -> torch.Tensor:
        for i, conv in enumerate(self.convs):
            x = conv(x)  # (B, channels[i], S / 2^(i+1), same)
            if i > 0:
                norm = self.norms[i - 1]
                x = _normalise_each(x, norm) if per_image else norm(x)
            x = nn.functional.leaky_relu(x, 0.2)
        return self.regressor(x.flatten(1))


def _normalise_each(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    """What ``norm`` in training mode makes of each image (B, C, h, w) alone; its running statistics stay."""
    return nn.functional.instance_norm(x, None, None, norm.weight, norm.bias, eps=norm.eps)
