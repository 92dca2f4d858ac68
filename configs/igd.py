"""IGD's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import FeatureConfig
from configs.stages import Stage

SMALLEST = 16  # side of an image or patch that the networks can be built for


class IgdConfig(FeatureConfig, BaseConfig):
    """IGD (AAAI 2022): epochs and batch_size are the global part's, local_ ones the part's that sees patches."""

    method = "igd"

    main_score: Literal["", "detection", "global", "local"] = ""

    image_size = 256
    resize = "bilinear"
    augment = False  # published: mirrored left and right, which a chest is not
    epochs = 256
    batch_size = 16
    local_epochs: int = 256
    local_batch_size: int = 2  # images, with all their patches
    learning_rate = 1e-4
    lr_schedule: Literal["poly"] = "poly"  # rate · (1 − epoch / poly_epochs) ^ poly_power, in each part
    poly_epochs: int = 256
    poly_power: float = 0.9
    weight_decay: float = 1e-6
    best_rule = "last"

    backbone = "resnet18"
    layers = ("layer4",)  # its mean over the image is encoded
    latent_size: int = 128
    base_channels: int = 64  # of the maps half as large as the image
    local_side: int = 32  # of a patch, in pixels
    local_stride: int = 16  # from one patch to the next
    # the losses' weights
    ssim_weight: float = 0.85  # of 1 − MS-SSIM; what is left to 1 is the mean absolute error's
    critic_weight: float = 0.1  # of the share that the critic finds in images of mixed codes
    real_share: float = 0.2  # of the image itself, in what the critic sees of reconstructions
    refresh_every: int = 10  # epochs after which centre and sigma are taken anew
    least_centre: float = 0.1  # of a centre's coordinates, in absolute value

    def stages(self) -> tuple[Stage, ...]:
        return (
            # a code is mixed with another of its batch, which a last image might not have
            Stage("global", self.epochs, self.batch_size, drop_last=True, least=2),
            Stage(
                "local",
                self.local_epochs,
                self.local_batch_size,
                epochs_key="local_epochs",
                batch_key="local_batch_size",
            ),
        )

    def check(self) -> None:
        super().check()
        at_least_one = ("local_epochs", "local_batch_size", "latent_size", "base_channels", "local_stride")
        self.check_at_least(1, *at_least_one, "refresh_every")
        self.check_at_least(0, "poly_power", "weight_decay", "critic_weight", "least_centre")
        self.check_at_least(2, "batch_size")
        for key in ("image_size", "local_side"):
            side = getattr(self, key)
            if side < SMALLEST or side & (side - 1):
                raise ConfigError(f"{key} = {side}: must be 16, 32, 64, … (a power of two).")
        margin = self.image_size - self.local_side
        if margin < 0 or self.local_stride > self.local_side or margin % self.local_stride:
            raise ConfigError(
                f"local_side = {self.local_side}, local_stride = {self.local_stride}: such patches do not cover images "
                f"of {self.image_size} pixels evenly."
            )
        if max(self.epochs, self.local_epochs) > self.poly_epochs:
            raise ConfigError(f"poly_epochs = {self.poly_epochs}: the rate is 0 by then, before the last epoch.")
        if len(self.layers) != 1:
            raise ConfigError(f"layers = {','.join(self.layers)}: one layer is encoded.")
        for key in ("ssim_weight", "real_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key} = {getattr(self, key)}: must lie in [0, 1].")
