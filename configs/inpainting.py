"""The settings that SQUID and SimSID share."""

import json
from typing import Literal

from configs.base import BaseConfig, ConfigError


class InpaintingConfig(BaseConfig):
    """``ops`` and ``decoder_memory`` run deepest level first; docs/methods.md says what the parts do."""

    main_score: Literal["discriminator", "reconstruction"] = "discriminator"

    base_channels: int = 32  # of the first block; the levels have 2, 4, 8, 16, 16 times as many
    patches_per_side: int = 2  # P: the image is cut into P × P patches
    levels: int = 4  # times that the encoder halves the patches
    initial_combine: int = 2  # the shallow levels that see whole maps
    ops: tuple[str, ...] = ("concat", "concat", "none", "none")  # how each level joins its skip; add is the third way
    # V1: windows of each map, V2: patches at a quarter of the channels, V3: whole patches, V4: maps, one for all places
    decoder_memory: tuple[str, ...] = ("V1", "V1", "none", "none")
    gumbel_top_k: int = 0  # Gumbel shrinkage: k − 1 slots survive; 0 is off
    shrink_threshold: float = 0.0  # hard shrinkage; 0 is off
    mask_ratio: float = 1.0  # share of positions that take the memory's output in training
    bottleneck: Literal["queue", "matrix", "none"] = "queue"  # the in-painting block's memory; none leaves it out
    inpaint_attention: bool = True  # the block attends to the neighbours' memories; otherwise its own goes straight on
    space_aware: bool = True  # memories (but V4) have slots of their own for every place; otherwise places share them
    dropout: float = 0.0  # in the in-painting block's feed-forward layers
    # remedies of ours, off in every published row (docs/steadying.md)
    cosine_addressing: bool = False  # memories are read by the cosine of query and slot, not by their product
    skip_dropout: float = 0.0  # in training, the probability that the student's decoder goes without a map's skip
    r1_weight: float = 0.0  # of the discriminator's gradient penalty on images
    teacher: bool = True  # train a teacher generator and distil from it

    n_critic: int = 1  # the generator steps at every n-th iteration
    # the losses' weights
    recon_weight: float = 1.0  # mean squared error of the student's reconstruction
    teacher_weight: float = 0.5  # the same of the teacher's
    distill_weight: float = 0.1  # between the student's and the teacher's features
    adversarial_weight: float = 0.0005  # of the generator's attempt to deceive the discriminator
    discriminator_weight: float = 1.0  # of the discriminator's own loss

    score_statistics: Literal["image", "running"] = "image"  # of batch norm when scoring: the image's own, or running
    statistics_images: int = 201  # training images whose logits give mu and sigma
    # their augmentation (DigitAnatomy: they themselves): the same at every evaluation, or another, as it was released
    statistics_draw: Literal["fixed", "redrawn"] = "fixed"
    # before scoring, the generator's running statistics are taken anew over all training images, as scoring sees them
    reestimate_batch_norm: bool = False

    def check(self) -> None:
        super().check()
        self.check_share("mask_ratio")
        self.check_at_least(0, "shrink_threshold", "r1_weight")
        self.check_at_least(1, "n_critic")
        self.check_at_least(2, "statistics_images")
        self.check_effective()
        for key in ("dropout", "skip_dropout"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"{key} = {getattr(self, key)}: must lie in [0, 1).")

    def check_effective(self) -> None:
        """Raise a ConfigError for a setting of a part that other settings leave out."""
        no_bottleneck = self.bottleneck == "none"
        memories = not no_bottleneck or any(kind != "none" for kind in self.decoder_memory)
        for key, in_vain, why in (
            ("dropout", self.dropout and (no_bottleneck or not self.inpaint_attention), "there is no attention"),
            ("inpaint_attention", no_bottleneck and not self.inpaint_attention, "bottleneck = none leaves it out"),
            ("cosine_addressing", self.cosine_addressing and not memories, "there is no memory"),
            ("skip_dropout", self.skip_dropout and set(self.ops) == {"none"}, "there are no skips"),
        ):
            if in_vain:
                raise ConfigError(f"{key} = {json.dumps(getattr(self, key))} would do nothing: {why}. Leave it out.")

    def check_top_k(self, key: str, slots: int) -> None:
        """Raise a ConfigError for a k that a memory of so many slots does not have."""
        if not 0 <= getattr(self, key) <= slots:
            raise ConfigError(f"{key} = {getattr(self, key)}: must lie in 0 … the {slots} slots of a memory.")
