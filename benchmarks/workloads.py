"""What is measured of SQUID: iterations, scoring and a whole epoch, in our arrangement and in the plain one.

Images are random with a fixed seed; what is computed does not depend on their content.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import configs
from benchmarks.measure import Work
from benchmarks.plain_squid import PlainSquid
from configs import BaseConfig
from dataloader import Dataset, Split
from dataloader.loader import Batch, TrainLoader
from evaluation import metrics
from evaluation.scoring import score_images, thresholds, validation_auc
from methods import METHODS
from system.device import to_float
from system.seeding import generator, seed_everything
from system.tuning import keep_memory

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


class Ours:
    """A method as training.loop uses it."""

    def __init__(self, method):
        self.method = method
        self.device = next(method.parameters()).device
        self.training_step, self.end_epoch, self.fit = method.training_step, method.end_epoch, method.fit

    def score(self, images: torch.Tensor):
        return score_images(self.method, images, self.device, "scoring")

    def metrics(self, labels: np.ndarray, scored) -> dict[str, float]:
        name = self.method.main_score
        found = metrics.at_threshold(labels, scored.image[name], thresholds(labels, scored)[name])
        return {"auc": validation_auc(labels, scored)[name], **found}


class RandomImages(Dataset):
    """Noise to train on, and a validation set half of which has a dark square."""

    def __init__(self, config: BaseConfig, counts: Counts):
        super().__init__(config, Path("."))
        self.counts = counts
        self._training = random_images(counts.training, config.image_size, "training")

    def training_images(self, epoch: int) -> torch.Tensor:
        return self._training

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


def arrange(name: str, settings: tuple[str, list[str]], device: torch.device) -> PlainSquid | Ours:
    """One of ARRANGEMENTS of a configuration with overrides; the weights are the same in all of them."""
    config = configs.build(settings[0], [*settings[1], f"precision={'bf16' if name == 'ours bf16' else 'fp32'}"])
    if name != "plain":
        keep_memory()
    seed_everything(config.seed, "weights")
    method = METHODS[config.method](config).to(device)
    method.start_stage(method.stages[0].name)
    return PlainSquid(method) if name == "plain" else Ours(method)


def training(name: str, settings: tuple[str, list[str]], device: torch.device) -> Work:
    """As many iterations as there are from one generator step to the next."""
    arrangement = arrange(name, settings, device)
    config = configs.build(*settings)
    images = to_float(random_images(config.batch_size, config.image_size, "training"), device)

    def run() -> None:
        for step in range(config.n_critic):
            arrangement.training_step(Batch.of(images, step))

    return Work(run)


def scoring(name: str, settings: tuple[str, list[str]], device: torch.device, count: int) -> Work:
    config = configs.build(*settings)
    arrangement = arrange(name, settings, device)
    images = random_images(count, config.image_size, "scoring")
    arrangement.fit(TrainLoader(RandomImages(config, Counts(4, 2, 4)), config, device))
    return Work(lambda: arrangement.score(images))


def whole_epoch(name: str, settings: tuple[str, list[str]], device: torch.device, counts: Counts) -> Work:
    """An epoch as training.loop goes through it, but for what it writes to the disk."""
    settings = (settings[0], [*settings[1], f"statistics_images={counts.statistics}"])
    config = configs.build(*settings)
    arrangement = arrange(name, settings, device)
    dataset = RandomImages(config, counts)
    loader, validation = TrainLoader(dataset, config, device), dataset.split("val")
    few = Counts(config.n_critic * config.batch_size, 2, 2)
    first = TrainLoader(RandomImages(config, few), config, device)
    return Work(
        lambda: epoch(arrangement, loader, validation),
        warm_up=lambda: epoch(arrangement, first, validation),
    )


def epoch(arrangement: PlainSquid | Ours, loader: TrainLoader, validation: Split) -> dict[str, float]:
    """Training, the schedule, score statistics, validation → its metrics."""
    sums: dict[str, float | torch.Tensor] = {}
    for batch in loader.epoch(0).batches():
        seed_everything(0, "step", batch.step)
        for loss, value in arrangement.training_step(batch).items():
            sums[loss] = sums.get(loss, 0) + value
    arrangement.end_epoch()
    arrangement.fit(loader)
    return arrangement.metrics(validation.labels.numpy(), arrangement.score(validation.images))


def machine_limit(what: str, device: torch.device) -> Work:
    """What the machine can do at best: ``product`` or ``convolution``, in ``fp32`` or ``bf16``."""
    kind, precision = what.split()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if kind == "product":
        a, b = (torch.rand(2048, 2048, device=device).to(dtype) for _ in range(2))
        return Work(lambda: a @ b)
    x = torch.rand(16, 64, 128, 128, device=device).to(dtype)
    weight = torch.rand(64, 64, 3, 3, device=device).to(dtype)
    return Work(lambda: torch.nn.functional.conv2d(x, weight, padding=1))
