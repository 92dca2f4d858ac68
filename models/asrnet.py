"""ASR-Net, DDAD's refinement: maps of the discrepancies → where the anomaly is."""

import torch
from torch import nn

CHANNELS = 128


class AsrNet(nn.Module):
    """(B, maps, S, S) → (B, 2, S, S) logits of normal (0) and anomalous (1) for every pixel."""

    def __init__(self, maps: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(maps, CHANNELS, 3, padding=1),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, 2, 3, padding=1),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.layers(maps)
