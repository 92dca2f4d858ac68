"""Implicit field's settings (docs/baselines.md)."""

from typing import Literal

from configs.base import BaseConfig, ConfigError
from configs.stages import Stage


class ImplicitFieldConfig(BaseConfig):
    """Implicit field (MICCAI 2021), in two dimensions; how much is trained and fitted is ours."""

    method = "implicit_field"

    main_score: Literal["", "cross_entropy"] = ""

    image_size = 64  # ours
    resize = "bilinear"
    augment = False
    epochs = 100  # ours; published: 2001
    batch_size = 6
    learning_rate = 5e-4  # of the field
    lr_steps = (25, 50, 75)  # ours: quarters, as published (499, 999, 1499, 1999)
    lr_factor = 0.5
    best_rule = "last"
    val_every = 100  # to score takes long

    bins: int = 10  # of intensities, the classes
    code_size: int = 256
    frequencies: int = 10  # of each coordinate
    width: int = 512
    dropout: float = 0.2
    points: int = 1024  # of every image in an iteration, drawn with replacement (ours; published: 16384, in a volume)
    code_learning_rate: float = 1e-3  # follows the same schedule
    prior_weight: float = 1e-4  # of the codes' norm
    prior_epochs: int = 100  # in which that weight grows evenly
    # the phases of fitting a code to a scored image (ours; published: 501 and 101 iterations of 10000 and 50000 points)
    fit_iterations: tuple[int, ...] = (100,)
    fit_points: tuple[int, ...] = (512,)
    fit_learning_rate: float = 1e-3

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.epochs, self.batch_size, fixed=True),)

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "code_size", "frequencies", "points", "prior_epochs")
        self.check_at_least(2, "bins")
        self.check_at_least(0, "code_learning_rate", "prior_weight", "fit_learning_rate")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}: must lie in [0, 1).")
        given = self.code_size + 4 * self.frequencies
        if self.width <= given:
            raise ConfigError(f"width = {self.width}: must be above code_size + 4 · frequencies = {given}.")
        phases = self.fit_iterations + self.fit_points
        if len(self.fit_iterations) != len(self.fit_points) or min(phases, default=0) < 1:
            raise ConfigError("fit_iterations and fit_points: a number of at least 1 in each, for every phase.")
        if self.average_decay:
            raise ConfigError("average_decay: codes are not averaged, since what they mean moves with the field.")
