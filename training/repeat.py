"""Repeating a stage of an experiment, and those after it, in a new one: main.py --from ID --stage S.

The new experiment is the old one as it was when the stage began: its earlier networks, and those of the stage and the
later ones as the seed starts them. It ends as it would have without the old one; with the same settings, as that did.
"""

import re

import torch

from configs import BaseConfig, Stage
from configs.stages import stage_of
from experiments.folder import Experiment, ExperimentError, reached
from experiments.log import log_until
from experiments.settings import FREE, differences
from methods import Method
from system.files import write_text
from training.loop import Trainer


def check_repeatable(source: Experiment, saved: BaseConfig, wanted: BaseConfig, stage: str) -> None:
    """Raise an ExperimentError for a stage that is not there, or changed settings that concern earlier ones."""
    names = [each.name for each in wanted.stages()]
    if stage not in names:
        raise ExperimentError(f"--stage {stage}: the stages of {source.folder} are {', '.join(names)}.")
    if others := earlier_changes(saved, wanted, stage):
        own = []
        for each in from_stage(wanted, stage):
            own += each.settings
            own += [f"{each.name}_…"] * any(key.startswith(f"{each.name}_") for key in wanted.as_dict())
        raise ExperimentError(
            f"--from {source.name} --stage {stage} can change {', '.join(own)} alone, and not\n  " + "\n  ".join(others)
        )


def shared_until(saved: BaseConfig, wanted: BaseConfig) -> str | None:
    """The last stage from which on ``saved`` is to be repeated to become ``wanted``; None where that is all of it."""
    if saved.precision != wanted.precision:
        return None
    later = [stage.name for stage in wanted.stages()[1:]]
    return next((name for name in reversed(later) if not earlier_changes(saved, wanted, name)), None)


def earlier_changes(saved: BaseConfig, wanted: BaseConfig, stage: str) -> list[str]:
    """The settings in which ``wanted`` differs that concern stages before this one, as lines."""
    later = from_stage(saved, stage) + from_stage(wanted, stage)
    own = {setting for each in later for setting in each.settings}
    prefixes = tuple(f"{each.name}_" for each in later)
    changes = differences(saved, wanted, ignore=(*FREE, "main_score", *own))
    return [line for line in changes if not line.startswith(prefixes)]


def from_stage(config: BaseConfig, name: str) -> tuple[Stage, ...]:
    """The stage of that name and those after it; none where it is not there."""
    names = [stage.name for stage in config.stages()]
    return config.stages()[names.index(name) :] if name in names else ()


def again(source: Experiment, stage: str) -> str:
    """The last line of a log.txt that is taken over."""
    return f"the stage {stage} again, from {source.name}\n"


def begun(experiment: Experiment, source: Experiment, stage: str) -> bool:
    """Whether it was cut while :func:`save` wrote it, so that nothing of its own can be lost."""
    log = experiment.path("log.txt")
    return log.exists() and log.read_text(encoding="utf-8", errors="replace").endswith(again(source, stage))


def take_over(trainer: Trainer, source: Experiment, stage: str) -> str:
    """Bring ``trainer`` to where ``source`` was when ``stage`` began; returns its log.txt, for :func:`save`.

    Raises:
        ExperimentError: where ``source`` has not finished the stages before, or had them in another order, or its
            weights do not fit.
    """
    method, names = trainer.method, [each.name for each in trainer.stages]
    before = trainer.stages[: names.index(stage)]
    epochs = sum(each.epochs for each in before)
    saved = source.load_checkpoint("last.pt" if source.path("last.pt").exists() else "best.pt")
    if reached(saved) < epochs:
        raise ExperimentError(
            f"{source.folder} has trained {reached(saved)} of the {epochs} epochs before the stage {stage}. "
            f"Train those first: python main.py --exp {source.name}"
        )
    rows = [row for row in source.read_metrics() if row["epoch"] <= epochs]
    if any(row.get("stage", before[0].name) != stage_of(before, row["epoch"] - 1).name for row in rows):
        raise ExperimentError(f"{source.folder}: an older version trained its stages in another order. Train it anew.")
    own = method.state_dict()  # with the frozen parts, which last.pt is without
    taken = {entry: value for entry, value in saved["method"].items() if entry in own}
    try:
        method.load_state_dict(own | taken | untrained_entries(method, names[len(before) :]))
    except RuntimeError as error:
        raise ExperimentError(f"{source.folder}: the weights do not fit the settings ({error}).") from error

    # where its last stage was one of these, it was validated, with the scores of that
    trainer.rows = [{key: value for key, value in row.items() if not key.startswith("val_")} for row in rows]
    trainer.epoch = epochs
    trainer.global_step = sum(each.epochs * len(trainer.loader.epoch(0, each)) for each in before)
    trainer.start_stage()
    log = log_until(source, epochs)
    trainer.seconds = sum(float(seconds) for seconds in re.findall(r"  (\d+\.\d) s(?:,|$)", log, re.MULTILINE))
    return log + again(source, stage)


def save(trainer: Trainer, log: str) -> None:
    """What was taken over: log.txt, metrics.jsonl and, when those are there, last.pt."""
    write_text(trainer.experiment.path("log.txt"), log)
    trainer.experiment.write_metrics(trainer.rows)
    trainer.save_last()


def untrained_entries(method: Method, stages: list[str]) -> dict[str, torch.Tensor]:
    """The state dict's entries, as they are now, of the networks that these stages train."""
    networks = [network for stage in stages for network in method.trained_in(stage)]
    names = [name for name, module in method.named_modules() if any(module is network for network in networks)]
    prefixes = tuple(f"{name}." if name else "" for name in names)
    return {entry: value for entry, value in method.state_dict().items() if entry.startswith(prefixes)}
