"""Training batches whose order and augmentation are functions of (seed, epoch)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from configs import BaseConfig, Stage
from dataloader.augment import affine, draw_affine
from dataloader.base import Dataset
from dataloader.images import DataError
from system import distributed
from system.device import resident, to_float
from system.seeding import generator


@dataclass
class Batch:
    """What an iteration trains on; of several processes, this one's part of it."""

    images: torch.Tensor  # (B, 1, H, W) in [0, 1]
    indices: torch.Tensor  # (B,) int64: which of the stage's images these are
    step: int = 0  # of its epoch, from 0
    share: float = 1.0  # of the images of all processes, B

    @classmethod
    def of(cls, images: torch.Tensor, step: int = 0) -> "Batch":
        """A whole batch of these images, counted from 0."""
        return cls(images, torch.arange(len(images)), step)


class TrainLoader:
    """The batches of an epoch, from any of them on."""

    def __init__(self, dataset: Dataset, config: BaseConfig, device: torch.device):
        self.dataset = dataset
        self.config = config
        self.device = device

    def epoch(self, epoch: int, stage: Stage | None = None) -> "Epoch":
        """The epoch's images in memory, its order and its augmentation; ``stage`` is the first unless given.

        Raises:
            DataError: where the stage has no whole batch of images and trains on no other, or a batch has too few
                images for the processes that share it.
        """
        stage = stage or self.config.stages()[0]
        unlabeled = self.dataset.unlabeled_images() if stage.unlabeled else None
        images = self.dataset.training_images(0 if stage.fixed else epoch)
        if unlabeled is not None:
            images = torch.cat([images, unlabeled])
        if len(images) < stage.smallest_batch:
            fitting = f"Give --set {stage.batch_key}={len(images)}, or add" if len(images) >= stage.least else "Add"
            raise DataError(
                f"{self.dataset.root}: the stage {stage.name} trains on {len(images)} images, fewer than its batch of "
                f"{stage.smallest_batch}. {fitting} images."
            )
        batches = ()
        if stage.batches != 0:
            orders = [self._order(len(images), epoch, k, stage) for k in range(stage.orders)]
            batches = batches_of(orders, stage)[: self.config.max_batches or None]
        self._check_shares(batches, stage)
        return Epoch(images, batches, self._augmentation(len(images), epoch), self.device, stage.orders)

    def _order(self, count: int, epoch: int, number: int, stage: Stage) -> torch.Tensor:
        """The images' order in an epoch, or that of the several passes that the stage's epochs are made of."""
        purpose = ("order", epoch, *([number] if number else []))
        if stage.batches is None:
            return torch.randperm(count, generator=generator(self.config.seed, *purpose))
        wanted, rng = stage.batches * stage.batch_size, generator(self.config.seed, *purpose)
        passes = [torch.randperm(count, generator=rng) for _ in range(-(-wanted // count))]
        return torch.cat(passes)[:wanted]

    def _check_shares(self, batches: tuple[torch.Tensor, ...], stage: Stage) -> None:
        processes = distributed.world_size()
        images = min(map(len, batches), default=0) // stage.orders
        if processes > 1 and images < stage.least * processes:
            raise DataError(
                f"A batch of the stage {stage.name} has {images} images, and each of the {processes} processes needs "
                f"at least {stage.least} of it. Start fewer processes, or choose a batch size that leaves more in "
                f"every batch, the last one too."
            )

    def in_order(self, epoch: int, count: int | None = None) -> Iterator[torch.Tensor]:
        """The first ``count`` training images (all of them) in the dataset's order, in batches (B, 1, H, W).

        They are made as in that epoch, and augmented by a draw for so many images: for estimates of score or batch-norm
        statistics.
        """
        images = self.dataset.training_images(epoch)[:count]
        return self._shown(images, self._augmentation(len(images), epoch))

    def training_size(self) -> int:
        """How many training images there are."""
        return len(self.dataset.training_images(0))

    def unaugmented(self) -> Iterator[torch.Tensor]:
        """All training images in the dataset's order, as they are in the first epoch, in batches (B, 1, H, W)."""
        return self._shown(self.dataset.training_images(0), None)

    def _shown(self, images: torch.Tensor, augmentation: torch.Tensor | None) -> Iterator[torch.Tensor]:
        batches = torch.arange(len(images)).split(self.config.batch_size)
        shown = Epoch(images, batches, augmentation, self.device)
        return (shown.augmented(index) for index in batches)

    def _augmentation(self, count: int, epoch: int) -> torch.Tensor | None:
        return draw_affine(count, generator(self.config.seed, "augment", epoch)) if self.config.augment else None


def batches_of(orders: list[torch.Tensor], stage: Stage) -> tuple[torch.Tensor, ...]:
    """Orders (N,) of one stage → its batches, each a batch of every order, one after another: (orders · B,)."""
    batches = tuple(
        torch.cat(parts) for parts in zip(*(order.split(stage.batch_size) for order in orders), strict=True)
    )
    left_over = len(orders[0]) % stage.batch_size
    return batches[:-1] if 0 < left_over < stage.smallest_batch else batches


class Epoch:
    """One pass over the images. ``len`` is its number of batches."""

    def __init__(self, images, indices, augmentation, device: torch.device, orders: int = 1):
        self.images = resident(images, device)  # (N, H, W) uint8
        self.indices = indices  # one tensor of image indices per batch
        # (N, 3) of augment.affine, or None; where the images are, so that no batch waits for its copy
        self.augmentation = None if augmentation is None else augmentation.to(self.images.device)
        self.device = device
        self.orders = orders  # as many parts that each batch has, one after another

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """From batch ``start`` on; of several processes each gets its share of every part of the batch."""
        for step, index in enumerate(self.indices[start:], start):
            own = torch.cat([distributed.shard(part) for part in index.chunk(self.orders)])
            yield Batch(self.augmented(own), own, step, len(own) / len(index))

    def augmented(self, index: torch.Tensor) -> torch.Tensor:
        """The images of these indices (B,) as this epoch shows them: (B, 1, H, W) float in [0, 1]."""
        index = index.to(self.images.device, non_blocking=True)
        batch = to_float(self.images[index], self.device)
        if self.augmentation is None:
            return batch
        return affine(batch, self.augmentation[index].to(self.device))
