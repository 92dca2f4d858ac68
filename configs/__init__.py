"""Configurations by name: ``configs/<name>.py`` holds one class ``Config``; ``configs/medad.py`` a family of them."""

import difflib
import importlib
import re
from pathlib import Path
from typing import Any

from configs import medad
from configs.autoencoder import AeConfig, AeUConfig, MemAeConfig
from configs.base import BaseConfig, ConfigError, Stage, parse_overrides
from configs.ddad import DdadConfig
from configs.simsid import SimSidConfig
from configs.squid import SquidConfig

SETTINGS: dict[str, type[BaseConfig]] = {
    "squid": SquidConfig, "simsid": SimSidConfig, "ae": AeConfig, "aeu": AeUConfig, "memae": MemAeConfig,
    "ddad": DdadConfig,
}  # fmt: skip
"""The settings class of every method: what a saved config.json is read with."""

_NOT_ROWS = {"__init__", "base", "stages", "inpainting", "autoencoder", "medad", *SETTINGS}


def names() -> list[str]:
    """The names that --config takes."""
    files = (p.stem for p in Path(__file__).parent.glob("*.py"))
    return sorted([*(name for name in files if name not in _NOT_ROWS), *medad.ROWS])


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
    return medad.ROWS.get(stem) or importlib.import_module(f"configs.{stem}").Config


def build(name: str, overrides: list[str] = ()) -> BaseConfig:
    """The configuration ``name`` with ``key=value`` overrides."""
    cls = config_class(name)
    return cls(**parse_overrides(cls, list(overrides)))


def override(config: BaseConfig, overrides: list[str]) -> BaseConfig:
    """A saved configuration with ``key=value`` overrides."""
    return type(config)(**{**config.as_dict(), **parse_overrides(type(config), overrides)})


# what the first version did without saying so: its config.json files lack these keys
OLDER = {"resize": "bilinear", "digit_crop": "clamped"}


def from_dict(values: dict[str, Any]) -> BaseConfig:
    """A configuration from saved values, all of them as they were saved."""
    method = values.get("method")
    if method not in SETTINGS:
        raise ConfigError(f"Unknown method {method!r}; known are {', '.join(SETTINGS)}.")
    return SETTINGS[method](**OLDER | values)


__all__ = [
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
]
