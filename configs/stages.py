"""The phases that a training goes through, one after another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A phase of training: what it goes over, and for how long."""

    name: str
    epochs: int
    batch_size: int
    unlabeled: bool = False  # trains on the unlabeled images too
    drop_last: bool = False  # leaves out a last batch that is not full
    # of an epoch: None is one pass over the images, more go through them again, 0 trains nothing: the method is fitted
    batches: int | None = None
    orders: int = 1  # a batch is so many of batch_size, each drawn in an order of its own
    # images of a batch that it can do with, in each of several processes; a last batch of fewer is left out
    least: int = 1
    fixed: bool = False  # trains on the images of the first epoch in all of them, where a dataset makes new ones
    epochs_key: str = "epochs"  # the setting that says how long it lasts
    batch_key: str = "batch_size"
    settings: tuple[str, ...] = ()  # that concern no stage before it, beside those that begin with its name

    @property
    def smallest_batch(self) -> int:
        """Images of a last batch that is not left out."""
        return self.batch_size if self.drop_last else self.least


def stage_of(stages: tuple[Stage, ...], epoch: int) -> Stage:
    """The stage that an epoch, counted through all of them from 0, belongs to; the last one ever after."""
    for stage in stages[:-1]:
        if epoch < stage.epochs:
            return stage
        epoch -= stage.epochs
    return stages[-1]


def stage_epochs(stages: tuple[Stage, ...], epochs: int) -> dict[str, int]:
    """How many epochs of each stage lie in the first ``epochs``."""
    done = {}
    for stage in stages:
        done[stage.name] = min(stage.epochs, epochs) if stage != stages[-1] else epochs
        epochs -= done[stage.name]
    return done
