"""Whether our arrangement of SQUID and the plain one of the same weights give the same numbers."""

import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.plain_squid import PlainSquid
from benchmarks.workloads import Settings, arrange, random_images
from dataloader.loader import Batch
from evaluation import metrics
from methods.squid import Squid
from system.device import to_float

ITERATIONS = 4
IMAGES = 4
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


class Difference(NamedTuple):
    """The largest difference between two arrangements, relative to the largest value."""

    precision: str
    what: str
    largest: float
    tolerance: float | None  # None: only reported

    @property
    def too_large(self) -> bool:
        return self.tolerance is not None and not self.largest <= self.tolerance


def differences(settings: Settings, device: torch.device) -> list[Difference]:
    """Losses of some iterations from one seed, weights after them, logits, metrics; of bfloat16 the logits.

    All shortcut masks are 1: both draw them alike, but a difference in the order of draws is none of the numbers.
    """
    settings = (settings[0], [*settings[1], "mask_ratio=1.0", "dropout=0.0"])
    found = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 has the mantissa of a half
        for dtype in (torch.float64, torch.float32):
            found += compared(settings, device, dtype)
    plain, bf16 = (arrange(name, settings, device) for name in ("plain", "ours bf16"))
    images = check_images(bf16.config, device, torch.float32, "scored")
    apart = relative(logits(bf16, images), logits(plain, images))
    return [*found, Difference("bf16", "logits before training", apart, None)]


def compared(settings: Settings, device: torch.device, dtype: torch.dtype) -> list[Difference]:
    ours, plain = (arrange(name, settings, device).to(dtype) for name in ("ours", "plain"))
    config = ours.config
    images = check_images(config, device, dtype, "scored")
    found = {"logits before training": relative(logits(ours, images), logits(plain, images))}
    loader = SimpleNamespace(in_order=lambda epoch, count: images.split(3))
    for method in (ours, plain):
        method.fit(loader)
    statistics = [np.array([float(method.mu), float(method.sigma)]) for method in (ours, plain)]
    found["mu and sigma"] = relative(*statistics)
    found["metrics of the same scores"] = metrics_apart()
    losses = []
    for step in range(ITERATIONS):
        batch = Batch.of(check_images(config, device, dtype, f"step {step}"), step)
        mine, theirs = ours.training_step(batch), plain.training_step(batch)
        losses.append({name: relative(np.array(float(mine[name])), np.array(theirs[name])) for name in theirs})
    updated = {"adversarial", "generator"}  # what the discriminator says after its own update
    found["losses before the first update"] = max(v for name, v in losses[0].items() if name not in updated)
    later = {
        f"losses of {ITERATIONS} iterations": max(max(of.values()) for of in losses),
        "weights and queues after them": weights_apart(ours, plain),
        "logits after them": relative(logits(ours, images), logits(plain, images)),
    }
    # a bias before a batch norm has no gradient but rounding, which Adam turns into steps: in float32 what comes after
    # an update says little, least of all the discriminator's losses
    limits = dict.fromkeys(found, TOLERANCE[dtype]) | dict.fromkeys(later, 1e-6 if dtype == torch.float64 else None)
    name = str(dtype).removeprefix("torch.")
    return [Difference(name, what, largest, limits[what]) for what, largest in (found | later).items()]


def check_images(config, device: torch.device, dtype: torch.dtype, purpose: str) -> torch.Tensor:
    return to_float(random_images(IMAGES, config.image_size, purpose), device).to(dtype)


def logits(method: Squid, images: torch.Tensor) -> np.ndarray:
    if isinstance(method, PlainSquid):
        return np.array([method.logit(image) for image in images.split(1)])
    return method.score(images).columns["logit"].numpy()


def weights_apart(ours: Squid, plain: PlainSquid) -> float:
    """Of the student's side with its running statistics, the teacher and the discriminator.

    Of the latter two the running statistics are not compared, and no score uses them: ours runs the teacher in the
    generator's turn only, and the plain one's discriminator stays in training mode when it scores.
    """
    own = ours.state_dict()
    unread = re.compile(r"mu|sigma|(generator\.teacher|discriminator)\..*(running_|num_batches).*")
    return max(
        relative(own[name].cpu().numpy(), value.cpu().numpy())
        for name, value in plain.state_dict().items()
        if not unread.fullmatch(name)
    )


def metrics_apart() -> float:
    """Between the metrics that both make of the same 200 scores, some of them equal."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    scores = (rng.normal(size=200) + labels).round(1)
    theirs = PlainSquid.metrics(labels, scores)
    mine = metrics.at_threshold(labels, scores, metrics.oracle_threshold(labels, scores))
    mine["auc"] = metrics.auc(labels, scores)
    return max(abs(mine[name] - theirs[name]) for name in theirs)


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Of the largest expected value; where all of them are 0, as it is."""
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(actual - expected).max() / (np.abs(expected).max() or 1.0))
