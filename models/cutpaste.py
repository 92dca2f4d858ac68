"""CutPaste's network: ResNet-18 and a head that tells the views of an image apart."""

import torch
import torchvision.models as zoo
from torch import nn

VIEWS = 3  # normal, patch, scar
WIDTHS = (512, 128)  # of the head's hidden layers


class CutPasteNet(nn.Module):
    """torchvision's ResNet-18, drawn at random, without its classifier; images are (B, 1, H, W) in [−1, 1]."""

    def __init__(self):
        super().__init__()
        self.backbone = zoo.resnet18()
        width = self.backbone.fc.in_features
        self.backbone.fc = nn.Identity()
        layers: list[nn.Module] = []
        for out in WIDTHS:
            layers += [nn.Linear(width, out), nn.BatchNorm1d(out), nn.ReLU()]
            width = out
        self.head = nn.Sequential(*layers, nn.Linear(width, VIEWS))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) → (B, 512)."""
        return self.backbone(x.expand(-1, 3, -1, -1))  # the gray image in each of three channels

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, H, W) → the features (B, 512) and the views' logits (B, 3)."""
        z = self.features(x)
        return z, self.head(z)
