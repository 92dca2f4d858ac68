"""Scoring images by the thousand, and the table of it."""

from dataclasses import dataclass, field, fields

import numpy as np
import torch

from dataloader import Split
from evaluation import metrics
from methods import Method
from system import distributed
from system.device import to_float, to_uint8
from system.progress import watched

SCORE_BATCH = 32  # images; scores do not depend on it
SCORE_PIXELS_ON_CPU = 2**17  # 8 images of 128 × 128: more take more memory and hardly less time
FEWEST_ON_CPU = 8  # images, however large: each batch reads all weights


@dataclass
class Scored:
    """Arrays of what :class:`methods.Scores` holds, for N images."""

    image: dict[str, np.ndarray]  # name → (N,) float64 ranking scores
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # name → (N,)
    shown: dict[str, np.ndarray] = field(default_factory=dict)  # name → (N,)
    maps: dict[str, np.ndarray] = field(default_factory=dict)  # image score → (N, H, W), where asked for
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # reconstruction → (N, H, W) uint8, where asked for

    def selected(self, chosen: np.ndarray) -> "Scored":
        """Those of the images (indices, or N bools) alone."""
        parts = (getattr(self, part.name) for part in fields(Scored))
        return Scored(*({name: values[chosen] for name, values in part.items()} for part in parts))


def joined(parts: list[Scored]) -> Scored:
    """The scores of several lots of images as those of one."""

    def whole(name: str) -> dict[str, np.ndarray]:
        return {key: np.concatenate([getattr(part, name)[key] for part in parts]) for key in getattr(parts[0], name)}

    return Scored(*(whole(field.name) for field in fields(Scored)))


def score_batches(images: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    """(N, H, W) images in batches as large as the device has a use for."""
    if device.type != "cpu":
        return images.split(SCORE_BATCH)
    fitting = SCORE_PIXELS_ON_CPU // max(images.shape[1:].numel(), 1)
    return images.split(min(max(fitting, FEWEST_ON_CPU), SCORE_BATCH))


def score_images(
    method: Method, images: torch.Tensor, device: torch.device, what: str, keep_maps: bool = False,
    keep_pictures: bool = False,
) -> Scored:  # fmt: skip
    """Score (N, H, W) uint8 images in batches, with a progress bar on a terminal.

    Several processes score whole batches each, so that every score is computed as a single process would; all get all.
    """
    found = []
    for batch in watched(distributed.shard(score_batches(images, device)), what):
        scores = method.score(to_float(batch, device), all_maps=keep_maps)
        maps = {name: pixels.squeeze(1).cpu() for name, pixels in scores.maps.items()} if keep_maps else {}
        x_hat = scores.reconstruction if keep_pictures else None
        pictures = {} if x_hat is None else {"reconstruction": to_uint8(x_hat)}
        found.append((scores.image, scores.columns, scores.shown, maps, pictures))
    found = distributed.all_gather_objects(found)
    return Scored(
        *(
            {name: torch.cat([batch[part][name] for batch in found]).cpu().numpy() for name in found[0][part]}
            for part in range(len(found[0]))
        )
    )


def selected(split: Split, scored: Scored, chosen: np.ndarray) -> tuple[Split, Scored]:
    """A split and its scores less the images where ``chosen`` (N,) bool is False."""
    index = torch.from_numpy(chosen.nonzero()[0])

    def entries(values: list | None) -> list | None:
        return values and [values[i] for i in index]

    part = Split(
        split.images[index], split.labels[index], entries(split.kinds), entries(split.ids),
        None if split.masks is None else split.masks[index], entries(split.diseases), entries(split.persons),
    )  # fmt: skip
    return part, scored.selected(chosen)


def validation_auc(labels: np.ndarray, scored: Scored) -> dict[str, float]:
    """The AUC of every image score. Raises MetricError."""
    for scores in scored.image.values():
        metrics.check(labels, scores, "the validation images")
    return {name: metrics.auc(labels, scores) for name, scores in scored.image.items()}


def thresholds(labels: np.ndarray, scored: Scored) -> dict[str, float]:
    """For every image score the threshold of the highest accuracy on these (validation) labels."""
    return {name: metrics.oracle_threshold(labels, scores) for name, scores in scored.image.items()}
