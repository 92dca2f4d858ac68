"""What a run writes for people: log.txt (and the screen) and TensorBoard."""

import os
import re
import sys
from contextlib import suppress
from datetime import datetime

import torch
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid
from tqdm import tqdm

from engine import distributed
from engine.experiment import Experiment

GRID_ROWS = 4  # validation images of each class shown in TensorBoard


class Log:
    """Lines with their time, appended to log.txt and shown on the screen.

    A full disk silences the file, not the run: what must not be lost is written elsewhere, with its error. Of several
    processes the first alone writes.
    """

    def __init__(self, experiment: Experiment):
        path = experiment.path("log.txt") if distributed.is_first() else os.devnull
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __call__(self, line: str) -> None:
        with suppress(OSError):
            self.file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n")
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exc) -> None:
        with suppress(OSError):
            self.file.close()


def opening(made: dict[str, str]) -> str:
    """The line that every sitting of a run starts with: ``commit …, python …, torch …, device …, precision …``."""
    return ", ".join(f"{key} {value}" for key, value in made.items())


def log_until(experiment: Experiment, epoch: int) -> str:
    """log.txt's lines up to the end of that epoch, counted from 1; all of them where it does not tell."""
    path = experiment.path("log.txt")
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    ends = [line.end() for line in re.finditer(rf"^[-\d]+ [:\d]+  epoch {epoch}/.*\n", text, re.MULTILINE)]
    return text[: ends[-1]] if ends else text


def sittings(experiment: Experiment) -> list[dict[str, str | None]]:
    """What log.txt says of the sittings that a run was trained in, as :func:`opening` wrote it; each kind once.

    Keys are commit, python, torch, device and precision, which logs of older versions lack (None). Empty for imports.
    """
    path = experiment.path("log.txt")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    pattern = r"commit (?P<commit>\S+), python (?P<python>\S+), torch (?P<torch>\S+), device (?P<device>.+?)"
    pattern += r"(, precision (?P<precision>\S+))?"
    found = []
    for line in lines:
        made = re.fullmatch(rf"[-\d]+ [:\d]+  {pattern}", line)
        if made and made.groupdict() not in found:
            found.append(made.groupdict())
    return found


class Board:
    """TensorBoard: scalars every epoch; image grids and score histograms at every validation.

    As for :class:`Log`, a full disk silences it, and of several processes the first alone writes.
    """

    def __init__(self, experiment: Experiment, global_step: int):
        # steps after the checkpoint that a resumed run goes on from are shown once
        self.writer = None
        if distributed.is_first():
            self.writer = SummaryWriter(str(experiment.path("tensorboard")), purge_step=global_step + 1)

    def scalar(self, name: str, value: float, step: int) -> None:
        with suppress(OSError):
            self.writer and self.writer.add_scalar(name, value, step)

    def validation(self, method, split, scored, auc: dict[str, float], step: int, device) -> None:
        with suppress(OSError):
            self.writer and self._validation(method, split, scored, auc, step, device)

    def _validation(self, method, split, scored, auc, step, device) -> None:
        labels = split.labels.bool()
        for name, value in auc.items():
            self.scalar(f"val_auc/{name}", value, step)
            scores = torch.from_numpy(scored.image[name])
            for what, chosen in (("normal", ~labels), ("anomalous", labels)):
                self.writer.add_histogram(f"scores/{name}/{what}", scores[chosen], step)
        sides = [chosen.nonzero()[:GRID_ROWS, 0] for chosen in (~labels, labels)]
        rows = min(map(len, sides))
        picked = torch.stack([side[:rows] for side in sides], dim=1).flatten()  # normal, anomalous, normal, …
        images = split.images[picked].unsqueeze(1).float() / 255
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
