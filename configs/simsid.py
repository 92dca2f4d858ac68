"""SimSID's settings: what its published rows have in common (docs/methods.md)."""

from configs.base import ConfigError, check_with
from configs.inpainting import InpaintingConfig
from models.sizes import check_decoder_memory, check_hierarchical_sizes, check_inpainting, check_sizes

PATCHES_ALONE = (  # what the hierarchical variant has no part for, beside sizes
    "gumbel_top_k", "shrink_threshold", "mask_ratio", "dropout", "inpaint_attention", "space_aware", "decoder_top_k",
    "decoder_threshold", "decoder_mask_ratio", "dim_reduce", "patches_per_side", "skip_dropout", "cosine_addressing",
)  # fmt: skip


class SimSidConfig(InpaintingConfig):
    """SimSID (TPAMI 2024). ``ops`` and ``decoder_memory`` run deepest level first, ``skip_weights`` shallowest first.

    With every shrinkage at 0 a learned matrix is read with a softmax, a queue and a reduced matrix with the plain
    products. Images are in [0, 1] wherever they are seen; ``tanh`` says what range the networks work in.
    """

    method = "simsid"
    lr_schedule = "cosine"

    tanh: bool = True  # the networks work in [−1, 1] and end in a tanh; otherwise in [0, 1] and a sigmoid
    bottleneck = "matrix"
    bottleneck_slots: int = 200  # of each place
    gumbel_top_k = 5  # this, shrink_threshold and mask_ratio are the bottleneck's
    decoder_slots: int = 200  # of each place
    decoder_top_k: int = 5  # as gumbel_top_k, in the decoder's memories
    decoder_threshold: float = 0.0  # as shrink_threshold, in the decoder's memories
    decoder_mask_ratio: float = 1.0
    dim_reduce: bool = False  # V1 memories are read in slot_dim dimensions
    slot_dim: int = 256
    teacher_gradient: bool = False  # the teacher's gradient reaches the encoder through the bottleneck
    skip_weights: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)  # of the skips in training; empty is 1 everywhere
    num_layers: int = 4  # of the discriminator, after its first

    hierarchical: bool = False  # no patches, no bottleneck block: a memory at every level
    hierarchical_slots: int = 20  # of every location of every level

    n_critic = 2
    recon_weight = 10.0
    teacher_weight = 0.01
    distill_weight = 0.001
    adversarial_weight = 0.005
    discriminator_weight = 0.005

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "bottleneck_slots", "decoder_slots", "slot_dim", "hierarchical_slots", "num_layers")
        if self.teacher_gradient and not self.teacher:
            raise ConfigError("teacher_gradient = true would do nothing: there is no teacher. Leave it out.")
        self._check_hierarchical() if self.hierarchical else self._check_patches()
        if self.score_statistics == "image" and self.image_size <= 2 ** (self.num_layers + 1):
            raise ConfigError(
                f"image_size must be above {2 ** (self.num_layers + 1)} with num_layers = {self.num_layers}: below, "
                "the discriminator's last map is a single pixel."
            )

    def _check_hierarchical(self) -> None:
        check_with(check_hierarchical_sizes, self.image_size, self.levels, self.base_channels, self.ops)
        if self.skip_weights:
            raise ConfigError("skip_weights: the hierarchical variant has no skips to weigh; leave it empty.")
        changed = [key for key in PATCHES_ALONE if getattr(self, key) != getattr(SimSidConfig, key)]
        if self.bottleneck not in ("queue", "matrix"):
            changed.append("bottleneck")
        if changed:
            raise ConfigError(
                f"{', '.join(changed)}: would do nothing: the hierarchical variant has no patches, no bottleneck block "
                "and no skips to drop, and memories of its own (hierarchical_slots). Leave it out."
            )

    def _check_patches(self) -> None:
        check_with(
            check_sizes, self.image_size, self.patches_per_side, self.levels, self.base_channels,
            self.initial_combine, self.ops,
        )  # fmt: skip
        if self.bottleneck != "none":
            check_with(check_inpainting, self.image_size, self.patches_per_side, self.levels, self.base_channels)
        check_with(
            check_decoder_memory, self.decoder_memory, self.image_size, self.patches_per_side, self.levels,
            self.initial_combine, ("V1", "V3"),
        )  # fmt: skip
        if len(self.skip_weights) not in (0, self.levels):
            raise ConfigError(f"skip_weights: needs one entry per level, {self.levels} in all, or none.")
        self.check_share("decoder_mask_ratio")
        for top_k, threshold, slots in (
            ("gumbel_top_k", "shrink_threshold", self.bottleneck_slots),
            ("decoder_top_k", "decoder_threshold", self.decoder_slots),
        ):
            self.check_top_k(top_k, slots)
            self.check_at_least(0, threshold)
            if getattr(self, top_k) and getattr(self, threshold):
                raise ConfigError(f"{top_k} and {threshold}: at most one of them can be on.")
        if self.dim_reduce and "V1" not in self.decoder_memory:
            raise ConfigError("dim_reduce reduces V1 memories, and decoder_memory has none.")
