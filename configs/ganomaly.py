"""GANomaly's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.stages import Stage


class GanomalyConfig(BaseConfig):
    """GANomaly (ACCV 2018)."""

    method = "ganomaly"

    main_score: Literal["", "latent"] = ""

    image_size = 64
    resize = "bilinear"
    augment = False
    epochs = 100  # ours for radiographs; published: 15, of 32 × 32 pixels
    batch_size = 64
    learning_rate = 2e-4
    lr_steps = ()  # a constant rate
    best_rule = "last"

    base_channels: int = 64  # of the first convolution; they double down to a side of 4
    latent_size: int = 100
    # the losses' weights
    feature_weight: float = 1.0  # between the discriminator's features of image and reconstruction
    recon_weight: float = 50.0  # mean absolute error
    latent_weight: float = 1.0  # between the image's and the reconstruction's latents
    redraw_below: float = 1e-5  # a discriminator whose loss is smaller is drawn anew; 0 never

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size, drop_last=True),)

    def check(self) -> None:
        super().check()
        if self.image_size < 16 or self.image_size & (self.image_size - 1):
            raise ConfigError(f"image_size = {self.image_size}: must be 16, 32, 64, … (a power of two).")
        self.check_at_least(1, "base_channels", "latent_size")
        self.check_at_least(0, "feature_weight", "recon_weight", "latent_weight", "redraw_below")
