"""The patch-free discriminator: strided convolutions and one logit per image, high on normal images."""

from collections.abc import Callable

import torch
from torch import nn

SQUID_CHANNELS = (16, 32, 64, 128, 128)
SHOWN_SIDE = 8  # pixels that features must have on a side for a map of them to say where
Normalise = Callable[[torch.Tensor, nn.BatchNorm2d], torch.Tensor]


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
        side, self.shown = image_size, 1
        for depth in range(1, len(channels) + 1):
            side = (side + 1) // 2
            if side >= SHOWN_SIDE:
                self.shown = depth
        self.regressor = nn.Linear(channels[-1] * side**2, 1)

    def forward(self, x: torch.Tensor, per_image: bool = False) -> torch.Tensor:
        x = self._convolve(x, 0, len(self.convs), _normalise_each if per_image else _normalise)
        return self.regressor(x.flatten(1))

    def features(self, x: torch.Tensor, per_image: bool = False) -> torch.Tensor:
        """The features that a map of the logit is made of: the deepest of at least 8 × 8, (B, C, h, h).

        Of 128 px these are the last convolution's but one, whose own 4 × 4 would hardly say where; of 256 px the last.
        """
        return self._convolve(x, 0, self.shown, _normalise_each if per_image else _normalise)

    def judge(self, features: torch.Tensor, per_image: bool = False) -> torch.Tensor:
        """Of :meth:`features`, the logits (B, 1); an image's own statistics are constants to the gradient.

        Running statistics are constants too. Through its own a logit would not depend on a channel's mean but at the
        border, and the mean of its gradient over a channel, which Grad-CAM takes, would be of the padding alone.
        """
        normalise = _normalise_each_by_constants if per_image else _normalise
        return self.regressor(self._convolve(features, self.shown, len(self.convs), normalise).flatten(1))

    def _convolve(self, x: torch.Tensor, first: int, end: int, normalise: Normalise) -> torch.Tensor:
        for i in range(first, end):
            x = self.convs[i](x)  # (B, channels[i], S / 2^(i+1), same)
            if i > 0:
                x = normalise(x, self.norms[i - 1])
            x = nn.functional.leaky_relu(x, 0.2)
        return x


def _normalise(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    return norm(x)


def _normalise_each(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    """What ``norm`` in training mode makes of each image (B, C, h, w) alone; its running statistics stay."""
    return nn.functional.instance_norm(x, None, None, norm.weight, norm.bias, eps=norm.eps)


def _normalise_each_by_constants(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    """The same values; to the gradient, the statistics do not depend on ``x``."""
    var, mean = torch.var_mean(x.detach(), (2, 3), correction=0, keepdim=True)  # (B, C, 1, 1)
    scale = norm.weight[:, None, None] * torch.rsqrt(var + norm.eps)
    return (x - mean) * scale + norm.bias[:, None, None]
