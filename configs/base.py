"""The base configuration: plain typed values in classes that inherit, checked when they are built.

A configuration is a class whose annotated attributes are its keys. A published row inherits from its method's
settings class and overrides values. Overrides are typed and checked; importing a configuration reads nothing.
"""

import ast
import difflib
import math
import types
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from configs.stages import Stage

LARGEST = 8192  # side of an image in pixels: a larger one is a slip, and would fill the memory


class ConfigError(Exception):
    """An unknown key, a value of the wrong type or values that do not go together."""


class BaseConfig:
    """Settings every method has. Sizes are pixels, learning rates per step, fractions in [0, 1]."""

    method: str = ""
    main_score: str = ""  # the image score that validation and tables go by; "" is the method's first

    dataset: str = "digit"
    data_root: str = ""  # "" is data/<dataset>; --data-root and $ANOMALY_DATA_ROOT come first
    image_size: int = 128
    resize: Literal["bicubic", "bilinear"] = "bicubic"  # Pillow's antialiased filter that files are read with
    # an image that is no square: stretched to one, put between black margins, or its middle alone
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    augment: bool = True  # training images: translate ±5 %, scale 0.95–1.05
    train_normal_fraction: float = 1.0  # below 1, so much of the training images is normal and the rest anomalous
    contamination: Literal["drawn", "first"] = "drawn"  # these are drawn by the seed, or the first of the listing

    seed: int = 0
    epochs: int = 400
    batch_size: int = 16
    max_batches: int = 0  # batches of an epoch; 0 is all
    learning_rate: float = 1e-4
    lr_schedule: Literal["steps", "cosine"] = "steps"
    lr_steps: tuple[int, ...] = (200, 300)  # epochs after which the rate is multiplied by lr_factor
    lr_factor: float = 0.2
    cosine_epochs: int = 300  # half a period of the cosine
    cosine_min: float = 1e-5

    # bf16: the networks' convolutions and products in bfloat16, their weights in float32; tf32: CUDA's shorter float32
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    sync_batch_norm: bool = False  # several processes: batch norm over all their images, not each process's own

    average_decay: float = 0.0  # of the weights' exponential moving average, per step; 0 keeps none
    record_scores: bool = False  # keep all validation's and test's scores of every validated epoch; none decides

    save_seconds: float = 60.0  # between two saves of last.pt; it is also saved at the end and on a signal
    val_every: int = 1  # epochs from one validation to the next; the last epoch always validates
    best_rule: Literal["tolerance", "strict", "last"] = "strict"  # last: the final epoch's weights, whatever its AUC
    best_tolerance: float = 0.5  # percentage points of AUC below the best that still replace best.pt
    # whose weights are evaluated unless --checkpoint says otherwise (experiments/folder.py); averaged: the last epoch's
    checkpoint: Literal["best", "last", "averaged", "best_averaged"] = "best"

    def __init__(self, **overrides: Any):
        hints = self.keys()
        for cls in reversed(type(self).__mro__[:-2]):  # a misspelt key in a configuration file
            for key in vars(cls):
                if not key.startswith("_") and not _is_behaviour(vars(cls)[key]):
                    _known_key(key, hints)
        for key in overrides:
            _known_key(key, hints)
        for key, hint in hints.items():
            setattr(self, key, _checked(key, overrides.get(key, getattr(type(self), key)), hint))
        self.check()

    @classmethod
    def keys(cls) -> dict[str, Any]:
        """Every key with its type, base class first."""
        return get_type_hints(cls)

    def check(self) -> None:
        """Raise a ConfigError where values do not go together; methods add their own checks."""
        self.check_at_least(1, "image_size", "epochs", "batch_size", "val_every", "cosine_epochs")
        self.check_at_least(0, "max_batches", "best_tolerance", "learning_rate", "seed", "save_seconds")
        self.check_at_least(0, "lr_factor", "cosine_min")
        if min(self.lr_steps, default=1) < 1:
            raise ConfigError(f"lr_steps = {','.join(map(str, self.lr_steps))}: must be at least 1 each.")
        if self.image_size > LARGEST:
            raise ConfigError(f"image_size = {self.image_size}: must be at most {LARGEST}.")
        self.check_share("train_normal_fraction")
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average_decay = {self.average_decay}: must lie in [0, 1).")
        if "averaged" in self.checkpoint and not self.average_decay:
            raise ConfigError(f"checkpoint = {self.checkpoint}: no weights are averaged. Give average_decay=0.999 too.")

    def stages(self) -> tuple[Stage, ...]:
        """The phases of training, one after another."""
        return (Stage("train", self.epochs, self.batch_size),)

    def unlabeled(self) -> tuple[int, int]:
        """How many normal and how many anomalous images of unknown label are trained on beside the normal ones."""
        return 0, 0

    def check_at_least(self, least: int, *keys: str) -> None:
        """Raise a ConfigError for the first of these keys with a smaller value."""
        for key in keys:
            if getattr(self, key) < least:
                raise ConfigError(f"{key} = {getattr(self, key)}: must be at least {least}.")

    def check_share(self, key: str) -> None:
        """Raise a ConfigError for a value outside (0, 1]."""
        if not 0 < getattr(self, key) <= 1:
            raise ConfigError(f"{key} = {getattr(self, key)}: must lie in (0, 1].")

    def as_dict(self) -> dict[str, Any]:
        """The values as plain data, ready for JSON."""
        return {k: list(v) if isinstance(v := getattr(self, k), tuple) else v for k in self.keys()}


def parse_overrides(config_class: type[BaseConfig], pairs: list[str]) -> dict[str, Any]:
    """``key=value`` strings of the command line → typed values.

    Raises:
        ConfigError: for a pair without ``=``, an unknown key or a value that is not of the key's type.
    """
    hints = config_class.keys()
    values = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise ConfigError(f"--set {pair}: write key=value.")
        _known_key(key, hints)
        if key == "method" and text != config_class.method:
            raise ConfigError(f"method = {text!r}: is the configuration's. Choose another one: --config {text}.")
        values[key] = _parse(key, text, hints[key])
    return values


def check_with(check: Callable[..., None], *values) -> None:
    """Turn the ValueError of a network's own check into a ConfigError."""
    try:
        check(*values)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _is_behaviour(value) -> bool:
    return callable(value) or isinstance(value, (classmethod, staticmethod, property))


def _known_key(key: str, hints: dict) -> None:
    if key not in hints:
        near = difflib.get_close_matches(key, hints, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(hints))}."
        raise ConfigError(f"Unknown configuration key {key!r}{hint}")


def _parse(key: str, text: str, hint) -> Any:
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return tuple(_parse(key, part.strip(), inner) for part in text.strip("()[]").split(",") if part.strip())
    if hint is str or get_origin(hint) is Literal:
        return text
    if hint is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # not a value of this type; the check names the key


def _checked(key: str, value, hint) -> Any:
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return tuple(_checked(key, v, get_args(hint)[0]) for v in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            near = difflib.get_close_matches(str(value), get_args(hint), n=1)
            ending = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{key} = {value!r}: must be one of {', '.join(get_args(hint))}.{ending}")
        return value
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{key} = {str(value)[:20]}…: is too large a number.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} = {value}: must be a finite number.")
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    name = hint.__name__ if isinstance(hint, (type, types.GenericAlias)) and get_origin(hint) is None else str(hint)
    raise ConfigError(f"{key} = {value!r}: must be of type {name}.")
