"""SQUID's settings: the base of its published rows (squid.md's table, column base)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from models.squid import check_sizes


class SquidConfig(BaseConfig):
    """SQUID (CVPR 2023). ``ops`` and ``decoder_memory`` run deepest level first."""

    method = "squid"
    main_score: Literal["discriminator", "reconstruction"] = "discriminator"
    best_rule = "tolerance"

    base_channels: int = 32
    patches_per_side: int = 2
    levels: int = 4
    initial_combine: int = 2  # the shallow levels that see whole maps
    ops: tuple[str, ...] = ("concat", "concat", "none", "none")
    decoder_memory: tuple[str, ...] = ("V1", "V1", "none", "none")
    queue_slots: int = 1000
    matrix_slots: int = 500
    gumbel_top_k: int = 0  # Gumbel shrinkage: k − 1 slots survive; 0 is off
    shrink_threshold: float = 0.0005  # hard shrinkage; 0 is off
    mask_ratio: float = 0.95  # share of positions that take the memory's output in training
    dropout: float = 0.0
    teacher: bool = True

    n_critic: int = 1  # the generator steps at every n-th iteration
    recon_weight: float = 1.0
    teacher_weight: float = 0.5
    distill_weight: float = 0.1
    adversarial_weight: float = 0.0005
    discriminator_weight: float = 1.0

    score_statistics: Literal["image", "running"] = "image"  # of batch norm when scoring: the image's own, or running
    statistics_images: int = 201  # training images whose logits give mu and sigma

    def check(self) -> None:
        super().check()
        try:
            check_sizes(
                self.image_size, self.patches_per_side, self.levels, self.base_channels,
                self.initial_combine, self.ops, self.decoder_memory,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if bool(self.gumbel_top_k) == bool(self.shrink_threshold):
            raise ConfigError(
                f"gumbel_top_k = {self.gumbel_top_k} and shrink_threshold = {self.shrink_threshold}: "
                "exactly one of them must be on (not 0)."
            )
        slots = min(self.queue_slots, self.matrix_slots)
        if not 0 <= self.gumbel_top_k <= slots:
            raise ConfigError(f"gumbel_top_k = {self.gumbel_top_k}: must lie in 0 … the {slots} slots of a memory.")
        if not 0 < self.mask_ratio <= 1:
            raise ConfigError(f"mask_ratio = {self.mask_ratio}: must lie in (0, 1].")
        if self.n_critic < 1 or self.statistics_images < 2:
            raise ConfigError("n_critic must be at least 1 and statistics_images at least 2.")
        if self.score_statistics == "image" and self.image_size <= 32:
            raise ConfigError("image_size must be above 32: below, the discriminator's last map is a single pixel.")
