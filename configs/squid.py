"""SQUID's settings: the base of its published rows (docs/methods.md)."""

from configs.base import ConfigError, check_with
from configs.inpainting import InpaintingConfig
from models.sizes import check_decoder_memory, check_inpainting, check_sizes


class SquidConfig(InpaintingConfig):
    """SQUID (CVPR 2023). ``ops`` and ``decoder_memory`` run deepest level first."""

    method = "squid"
    best_rule = "tolerance"

    queue_slots: int = 1000  # of each place's memory queue at the bottleneck
    matrix_slots: int = 500  # of each place's memory matrix in the decoder
    shrink_threshold = 0.0005
    mask_ratio = 0.95

    def check(self) -> None:
        super().check()
        check_with(
            check_sizes, self.image_size, self.patches_per_side, self.levels, self.base_channels,
            self.initial_combine, self.ops,
        )  # fmt: skip
        if self.bottleneck != "none":
            check_with(check_inpainting, self.image_size, self.patches_per_side, self.levels, self.base_channels)
        check_with(
            check_decoder_memory, self.decoder_memory, self.image_size, self.patches_per_side, self.levels,
            self.initial_combine,
        )  # fmt: skip
        self.check_at_least(1, "queue_slots", "matrix_slots")
        if bool(self.gumbel_top_k) == bool(self.shrink_threshold):
            raise ConfigError(
                f"gumbel_top_k = {self.gumbel_top_k} and shrink_threshold = {self.shrink_threshold}: "
                "exactly one of them must be on (not 0)."
            )
        self.check_top_k("gumbel_top_k", min(self.queue_slots, self.matrix_slots))
        if self.score_statistics == "image" and self.image_size <= 32:
            raise ConfigError("image_size must be above 32: below, the discriminator's last map is a single pixel.")
