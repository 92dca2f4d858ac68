"""AE-PL's settings (docs/baselines.md)."""

from typing import Literal

from configs.autoencoder import SmallAutoEncoderConfig
from configs.base import ConfigError
from configs.features import FeatureConfig


class AePlConfig(FeatureConfig, SmallAutoEncoderConfig):
    """AE-PL, as MedIAnomaly compares with it (Brain Tumor: epochs = 600)."""

    method = "ae_pl"

    main_score: Literal["", "perceptual"] = ""

    backbone = "vgg19"
    layers = ("relu4_2",)  # a single one
    # ours: in units of the channels' mean variance, the least that a channel's counts as
    variance_floor: float = 0.01

    def check(self) -> None:
        super().check()
        if len(self.layers) != 1:
            raise ConfigError(f"layers = {','.join(self.layers)}: AE-PL compares the features of one layer.")
        self.check_share("variance_floor")
