"""The settings of a single auto-encoder, and what DDAD, VAE and AE-PL share with them (docs/methods.md)."""

from typing import Literal

from configs.base import BaseConfig, Stage, check_with
from models.sizes import check_autoencoder_sizes

LEAST = 2  # images: batch norm has a variance of them at the latent


class SmallAutoEncoderConfig(BaseConfig):
    """Images are in [0, 1] wherever they are seen; the networks work in [−1, 1]."""

    image_size = 64
    resize = "bilinear"
    augment = False
    epochs = 250
    batch_size = 64
    learning_rate = 1e-3
    lr_steps = ()  # a constant rate
    best_rule = "last"

    multiplier: float = 1.0  # of the convolutions' channels
    latent_size: int = 16
    hidden_size: int = 1024  # between the convolutions and the latent

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size, least=LEAST),)

    def check(self) -> None:
        super().check()
        check_with(check_autoencoder_sizes, self.image_size, self.multiplier)
        self.check_at_least(LEAST, "batch_size")
        self.check_at_least(1, "latent_size", "hidden_size")


class AutoEncoderConfig(SmallAutoEncoderConfig):
    """As DDAD's program has them."""

    learning_rate = 5e-4

    main_score: Literal["", "reconstruction"] = ""

    hidden_size = 2048
    num_slots: int = 25  # these three are MemAE's alone
    latent_threshold: float = 0.0  # hard shrinkage of the slots' weights; 0 is off
    entropy_weight: float = 0.0002

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size, drop_last=True, least=LEAST),)

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "num_slots")
        self.check_at_least(0, "latent_threshold", "entropy_weight")


class AeConfig(AutoEncoderConfig):
    method = "ae"


class AeUConfig(AutoEncoderConfig):
    method = "aeu"


class MemAeConfig(AutoEncoderConfig):
    method = "memae"
