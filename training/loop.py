"""The training loop: any method, any dataset; it resumes exactly where it was, on a CPU bit for bit."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from tqdm import tqdm

from configs import BaseConfig, Stage
from configs.stages import stage_of
from dataloader import Split
from dataloader.loader import TrainLoader
from evaluation import plots
from evaluation.scoring import Scored, score_images, thresholds, validation_auc
from evaluation.tables import recorded_scores
from experiments.folder import Experiment, ExperimentError, not_finite
from experiments.log import Log, opening, run_parts
from methods import Method, NonFiniteLoss
from system import distributed
from system.files import write_text
from system.provenance import provenance
from system.seeding import seed_everything
from system.signals import PIPE, handled_by, leave_pipe
from training.averaging import Average
from training.board import Board
from training.progress import Progress

NO_VALIDATION = "no validation set with anomalous images: best.pt will be the final epoch's"


def machine(made: dict[str, str]) -> str:
    """What a result's last bits depend on, of :func:`provenance`."""
    return f"{made['device']} with torch {made['torch']}"


class TrainingError(Exception):
    """Training that cannot go on; the last good checkpoint stays."""


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the state is saved. ``signal`` is its number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


class Trainer:
    """Trains ``method`` and keeps the experiment's folder up to date.

    The position is (epoch, batch): the next batch to train; epochs count through all stages. All randomness is a
    function of the seed and the position, so last.pt at any position leads to the weights of the run never stopped.
    """

    def __init__(
        self, experiment: Experiment, config: BaseConfig, method: Method, loader: TrainLoader,
        splits: dict[str, Split], device: torch.device,
    ):  # fmt: skip
        self.experiment = experiment
        self.config = config
        self.method = method
        self.loader = loader
        self.splits = splits  # that are scored while training: val with anomalous images, test to be recorded only
        self.device = device
        self.stages = method.stages
        self.epochs = sum(stage.epochs for stage in self.stages)
        self.epoch, self.batch, self.global_step = 0, 0, 0
        self.average: Average | None = None
        self.start_stage()
        self.loss_sums: dict[str, torch.Tensor] = {}  # of the epoch in progress; of several processes this one's share
        self.best_auc = {"best.pt": -math.inf, "best_averaged.pt": -math.inf}  # of the main score on validation
        self.rows: list[dict[str, Any]] = []  # of metrics.jsonl
        self.seconds, self.counted_at = 0.0, time.monotonic()  # of training, all parts of the run together
        self.saved_at = time.monotonic()
        self.progress = Progress(self.stages)
        self.stop_signal = 0  # that this process got
        self.stopping, self.saving = 0, 0  # the signal that one of them got, whether to save: as all of them know

    @property
    def stage(self) -> Stage:
        """The stage that the epoch belongs to."""
        return stage_of(self.stages, self.epoch)

    @property
    def finished(self) -> bool:
        return self.epoch >= self.epochs

    def start_stage(self) -> None:
        """Get ready for the stage that the epoch belongs to, whose weights have an average of their own."""
        self.method.start_stage(self.stage.name)
        if self.config.average_decay:
            self.average = Average(self.method, self.config.average_decay)

    # -- the state --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        method = self.method
        return {
            "method": method.without_frozen(method.state_dict()),
            "optimizers": {name: o.state_dict() for name, o in method.optimizers.items()},
            "schedulers": {name: s.state_dict() for name, s in method.schedulers.items()},
            "position": {"epoch": self.epoch, "batch": self.batch, "global_step": self.global_step},
            "loss_sums": {name: distributed.all_gather(total).squeeze(0) for name, total in self.loss_sums.items()},
            "best_auc": self.best_auc["best.pt"],
            "seconds": self._count_seconds(),
        } | (self.average_state() if self.average else {})

    def average_state(self) -> dict[str, Any]:
        return {**self.average.state(), "average_best_auc": self.best_auc["best_averaged.pt"]}

    def resume(self) -> None:
        """Take up last.pt. Raises ExperimentError."""
        saved = self.experiment.load_weights("last", self.method)
        try:
            position = saved["position"]
            self.epoch, self.batch, self.global_step = position["epoch"], position["batch"], position["global_step"]
            self.start_stage()
            for name, optimizer in self.method.optimizers.items():
                optimizer.load_state_dict(saved["optimizers"][name])
            for name, scheduler in self.method.schedulers.items():
                scheduler.load_state_dict(saved["schedulers"][name])
            self.loss_sums = {name: own_sum(totals).to(self.device) for name, totals in saved["loss_sums"].items()}
            self.best_auc["best.pt"] = saved["best_auc"]
            self.seconds = saved["seconds"]
            if self.average:
                self.average.load(saved)
                self.best_auc["best_averaged.pt"] = saved["average_best_auc"]
            # epochs after the checkpoint are trained again, to the same numbers
            self.rows = [row for row in self.experiment.read_metrics() if row["epoch"] <= self.epoch]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            path = self.experiment.path("last.pt")
            raise ExperimentError(
                f"{path}: lacks what a resume needs ({error}). Train anew with --overwrite."
            ) from error
        self.experiment.write_metrics(self.rows)

    def check_nothing_is_lost(self) -> None:
        """Raise ExperimentError where something was trained but last.pt, which is saved before, is not there."""
        trained = [name for name in ("best.pt", "best_averaged.pt") if self.experiment.path(name).exists()]
        if rows := self.experiment.read_metrics():
            trained = [f"{rows[-1]['epoch']} of {self.epochs} epochs"]
        if trained:
            raise ExperimentError(
                f"{self.experiment.path('last.pt')} is gone, although {' and '.join(trained)} were trained. Restore "
                "the file, or train anew with --overwrite, or with another --exp."
            )

    def check_sums(self) -> None:
        """Raise TrainingError where a loss of this epoch was not finite, which a GPU's are not looked at for before."""
        bad = [name for name, total in self.loss_sums.items() if not torch.isfinite(total)]
        if any(distributed.all_reduce_max(bool(bad))):
            raise TrainingError(
                f"A loss is not finite: {', '.join(distributed.all_gather_objects(bad))}, at epoch {self.epoch + 1}, "
                f"in or before batch {self.batch}. Nothing was saved since: last.pt and best.pt are as they were. Run "
                "with --device cpu to see which images, or start anew with a lower learning_rate."
            )

    def save_last(self) -> None:
        self.check_sums()
        state = self.state()
        if entry := not_finite(state["method"]):
            raise TrainingError(
                f"Training diverged: {entry} is not finite after epoch {self.epoch + 1}, batch {self.batch}. "
                "last.pt was left as it was; start anew with a lower learning_rate."
            )
        self.experiment.save_checkpoint("last.pt", state)
        self.saved_at = time.monotonic()

    def save_best(self, name: str, val_auc: dict[str, float], val_thresholds: dict[str, float]) -> None:
        self.experiment.save_checkpoint(
            name,
            {
                "method": self.method.state_dict(),
                "epoch": self.epoch + 1,
                "seconds": self._count_seconds(),
                "val_auc": val_auc,
                "val_thresholds": val_thresholds,
            },
        )

    def _count_seconds(self) -> float:
        now = time.monotonic()
        self.seconds, self.counted_at = self.seconds + now - self.counted_at, now
        return self.seconds

    # -- the loop ---------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train to the configured number of epochs.

        Raises:
            Interrupted: after a signal, with the state saved.
            TrainingError: for a loss that is not finite, before the update.
        """
        log, board = Log(self.experiment), Board(self.experiment, self.global_step)
        with log, board, handled_by(self._note_signal):
            made = provenance(self.device)
            before = {machine(part) for part in run_parts(self.experiment)} - {machine(made)}
            if self.global_step and before:
                log(f"note: trained so far on {'; '.join(sorted(before))}, now on {machine(made)}: they round "
                    "differently, so that the last bits are not those of one run")  # fmt: skip
            log(opening({**made, "precision": self.config.precision}))
            dataset = self.loader.dataset
            images = f"{dataset.training_in_words()} images ({dataset.fingerprint()})"
            validating = f"validating on {self.splits['val'].in_words()}" if "val" in self.splits else NO_VALIDATION
            log(f"epoch {self.epoch + 1}, batch {self.batch + 1}: training on {images}, {validating}")
            self.counted_at = time.monotonic()
            distributed.broadcast([*self.method.parameters(), *self.method.buffers()])
            if not self.global_step:
                self.save_last()  # from now on, a run without it has lost it
            while not self.finished:
                stage = self.stage
                self.progress.begin(self.epoch, self.batch)
                self._train_epoch(log)
                row = self._finish_epoch(board)
                seconds = self.progress.end()
                board.scalar("time/epoch_seconds", seconds, self.global_step)
                self._say(log, f"{describe(row, self.epochs)}  {seconds:.1f} s{self.progress.left}")
                self._agree()
                if self.saving or self.stopping or self.finished or self.stage != stage:
                    self.save_last()
                if self.stopping and not self.finished:
                    self._stop(log)
            plots.curves(self.rows, self.experiment.path("figures/curves.png"))

    def _train_epoch(self, log: Log) -> None:
        epoch = self.loader.epoch(self.epoch, self.stage)
        others = [distributed.rank()] if distributed.rank() else []  # so that shares draw differently
        label = f"epoch {self.epoch + 1}/{self.epochs}"
        with tqdm(total=len(epoch), initial=self.batch, desc=label, disable=None, leave=False) as bar:
            if not self.batch:
                self.method.start_epoch(self.loader, self.epoch)
            for batch in epoch.batches(self.batch):
                seed_everything(self.config.seed, "step", self.global_step, *others)
                try:
                    losses = self.method.training_step(batch)
                except NonFiniteLoss as error:
                    raise TrainingError(
                        f"A loss is not finite: {error}, at epoch {self.epoch + 1}, batch {self.batch + 1} (training "
                        f"images {epoch.indices[self.batch].tolist()}). Its update was not made and nothing was saved: "
                        "last.pt and best.pt are as they were. Look at those images, or start anew with a lower "
                        "learning_rate."
                    ) from error
                if self.average:
                    self.average.update()
                for name, loss in losses.items():
                    self.loss_sums[name] = self.loss_sums.get(name, 0) + batch.share * loss
                self.batch += 1
                self.global_step += 1
                bar.update()
                if not bar.disable and self.batch % 10 == 0:
                    # to look at a GPU's losses is to wait for them
                    looked_at = {} if batch.images.is_cuda else losses
                    shown = {name: f"{float(loss):.4f}" for name, loss in looked_at.items()}
                    bar.set_postfix(**shown, lr=f"{self._learning_rate():.1e}")
                if bar.disable and (line := self.progress.line(self.batch, len(epoch))):
                    self._say(log, line)
                if self.batch < len(epoch):  # the end of an epoch saves for itself
                    self._agree()
                    if self.saving or self.stopping:
                        self.save_last()
                    if self.stopping:
                        self._stop(log)

    def _finish_epoch(self, board: Board) -> dict[str, Any]:
        """Schedulers, score statistics, validation, best.pt and the epoch's row of metrics.jsonl."""
        self.check_sums()
        stage, final = self.stage, self.epoch + 1 == self.epochs
        row: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.global_step, "lr": self._learning_rate()}
        if len(self.stages) > 1:
            row["stage"] = stage.name
        # a loss that is not computed in every step counts as 0 in the others
        sums = {name: float(distributed.all_gather(own).sum()) for name, own in self.loss_sums.items()}
        row["losses"] = {name: total / self.batch for name, total in sums.items()}
        self.method.end_epoch()
        averaged = self.average.tensors() if self.average else []
        distributed.broadcast([*self.method.buffers(), *averaged])  # batch norm's running statistics differ
        due = (self.epoch + 1) % self.config.val_every == 0 or final
        if due and stage == self.stages[-1] and (self.splits or final):
            row |= self._assess(board, final)
        self.rows.append(row)
        self.experiment.write_metrics(self.rows)
        for name, value in row["losses"].items():
            board.scalar(f"loss/{name}", value, self.global_step)
        board.scalar("lr", row["lr"], self.global_step)
        self.epoch, self.batch, self.loss_sums = self.epoch + 1, 0, {}
        if self.stage != stage:
            self.start_stage()
        return row

    def _assess(self, board: Board, final: bool) -> dict[str, dict[str, float]]:
        """Score the splits, keep the best weights, record the scores; returns the AUCs on validation.

        Where weights are averaged, with both: ``val_auc`` and best.pt, ``val_auc_averaged`` and best_averaged.pt.
        """
        found, recorded = {}, {}
        for suffix, weights in self._variants():
            with weights:
                self.method.fit(self.loader, self.epoch + 1)
                distributed.broadcast(self.method.buffers())  # GPUs may round differently
                recorded[suffix] = scored = {
                    name: score_images(self.method, split.images, self.device, f"scoring {name}")
                    for name, split in self.splits.items()
                }
                if "val" in scored:
                    found[f"val_auc{suffix}"] = auc = self._validate(f"best{suffix}.pt", scored["val"], final)
                    if not suffix:
                        val = self.splits["val"]
                        board.validation(self.method, val, scored["val"], auc, self.global_step, self.device)
                elif final:
                    self.save_best(f"best{suffix}.pt", {}, {})
        if self.config.record_scores and self.splits:
            write_text(self.experiment.path(f"epochs/{self.epoch + 1:04d}.csv"), recorded_scores(self.splits, recorded))
        return found

    def _variants(self) -> Iterator[tuple[str, AbstractContextManager[None]]]:
        """The weights as they are, and averaged: what names say of them, and the context that has them in place."""
        yield "", nullcontext()
        if self.average:
            yield "_averaged", self.average.in_place()

    def _validate(self, name: str, scored: Scored, final: bool) -> dict[str, float]:
        """The AUCs on validation. Where the configured rule takes these weights for the best, they become ``name``."""
        labels = self.splits["val"].labels.numpy()
        auc = validation_auc(labels, scored)
        main = auc[self.method.main_score]
        best_auc = self.best_auc[name]
        if self.config.best_rule == "last":
            better, self.best_auc[name] = final, main
        else:
            tolerance = self.config.best_tolerance / 100 if self.config.best_rule == "tolerance" else 0.0
            better, self.best_auc[name] = main > best_auc - tolerance, max(best_auc, main)
        if better:
            self.save_best(name, auc, thresholds(labels, scored))
        return auc

    def _learning_rate(self) -> float:
        return next(iter(self.method.optimizers.values())).param_groups[0]["lr"] if self.method.optimizers else 0.0

    def _agree(self) -> None:
        """All processes learn of a signal that one of them got, and by the main one's clock whether to save."""
        due = distributed.is_main_process() and time.monotonic() - self.saved_at >= self.config.save_seconds
        self.stopping, self.saving = distributed.all_reduce_max(self.stop_signal, due)

    # -- signals ----------------------------------------------------------------------------------------------------

    def _note_signal(self, number: int, frame: object) -> None:
        """The first SIGINT or SIGTERM lets the iteration finish; a second one ends at once."""
        if self.stop_signal:
            raise KeyboardInterrupt
        self.stop_signal = number

    def _say(self, log: Log, line: str) -> None:
        """Log a line; where nobody reads any more, the run stops as after a signal, with its state saved."""
        try:
            log(line)
        except BrokenPipeError:
            leave_pipe()
            self.stop_signal = self.stop_signal or PIPE

    def _stop(self, log: Log) -> None:
        log(f"stopped by {signal.Signals(self.stopping).name} before epoch {self.epoch + 1}, batch {self.batch + 1}")
        raise Interrupted(
            self.stopping,
            f"Stopped and saved at epoch {self.epoch + 1}, batch {self.batch + 1}. Go on from there "
            f"with: python main.py --exp {self.experiment.name}",
        )


def own_sum(totals: torch.Tensor) -> torch.Tensor:
    """This process's part of a sum as it was saved: () of one process, or (processes,); their number may differ."""
    totals = totals.reshape(-1)
    if len(totals) == distributed.world_size():
        return totals[distributed.rank()]
    return totals.sum() if distributed.is_main_process() else torch.zeros_like(totals[0])


def describe(row: dict[str, Any], epochs: int) -> str:
    """One line on an epoch, for people."""
    parts = [f"epoch {row['epoch']}/{epochs}" + (f" ({row['stage']})" if "stage" in row else "")]
    parts += [f"{name} {value:.4f}" for name, value in row["losses"].items()]
    for key, what in (("val_auc", "val AUC"), ("val_auc_averaged", "averaged")):
        parts += [f"{what} {name} {100 * value:.1f} %" for name, value in row.get(key, {}).items()]
    return "  ".join(parts)
