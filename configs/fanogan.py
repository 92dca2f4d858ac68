"""f-AnoGAN's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.stages import Stage


class FanoganConfig(BaseConfig):
    """f-AnoGAN (MedIA 2019): epochs and learning_rate are those of the GAN, and encoder_… the encoder's."""

    method = "fanogan"

    main_score: Literal["", "izi_f"] = ""

    image_size = 64
    resize = "bilinear"
    augment = False
    epochs = 200  # ours: 100,000 steps of the critic, 20,000 of the generator; published: 7 passes over many patches
    batch_size = 64
    learning_rate = 1e-4
    lr_steps = ()  # constant rates
    best_rule = "last"

    encoder_epochs: int = 40  # ours: 20,000 steps; published: 50,000
    encoder_learning_rate: float = 5e-5
    epoch_batches: int = 500  # what an epoch is, however many images there are: budgets are in steps
    base_channels: int = 64  # at the image's side; they double at every halving of it, up to eightfold
    latent_size: int = 128
    n_critic: int = 5  # the generator steps after every n-th step of the critic
    penalty_weight: float = 10.0  # of the critic's gradient penalty
    feature_weight: float = 1.0  # κ, of the critic's features in the encoder's loss and in the score

    def stages(self) -> tuple[Stage, ...]:
        """The GAN, whose batches are the critic's steps, and the encoder into its latent space."""
        return (
            Stage("gan", self.epochs, self.batch_size, batches=self.epoch_batches),
            Stage(
                "encoder",
                self.encoder_epochs,
                self.batch_size,
                batches=self.epoch_batches,
                epochs_key="encoder_epochs",
                settings=("feature_weight",),
            ),
        )

    def check(self) -> None:
        super().check()
        if self.image_size < 8 or self.image_size & (self.image_size - 1):
            raise ConfigError(f"image_size = {self.image_size}: must be 8, 16, 32, … (a power of two).")
        self.check_at_least(1, "encoder_epochs", "epoch_batches", "base_channels", "latent_size", "n_critic")
        self.check_at_least(0, "encoder_learning_rate", "penalty_weight", "feature_weight")
        for key in ("epoch_batches", "max_batches"):
            if getattr(self, key) % self.n_critic:
                raise ConfigError(
                    f"{key} = {getattr(self, key)}: must be a multiple of n_critic = {self.n_critic}, so that every "
                    "epoch ends with a step of the generator."
                )
