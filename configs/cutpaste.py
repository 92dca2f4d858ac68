"""CutPaste's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.stages import Stage


class CutPasteConfig(BaseConfig):
    """CutPaste, three classes (CVPR 2021), as MedIAnomaly trains it on radiographs."""

    method = "cutpaste"

    # gaussian: distance to the mean feature; kernel: of all features, as a density; classifier: 1 − p(normal)
    main_score: Literal["", "gaussian", "kernel", "classifier"] = ""

    image_size = 224
    resize = "bilinear"
    augment = False  # its own jitter is all there is
    epochs = 100
    batch_size = 64  # images, each in three views
    learning_rate = 0.03
    lr_schedule = "cosine"
    lr_steps = ()
    cosine_epochs = 100
    cosine_min = 0.0
    best_rule = "last"

    steps_per_epoch: int = 256  # however many images there are
    momentum: float = 0.9
    weight_decay: float = 3e-5
    bandwidth: float = 1.0  # of the kernels (ours: scikit-learn's default), features being of length 1

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size, batches=self.steps_per_epoch),)

    def check(self) -> None:
        super().check()
        if self.image_size < 32:
            raise ConfigError(f"image_size = {self.image_size}: must be at least 32, ResNet-18's stride.")
        self.check_at_least(1, "steps_per_epoch")
        self.check_at_least(0, "momentum", "weight_decay")
        if self.bandwidth <= 0:
            raise ConfigError(f"bandwidth = {self.bandwidth}: must be above 0.")
