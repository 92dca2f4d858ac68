"""Repeating a stage of an experiment in a new one, from what its earlier stages trained: main.py --from ID --stage S.

The new experiment is the old one as it was when the stage began: its earlier networks, and those of the stage and the
later ones as the seed starts them. With the same settings it ends as the old one did.
"""

import re

import torch

from configs import BaseConfig
from experiments.folder import Experiment, ExperimentError, reached
from experiments.log import log_until
from experiments.settings import FREE, differences
from methods import Method
from system.files import write_text
from training.loop import Trainer


def check_repeatable(source: Experiment, saved: BaseConfig, wanted: BaseConfig, stage: str) -> None:
    """Raise an ExperimentError for a stage that is not there, or changed settings that concern more than it."""
    names = [each.name for each in saved.stages()]
    if stage not in names:
        raise ExperimentError(f"--stage {stage}: the stages of {source.folder} are {', '.join(names)}.")
    changes = differences(saved, wanted, ignore=(*FREE, "main_score"))
    others = [line for line in changes if not line.startswith(f"{stage}_")]
    if others:
        raise ExperimentError(
            f"--from {source.name} --stage {stage} changes settings that begin with {stage}_ alone, and not\n  "
            + "\n  ".join(others)
        )


def take_over(trainer: Trainer, source: Experiment, stage: str) -> None:
    """Give ``trainer``'s new experiment what ``source`` had when ``stage`` began: last.pt, metrics.jsonl and log.txt.

    Raises:
        ExperimentError: where ``source`` has not finished the stages before, or its weights do not fit.
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
    try:
        method.load_state_dict(saved["method"] | untrained_entries(method, names[len(before) :]))
    except RuntimeError as error:
        raise ExperimentError(f"{source.folder}: the weights do not fit the settings ({error}).") from error

    trainer.rows = [row for row in source.read_metrics() if row["epoch"] <= epochs]
    trainer.epoch = epochs
    trainer.global_step = sum(each.epochs * len(trainer.loader.epoch(0, each)) for each in before)
    trainer.start_stage()
    log = log_until(source, epochs)
    trainer.seconds = sum(float(seconds) for seconds in re.findall(r"  (\d+\.\d) s(?:,|$)", log, re.MULTILINE))
    write_text(trainer.experiment.path("log.txt"), f"{log}the stage {stage} again, from {source.name}\n")
    trainer.experiment.write_metrics(trainer.rows)
    trainer.save_last()


def untrained_entries(method: Method, stages: list[str]) -> dict[str, torch.Tensor]:
    """The state dict's entries, as they are now, of the networks that these stages train."""
    networks = [network for stage in stages for network in method.trained_in(stage)]
    names = [name for name, module in method.named_modules() if any(module is network for network in networks)]
    prefixes = tuple(f"{name}." if name else "" for name in names)
    return {entry: value for entry, value in method.state_dict().items() if entry.startswith(prefixes)}
