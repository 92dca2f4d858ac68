"""The contract between a method and what trains and scores with it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import nn

from configs import BaseConfig, Stage
from dataloader.loader import Batch, TrainLoader
from models.features import FrozenFeatures
from system import distributed


class NonFiniteLoss(Exception):
    """A loss is NaN or infinite; raised before the update it belongs to."""


@dataclass
class Scores:
    """What a method says of B images. All image scores rank: higher = more anomalous."""

    image: dict[str, torch.Tensor]  # name → (B,) float64 on the CPU; the first is the method's own choice
    columns: dict[str, torch.Tensor] = field(default_factory=dict)  # more (B,) values for scores.csv
    shown: dict[str, torch.Tensor] = field(default_factory=dict)  # name → (B,) the score as people read it
    # image score that it explains → (B, 1, H, W) ≥ 0, higher = more anomalous
    maps: dict[str, torch.Tensor] = field(default_factory=dict)
    reconstruction: torch.Tensor | None = None  # (B, 1, H, W) in [0, 1]


class Method(nn.Module, ABC):
    """A method owns its networks and its optimizers. Images are (B, 1, H, W) in [0, 1] at every boundary, in colour
    (``config.colour``) (B, 3, H, W).
    """

    score_names: tuple[str, ...] = ()

    def __init__(self, config: BaseConfig):
        super().__init__()
        self.config = config
        self.stage = ""  # the name of the one in training
        self.untrained: tuple[str, ...] = ()  # scores that it does not give, their networks not being trained
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The phases of training; scores and validation are of the last."""
        return self.config.stages()

    def trained_in(self, stage: str) -> list[nn.Module]:
        """The networks that a stage trains."""
        return [self]

    def start_stage(self, name: str) -> None:
        """Get ready to train a stage; a method of several makes the stage's optimizers and schedulers anew."""
        self.stage = name

    def start_epoch(self, loader: TrainLoader, epoch: int) -> None:
        """Before the first iteration of every epoch, counted from 0: what is computed from the data now and then,
        such as a centre. What it finds belongs in buffers, so that a run resumed within the epoch has it.
        """

    def training_step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One iteration. Returns the losses (scalar tensors, detached). Raises NonFiniteLoss before a bad update."""
        self.train()
        return {name: loss.detach() for name, loss in self.step(batch).items()}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """One iteration in training mode, with its :meth:`update`s; returns the losses to be reported.

        A method that is only fitted has stages without batches, and no step.
        """
        raise NotImplementedError(f"{type(self).__name__} is only fitted.")

    def autocast(self) -> torch.autocast:
        """Within the ``with``, the networks compute in the configured precision."""
        device, enabled = next(self.parameters()).device, self.config.precision == "bf16"
        # training uses every weight once, and copies of all of them would take much memory in scoring
        return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def update(self, name: str, losses: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """One step of an optimizer on the sum of losses, which it returns; only what it steps gets a gradient.

        The losses are means over this process's images, so that weighted by the shares they add up to the batch's.

        Raises:
            NonFiniteLoss: before the update.
        """
        self.require_finite(**losses)
        loss = sum(losses.values())
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        (loss if batch.share == 1 else batch.share * loss).backward(inputs=parameters)
        distributed.all_reduce(p.grad for p in parameters if p.grad is not None)
        optimizer.step()
        return loss

    def end_epoch(self) -> None:
        """After every training epoch."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    def fit(self, loader: TrainLoader, epoch: int = 0) -> None:
        """What is estimated from training images in closed form, such as score statistics; default: nothing.

        ``epoch`` counts the epochs that were trained before this one draws, for what is to be drawn anew.
        """

    @torch.no_grad()
    def score(self, images: torch.Tensor, all_maps: bool = False) -> Scores:
        """Score images (B, 1, H, W), each independently of the others in the batch; without its extra maps unless
        ``all_maps`` asks for them.
        """
        self.eval()
        scores = self.scores_of(images)
        if all_maps:
            scores.maps |= self.extra_maps(images, scores)
        return scores

    @abstractmethod
    def scores_of(self, images: torch.Tensor) -> Scores:
        """:meth:`score` in evaluation mode, without gradients."""

    def extra_maps(self, images: torch.Tensor, scores: Scores) -> dict[str, torch.Tensor]:
        """More ``maps`` of what :meth:`scores_of` found, which no score needs; default: none."""
        return {}

    @property
    def frozen(self) -> dict[str, FrozenFeatures]:
        """The parts that are never trained, by name; last.pt goes without them."""
        return {name: module for name, module in self.named_modules() if isinstance(module, FrozenFeatures)}

    def load_pretrained(self) -> dict[str, dict[str, str]]:
        """Give the frozen parts their weights; returns where each part's come from. Raises WeightsError."""
        return {name: module.load(self.config.weights) for name, module in self.frozen.items()}

    def without_frozen(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The entries of a state dict that training changes."""
        prefixes = tuple(f"{name}." for name in self.frozen)
        return {entry: value for entry, value in state.items() if not (prefixes and entry.startswith(prefixes))}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Scores among the columns that differ by a seed alone: a group's name → theirs. Tables sum them up."""
        return {}

    @property
    def main_score(self) -> str:
        return self.config.main_score or self.score_names[0]

    @staticmethod
    def require_finite(**losses: torch.Tensor) -> None:
        """Raise NonFiniteLoss that names the losses that are not finite, in all processes where one has some.

        On a GPU nothing is raised, since to look at a loss is to wait for it: there the loop looks at their sums.
        """
        total = sum(losses.values())
        if total.is_cuda:
            return
        bad = []
        if not torch.isfinite(total):
            bad = [f"{name} = {float(loss.detach())}" for name, loss in losses.items() if not torch.isfinite(loss)]
        if any(distributed.all_reduce_max(bool(bad))):
            raise NonFiniteLoss(", ".join(distributed.all_gather_objects(bad)))


def lr_scheduler(optimizer: torch.optim.Optimizer, config: BaseConfig) -> torch.optim.lr_scheduler.LRScheduler:
    """The configured schedule, stepped once per epoch."""
    if config.lr_schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.cosine_epochs, config.cosine_min)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, config.lr_steps, config.lr_factor)
