"""VAE's settings (docs/baselines.md)."""

from typing import Literal

from configs.autoencoder import SmallAutoEncoderConfig
from configs.base import ConfigError


class VaeConfig(SmallAutoEncoderConfig):
    """VAE, as MedIAnomaly compares with it (Brain Tumor: epochs = 600)."""

    method = "vae"

    main_score: Literal["", "reconstruction", "elbo_gradient", "kl_gradient"] = ""

    # of the divergence, a mean over the latent, beside an error that is a mean over the pixels: not the β of sums
    kl_weight: float = 0.005
    gradient_scores: bool = False  # two more scores, of the gradients by the image

    def check(self) -> None:
        super().check()
        self.check_at_least(0, "kl_weight")
        if self.main_score.endswith("gradient") and not self.gradient_scores:
            raise ConfigError(f"main_score = {self.main_score}: needs gradient_scores = true.")
