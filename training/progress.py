"""How far a training is and how long it will take, for people. Nothing that is trained depends on it."""

from itertools import accumulate
from statistics import median
from time import monotonic

from configs import Stage
from configs.stages import stage_of
from system.progress import SILENCE, in_words


class Progress:
    """Measures the epochs of this run, which may have begun in the middle of one."""

    def __init__(self, stages: tuple[Stage, ...]):
        self.stages = stages
        self.ends = dict(zip(stages, accumulate(stage.epochs for stage in stages), strict=True))  # stage → its last
        self.whole: dict[Stage, list[float]] = {}  # seconds of this run's whole epochs

    def begin(self, epoch: int, batch: int) -> None:
        """The run goes on at this batch, counted from 0."""
        self.epoch, self.first, self.stage = epoch, batch, stage_of(self.stages, epoch)
        self.started = self.spoke = monotonic()

    def line(self, batch: int, batches: int) -> str | None:
        """What to say after so many batches of the epoch; None while :data:`SILENCE` is not over."""
        now = monotonic()
        if now - self.spoke < SILENCE:
            return None
        self.spoke = now
        each = (now - self.started) / (batch - self.first)
        epoch = median(self.whole.get(self.stage) or [each * batches])
        left = self._in_words(each * (batches - batch) + epoch * self._epochs_left)
        where = f"epoch {self.epoch + 1}/{self.ends[self.stages[-1]]}, batch {batch} of {batches}"
        return f"{where}, {each:.{'2g' if each < 10 else '0f'}} s a batch{left}"

    def end(self) -> float:
        """The epoch is over; returns the seconds that it took."""
        seconds = monotonic() - self.started
        if not self.first:
            self.whole.setdefault(self.stage, []).append(seconds)
        return seconds

    @property
    def left(self) -> str:
        """After an epoch: how long the others of its stage will take; "" where it is the last, or nothing is known."""
        known = self.whole.get(self.stage)
        return self._in_words(median(known) * self._epochs_left) if known and self._epochs_left else ""

    @property
    def _epochs_left(self) -> int:
        """Epochs of the stage after this one."""
        return self.ends[self.stage] - self.epoch - 1

    def _in_words(self, left: float) -> str:
        if not left:  # what comes after an epoch, such as validation, is not foreseen
            return ""
        stage = "" if self.stage == self.stages[-1] else f" in the stage {self.stage.name}"
        return f", about {in_words(left)} left{stage}"
