"""FAE-SSIM's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import FeatureConfig
from configs.stages import Stage


class FaeSsimConfig(FeatureConfig, BaseConfig):
    """FAE-SSIM (BrainLes 2022), as its fork for chest radiographs has it."""

    method = "fae_ssim"

    main_score: Literal["", "ssim", "top_tenth"] = ""

    image_size = 128
    resize = "bilinear"
    augment = False
    epochs = 100  # of epoch_steps each: the published 10,000 steps
    batch_size = 64  # the release, of brain MRI: 32
    learning_rate = 5e-4  # the release: 2e-4
    lr_steps = ()  # a constant rate
    best_rule = "last"

    backbone = "resnet18"
    layers = ("stem", "layer1", "layer2")
    epoch_steps: int = 100
    # what the backbone sees. imagenet: images with its mean and deviation; release: with equal histograms, in [−1, 1]
    preprocessing: Literal["imagenet", "release"] = "imagenet"
    channels: tuple[int, ...] = (100, 150, 200, 300)  # of the auto-encoder, whose maps halve with each
    dropout: float = 0.1  # of whole channels, in training
    window: int = 5  # of the similarity, in pixels of the feature map
    window_sigma: float = 1.5

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size, batches=self.epoch_steps, least=2),)

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "epoch_steps", "window")
        self.check_at_least(2, "batch_size")  # batch norm
        if not self.channels or min(self.channels) < 1:
            raise ConfigError(f"channels = {','.join(map(str, self.channels))}: at least one number, each at least 1.")
        step = 4 * 2 ** len(self.channels)  # feature maps are a quarter as large as images
        if self.image_size % step:
            below = max(self.image_size // step, 1) * step
            raise ConfigError(
                f"image_size = {self.image_size} is not divisible by {step}; take {below} or {below + step}."
            )
        if self.window % 2 == 0 or self.window_sigma <= 0:
            raise ConfigError(
                f"window = {self.window}, window_sigma = {self.window_sigma}: an odd number and more than 0."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}: must lie in [0, 1).")
