"""Configurations by name: a method's own settings (``squid``), and published rows, which are short values over them.

``configs/<row>.py`` holds one class ``Config``; ``configs/medad.py`` a family of them. A class that names its
``method`` is that method's settings.
"""

import difflib
import importlib
import re
from pathlib import Path
from typing import Any

from configs import medad
from configs.base import BaseConfig, ConfigError, parse_overrides
from configs.datasets import of_which_datasets, with_dataset
from configs.stages import Stage

_FILES = [path.stem for path in sorted(Path(__file__).parent.glob("*.py")) if path.stem != "__init__"]
_CLASSES = {
    (stem, name): value
    for stem in _FILES
    for name, value in vars(importlib.import_module(f"configs.{stem}")).items()
    if isinstance(value, type) and issubclass(value, BaseConfig) and value.__module__ == f"configs.{stem}"
}
SETTINGS: dict[str, type[BaseConfig]] = {
    vars(cls)["method"]: cls for cls in _CLASSES.values() if vars(cls).get("method")
}
"""The settings class of every method: what a saved config.json is read with."""

ROWS: dict[str, type[BaseConfig]] = {
    stem: cls for (stem, name), cls in _CLASSES.items() if name == "Config"
} | medad.ROWS
"""The published rows, and ours of the same kind."""


def names() -> list[str]:
    """The names that --config takes."""
    return sorted({*ROWS, *SETTINGS})


def name_here(name: str, method: str) -> str:
    """The name of a saved configuration; that of its method's settings where there is none such here (any more)."""
    return name if name in names() else method


def with_unlabeled() -> list[str]:
    """The methods that train on images of unknown label too."""
    return [method for method, cls in SETTINGS.items() if cls.unlabeled is not BaseConfig.unlabeled]


def canonical(name: str) -> str:
    """``zhang_best``, ``zhang_best.py`` and ``configs/zhang_best.py`` mean the same.

    Raises:
        ConfigError: for an unknown name, with the nearest one.
    """
    stem = re.sub(r"^(\./)?configs/|\.py$", "", name)
    if stem not in names():
        near = difflib.get_close_matches(stem, names(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"Unknown configuration {name!r}.{hint} Known are: {', '.join(names())}.")
    return stem


def config_class(name: str) -> type[BaseConfig]:
    """The class ``Config`` of a configuration. Raises ConfigError for an unknown name."""
    stem = canonical(name)
    return ROWS.get(stem) or SETTINGS[stem]


def build(name: str, overrides: list[str] = ()) -> BaseConfig:
    """The configuration ``name`` with ``key=value`` overrides."""
    cls = config_class(name)
    return assembled(cls, cls.dataset, {}, overrides)


def assembled(cls: type[BaseConfig], dataset: str, values: dict[str, Any], overrides: list[str]) -> BaseConfig:
    """A configuration of that class with the settings of its dataset, the overridden one's if it is."""
    for pair in overrides:
        key, _, value = pair.partition("=")
        dataset = value if key == "dataset" else dataset
    cls = with_dataset(cls, dataset)
    for pair in overrides:
        owners = of_which_datasets(key := pair.partition("=")[0])
        if owners and key not in cls.keys():  # noqa: SIM118
            raise ConfigError(
                f"{key} is a setting of dataset = {', '.join(owners)} alone, and the dataset is {dataset}. Leave it "
                "out."
            )
    return cls(**{**known(cls, values), **parse_overrides(cls, list(overrides))})


def override(config: BaseConfig, overrides: list[str]) -> BaseConfig:
    """A saved configuration with ``key=value`` overrides."""
    return assembled(SETTINGS[config.method], config.dataset, config.as_dict(), overrides)


TRIAL_BATCH = 8  # images at most


def trial(config: BaseConfig) -> list[str]:
    """Overrides with which a configuration runs from end to end in little time: an epoch of every stage, few batches,
    of few images.

    They are so many that what steps once in ``n_critic`` of them does so twice.
    """
    stages = config.stages()
    values = {stage.epochs_key: 1 for stage in stages}
    values |= {stage.batch_key: min(stage.batch_size, TRIAL_BATCH) for stage in stages}
    values["max_batches"] = 2 * getattr(config, "n_critic", 1)
    return [f"{key}={value}" for key, value in values.items()]


# what the first version did without saying so: its config.json files lack these keys
OLDER = {"resize": "bilinear", "digit_crop": "clamped"}
# settings that every configuration had, and now those alone that they concern
MOVED = ("extra_data", "anomaly_rate")


def known(cls: type[BaseConfig], values: dict[str, Any]) -> dict[str, Any]:
    """Values less those of :data:`MOVED` and of other datasets that the class has no place for."""
    settings = cls.keys()
    return {
        key: value for key, value in values.items() if key in settings or not (key in MOVED or of_which_datasets(key))
    }


def from_dict(values: dict[str, Any]) -> BaseConfig:
    """A configuration from saved values, all of them as they were saved."""
    method = values.get("method")
    if method not in SETTINGS:
        raise ConfigError(f"Unknown method {method!r}; known are {', '.join(SETTINGS)}.")
    cls = with_dataset(SETTINGS[method], values.get("dataset", ""))
    return cls(**known(cls, OLDER | values))


__all__ = [
    "ROWS",
    "SETTINGS",
    "BaseConfig",
    "ConfigError",
    "Stage",
    "build",
    "canonical",
    "config_class",
    "from_dict",
    "names",
    "override",
    "trial",
    "with_unlabeled",
]
