"""PatchCore's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.features import ColourConfig
from configs.stages import Stage


class PatchCoreConfig(ColourConfig, BaseConfig):
    """PatchCore (CVPR 2022). It is fitted in one pass, without augmentation."""

    method = "patchcore"

    main_score: Literal["", "distance"] = ""

    image_size = 224
    resize = "bilinear"
    augment = False
    batch_size = 8
    epochs = 1
    best_rule = "last"

    layers: tuple[str, ...] = ("layer2", "layer3")  # shallowest first; its grid is the patches'
    pooled: int = 1024  # dimensions of a patch's features
    projected: int = 128  # dimensions in which the bank's patches are chosen; 0 chooses in all
    bank_ratio: float = 0.01  # of the patches that are kept (published: 0.1)
    candidates: int = 200_000  # patches at most, drawn at random, that the kept ones are chosen from
    blur: float = 4.0  # of the map: the Gaussian's deviation, in pixels

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("fit", 1, self.batch_size, batches=0),)

    def check(self) -> None:
        super().check()
        if self.epochs != 1:
            raise ConfigError(f"epochs = {self.epochs}: PatchCore is fitted once, in one pass.")
        self.check_at_least(32, "image_size")
        self.check_share("bank_ratio")
        self.check_at_least(1, "pooled", "candidates")
        self.check_at_least(0, "projected", "blur")
