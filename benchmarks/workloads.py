"""What is measured: iterations, fitting and scoring of any method, and a whole epoch of SQUID in both arrangements.

Images are random with a fixed seed; what is computed does not depend on their content.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

import configs
from benchmarks.measure import Work
from benchmarks.plain_squid import PlainSquid
from configs import BaseConfig, Stage
from dataloader import Dataset, Split
from dataloader.loader import TrainLoader
from evaluation import metrics
from evaluation.scoring import score_images, thresholds, validation_auc
from methods import METHODS, Method
from system.seeding import generator, seed_everything
from system.tuning import choose_tf32, keep_memory

Settings = tuple[str, list[str]]  # a configuration's name, and key=value overrides
ARRANGEMENTS = ("plain", "ours", "ours bf16")


class Counts(NamedTuple):
    """Images of an epoch; by default in ZhangLab's proportions of 1,249 training and 200 validation images and the
    201 training images of the score statistics."""

    training: int
    validation: int
    statistics: int

    @classmethod
    def like_zhang(cls, training: int) -> "Counts":
        return cls(training, 2 * max(round(training * 100 / 1249), 1), max(round(training * 201 / 1249), 2))


class RandomImages(Dataset):
    """Noise to train on, and a validation set half of which has a dark square."""

    def __init__(self, config: BaseConfig, counts: Counts):
        super().__init__(config, Path("."))
        self.counts = counts
        self._training = random_images(counts.training, config.image_size, "training")

    def training_images(self, epoch: int) -> torch.Tensor:
        return self._training

    def unlabeled_images(self) -> torch.Tensor:
        return self._training[:0]

    def split(self, name: str) -> Split:
        count, size = self.counts.validation, self.config.image_size
        images = random_images(count, size, name)
        labels = torch.arange(count) % 2
        images[labels == 1, : size // 2, : size // 2] //= 4
        return Split(images, labels, ["noise"] * count, [str(i) for i in range(count)])

    def fingerprint(self) -> str:
        return str(self.counts)

    def training_in_words(self) -> str:
        return str(self.counts.training)


def random_images(count: int, size: int, purpose: str) -> torch.Tensor:
    """(count, size, size) uint8."""
    return torch.randint(0, 256, (count, size, size), dtype=torch.uint8, generator=generator(0, "benchmark", purpose))


def arrange(name: str, settings: Settings, device: torch.device) -> Method:
    """A configuration's method in one of ARRANGEMENTS; the weights are the same in all of them."""
    config = configs.build(settings[0], settings[1])
    if name == "ours bf16":
        config = configs.override(config, ["precision=bf16"])
    choose_tf32(config.precision)
    seed_everything(config.seed, "weights")
    method = (PlainSquid if name == "plain" else METHODS[config.method])(config).to(device)
    method.start_stage(method.stages[0].name)
    return method


def prepare(name: str, settings: Settings, device: torch.device) -> Method:
    """:func:`arrange` in a process that is tuned as commands are, but for the plain arrangement."""
    if name != "plain":
        keep_memory()
    return arrange(name, settings, device)


def scorer(method: Method, device: torch.device) -> Callable[[torch.Tensor], object]:
    """Images (N, S, S) uint8 → their scores, as evaluation makes them."""
    if isinstance(method, PlainSquid):
        return method.scored
    return lambda images: score_images(method, images, device, "scoring")


def training(name: str, settings: Settings, device: torch.device, stage_name: str = "", batches: int = 0) -> Work:
    """So many batches of a stage (the first); by default as many as from one generator step of SQUID to the next."""
    method = prepare(name, settings, device)
    config = method.config
    stage = next(stage for stage in method.stages if stage_name in ("", stage.name))
    batches = batches or config.n_critic
    method.start_stage(stage.name)
    dataset = RandomImages(config, Counts(batches * stage.batch_size, 2, 2))
    loader = TrainLoader(dataset, config, device)
    method.start_epoch(loader, 0)
    few = list(loader.epoch(0, stage).batches())[:batches]

    def run() -> None:
        for batch in few:
            method.training_step(batch)

    return Work(run)


def fitting(name: str, settings: Settings, device: torch.device, count: int) -> Work:
    method = prepare(name, settings, device)
    loader = TrainLoader(RandomImages(method.config, Counts(count, 2, 2)), method.config, device)
    return Work(lambda: method.fit(loader))


def scoring(name: str, settings: Settings, device: torch.device, count: int, fitted: int = 4) -> Work:
    method = prepare(name, settings, device)
    method.fit(TrainLoader(RandomImages(method.config, Counts(fitted, 2, 4)), method.config, device))
    images = random_images(count, method.config.image_size, "scoring")
    score = scorer(method, device)
    return Work(lambda: score(images))


def whole_epoch(name: str, settings: Settings, device: torch.device, counts: Counts) -> Work:
    """An epoch as training.loop goes through it, but for what it writes to the disk."""
    method = prepare(name, (settings[0], [*settings[1], f"statistics_images={counts.statistics}"]), device)
    config = method.config
    dataset = RandomImages(config, counts)
    loader, validation = TrainLoader(dataset, config, device), dataset.split("val")
    few = Counts(config.n_critic * config.batch_size, 2, 2)
    first = TrainLoader(RandomImages(config, few), config, device)
    return Work(lambda: epoch(method, loader, validation), warm_up=lambda: epoch(method, first, validation))


def epoch(method: Method, loader: TrainLoader, validation: Split) -> dict[str, float]:
    """Training, the schedule, score statistics, validation → its metrics."""
    sums: dict[str, float | torch.Tensor] = {}
    for batch in loader.epoch(0).batches():
        seed_everything(0, "step", batch.step)
        for loss, value in method.training_step(batch).items():
            sums[loss] = sums.get(loss, 0) + value
    method.end_epoch()
    method.fit(loader)
    labels, scored = validation.labels.numpy(), scorer(method, loader.device)(validation.images)
    if isinstance(method, PlainSquid):
        return method.metrics(labels, scored)
    name = method.main_score
    found = metrics.at_threshold(labels, scored.image[name], thresholds(labels, scored)[name])
    return {"auc": validation_auc(labels, scored)[name], **found}


def stages_that_train(config: BaseConfig) -> list[Stage]:
    return [stage for stage in config.stages() if stage.batches != 0]


def machine_limit(what: str, device: torch.device) -> Work:
    """What the machine can do at best: ``product`` or ``convolution``, in ``fp32`` or ``bf16``."""
    kind, precision = what.split()
    choose_tf32(precision)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if kind == "product":
        a, b = (torch.rand(2048, 2048, device=device).to(dtype) for _ in range(2))
        return Work(lambda: a @ b)
    x = torch.rand(16, 64, 128, 128, device=device).to(dtype)
    weight = torch.rand(64, 64, 3, 3, device=device).to(dtype)
    return Work(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
