"""What a run shows in TensorBoard."""

from contextlib import suppress

import torch
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from dataloader import Split
from evaluation.scoring import Scored
from experiments.folder import Experiment
from methods import Method
from system import distributed
from system.device import to_float

GRID_ROWS = 4  # validation images of each class shown


class Board:
    """TensorBoard: scalars every epoch; image grids and score histograms at every validation.

    As for :class:`Log`, a full disk silences it, and of several processes the first alone writes.
    """

    def __init__(self, experiment: Experiment, global_step: int):
        # steps after the checkpoint that a resumed run goes on from are shown once
        self.writer = None
        if distributed.is_main_process():
            self.writer = SummaryWriter(str(experiment.path("tensorboard")), purge_step=global_step + 1)

    def scalar(self, name: str, value: float, step: int) -> None:
        with suppress(OSError):
            self.writer and self.writer.add_scalar(name, value, step)

    def validation(
        self, method: Method, split: Split, scored: Scored, auc: dict[str, float], step: int, device: torch.device
    ) -> None:
        with suppress(OSError):
            self.writer and self._validation(method, split, scored, auc, step, device)

    def _validation(
        self, method: Method, split: Split, scored: Scored, auc: dict[str, float], step: int, device: torch.device
    ) -> None:
        labels = split.labels.bool()
        for name, value in auc.items():
            self.scalar(f"val_auc/{name}", value, step)
            scores = torch.from_numpy(scored.image[name])
            for what, chosen in (("normal", ~labels), ("anomalous", labels)):
                self.writer.add_histogram(f"scores/{name}/{what}", scores[chosen], step)
        sides = [chosen.nonzero()[:GRID_ROWS, 0] for chosen in (~labels, labels)]
        rows = min(map(len, sides))
        picked = torch.stack([side[:rows] for side in sides], dim=1).flatten()  # normal, anomalous, normal, …
        images = to_float(split.images[picked], torch.device("cpu"))
        reconstruction = method.score(images.to(device)).reconstruction
        if reconstruction is not None:
            reconstruction = reconstruction.cpu()
            panels = torch.cat([images, reconstruction, (images - reconstruction).abs()], dim=3)  # (2·rows, 1, H, 3W)
            grid = make_grid(panels, nrow=2, pad_value=1.0)
            self.writer.add_image("input, reconstruction, difference (normal left, anomalous right)", grid, step)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *exc) -> None:
        with suppress(OSError):
            self.writer and self.writer.close()
