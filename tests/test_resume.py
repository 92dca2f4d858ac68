"""Interrupted in any way, a run ends as the run that was never stopped."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, assert_same_run
from tiny import command, train

from methods.squid import Squid

KILL = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import dataloader.digit, engine.experiment, engine.loop, methods.ddad, methods.squid
dataloader.digit.COUNTS = {{"val": 16, "test": 16}}
def after(owner, name, calls):
    original, count = getattr(owner, name), 0
    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, counted)
after({owner}, {name!r}, {calls})
from tiny import train
train("killed", method={method!r}, overrides={overrides!r})
"""

KILLS = {  # 5 iterations an epoch; the generator steps at 0, 2, 4 of each
    "before an iteration of both": ("methods.squid.Squid", "training_step", 3),
    "before an iteration of the discriminator alone": ("methods.squid.Squid", "training_step", 4),
    "between the discriminator's step and the generator's": ("methods.squid.Squid", "_step", 5),
    "in the second epoch": ("methods.squid.Squid", "training_step", 9),
    "while last.pt is put in place": ("engine.experiment.os", "replace", 5),
    "while best.pt is put in place": ("engine.experiment.os", "replace", 8),
    "after validation, before metrics.jsonl": ("engine.experiment.Experiment", "write_metrics", 1),
}


def kill_in_training(workspace, owner, name, calls, method, overrides):
    """Train the experiment ``killed`` in a process of its own, killed at the n-th call of owner.name."""
    script = KILL.format(
        root=str(ROOT), tests=str(ROOT / "tests"), owner=owner, name=name, calls=calls, method=method,
        overrides=overrides,
    )  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", script], cwd=workspace, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.mark.parametrize("method", ["squid", "ae"])
def test_a_deleted_last_checkpoint_is_not_trained_over(workspace, method, capsys):
    assert train("a", method=method, overrides=["epochs=1"]) == 0
    folder = workspace / "checkpoints" / "a"
    best, rows = ((folder / name).read_bytes() for name in ("best.pt", "metrics.jsonl"))
    (folder / "last.pt").unlink()
    assert train("a", method=method, overrides=["epochs=2"]) == 1
    assert "last.pt is gone, although 1 of 2 epochs were trained" in capsys.readouterr().err
    assert [(folder / name).read_bytes() for name in ("best.pt", "metrics.jsonl")] == [best, rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The run never stopped, that every killed one must equal."""
    folder = tmp_path_factory.mktemp("whole")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr("dataloader.digit.COUNTS", {"val": 16, "test": 16})
    assert train("whole") == 0
    patch.undo()
    return folder / "checkpoints" / "whole"


# 0 saves after every iteration; 1000 at the end only, so that a resume starts over
@pytest.mark.parametrize(("moment", "save_seconds"), [*((m, 0) for m in KILLS), ("in the second epoch", 1000)])
def test_a_killed_run_ends_as_the_run_never_stopped(workspace, uninterrupted, moment, save_seconds):
    overrides = [f"save_seconds={save_seconds}"]
    kill_in_training(workspace, *KILLS[moment], "squid", overrides)
    assert train("killed", overrides=overrides) == 0
    assert_same_run(workspace / "checkpoints" / "killed", uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(
    workspace, uninterrupted, monkeypatch, capsys, number, step
):
    original, taken = Squid.training_step, []

    def signalled(self, images, index):
        taken.append(index)
        if len(taken) == step:
            os.kill(os.getpid(), number)
        return original(self, images, index)

    monkeypatch.setattr(Squid, "training_step", signalled)
    handler = signal.getsignal(number)
    assert train("a", overrides=["save_seconds=1000"]) == 128 + number
    assert "Go on from there with: python main.py --exp a" in capsys.readouterr().err
    assert len(taken) == step and signal.getsignal(number) is handler
    assert command("main", "--exp", "a", "--device", "cpu") == 0
    assert len(taken) == 10
    assert_same_run(workspace / "checkpoints" / "a", uninterrupted)


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(workspace, monkeypatch, capsys):
    original = Squid.training_step

    def poisoned(self, images, step):
        if step == 3:
            images[0] = torch.nan
        return original(self, images, step)

    monkeypatch.setattr(Squid, "training_step", poisoned)
    assert train("a") == 1
    assert "epoch 1, batch 4 (training images [" in capsys.readouterr().err
    saved = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)
    assert saved["position"]["batch"] == 3 and all(v.isfinite().all() for v in saved["method"].values())
