"""The settings that one dataset alone has; a configuration gets them with ``dataset = its name``."""

import functools
from typing import Literal, get_type_hints

from configs.base import BaseConfig, ConfigError


class DigitSettings:
    """DigitAnatomy's; a row's class sets them like any other."""

    digit_source: Literal["auto", "sklearn", "mnist"] = "auto"  # auto is mnist where its files are
    digits_per_epoch: int = 1600  # images made anew for every epoch
    # a crop that does not fit its specimen is drawn again, or (older experiments) is the whole cell
    digit_crop: Literal["redrawn", "clamped"] = "redrawn"

    def check(self) -> None:
        super().check()
        self.check_at_least(1, "digits_per_epoch")


class FolderSettings:
    """Those of one's own images (docs/own_images.md)."""

    # the share of normal training images that is not trained on, where there is no val; 0: none. Of 55 images this
    # leaves 19 to threshold by, which 5 % of false alarms takes
    held_out: float = 0.35

    def check(self) -> None:
        super().check()
        if not 0 <= self.held_out <= 0.5:
            raise ConfigError(f"held_out = {self.held_out}: must lie in [0, 0.5].")


class MedAdSettings(FolderSettings):
    """The Med-AD benchmarks'; the published rows train on all normal images."""

    held_out: float = 0.0


OF_DATASET: dict[str, type] = {
    "digit": DigitSettings, "folder": FolderSettings, "rsna": MedAdSettings, "vindr": MedAdSettings,
    "brain": MedAdSettings, "lag": MedAdSettings,
}  # fmt: skip


@functools.cache
def with_dataset(cls: type[BaseConfig], dataset: str) -> type[BaseConfig]:
    """A configuration's class with the settings of the dataset, and the values that it has for them itself."""
    settings = OF_DATASET.get(dataset)
    if settings is None:
        return cls
    bases = (cls,) if issubclass(cls, settings) else (settings, cls)
    own = {key: getattr(cls, key) for key in get_type_hints(settings) if hasattr(cls, key)}
    return type(cls.__name__, bases, {"dataset": dataset, **own})


def of_which_datasets(key: str) -> list[str]:
    """The datasets that a setting is of; none where it is of all."""
    return [name for name, settings in OF_DATASET.items() if key in settings.__annotations__]
