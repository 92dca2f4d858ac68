"""Interrupted in any way, a run ends as the run that was never stopped."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios

import pytest
import torch
from conftest import ROOT, assert_same_run
from forks import kill_in_training
from tiny import EVERY_STEP, TINY, command, train

import configs
from methods import METHODS
from methods.squid import Squid

SECOND = "in the second epoch"
KILLS = {  # 5 iterations an epoch; the generator steps at 0, 2, 4 of each
    "before an iteration of both": ("methods.squid.Squid", "training_step", 3),
    "between the discriminator's step and the generator's": ("methods.squid.Squid", "update", 5),
    SECOND: ("methods.squid.Squid", "training_step", 9),
    "while last.pt is put in place": ("system.files.os", "replace", 5),
    "while best.pt is put in place": ("system.files.os", "replace", 8),
    "after validation, before metrics.jsonl": ("experiments.folder.Experiment", "write_metrics", 1),
}


def moments():
    """Method, epoch from 0, iteration from 1: in the last epoch of every stage, and where another stage begins."""
    for method in METHODS:
        config, overrides = TINY[method]
        epoch = 0
        for stage in configs.build(config, overrides).stages():
            if stage.batches == 0:  # fitted only: test_patchcore.py
                continue
            if epoch:
                yield pytest.param(method, epoch, 1, id=f"{method} before {stage.name}")
            epoch += stage.epochs
            yield pytest.param(method, epoch - 1, 2, id=f"{method} in {stage.name}")


MOMENTS = list(moments())
# of one stage, of three, and of budgets in steps
SIGNALLED = ("squid in train", "ddad before ndm", "ddad in refine", "fanogan before encoder", "fanogan in encoder")


def steps_before(folder):
    """The iterations before each epoch of a finished run, and before its end."""
    return [0, *(json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines())]


@pytest.mark.parametrize("method", ["squid", "ae"])
def test_a_deleted_last_checkpoint_is_not_trained_over(trained, method, capsys):
    folder = trained("a", method, ["epochs=1"])
    best, rows = ((folder / name).read_bytes() for name in ("best.pt", "metrics.jsonl"))
    (folder / "last.pt").unlink()
    assert train("a", method=method, overrides=["epochs=2"]) == 1
    assert "last.pt is gone, although 1 of 2 epochs were trained" in capsys.readouterr().err
    (folder / "metrics.jsonl").unlink()  # what one hands on of an experiment
    assert train("a", method=method, overrides=["epochs=2"]) == 1
    assert "last.pt is gone, although best.pt were trained" in capsys.readouterr().err
    (folder / "metrics.jsonl").write_bytes(rows)
    assert [(folder / name).read_bytes() for name in ("best.pt", "metrics.jsonl")] == [best, rows]


# without saving every step last.pt is of the stage's start, and a resume starts it anew
@pytest.mark.parametrize(
    ("moment", "overrides"),
    [
        *((moment, [EVERY_STEP]) for moment in KILLS if moment != SECOND),
        *(pytest.param(SECOND, saved, marks=pytest.mark.slow) for saved in ([EVERY_STEP], ["save_seconds=1000"])),
    ],
)
def test_a_killed_run_ends_as_the_run_never_stopped(workspace, trained_once, moment, overrides):
    kill_in_training(workspace, *KILLS[moment], "squid", overrides)
    assert train("killed") == 0
    assert_same_run(workspace / "checkpoints" / "killed", trained_once("squid"))


@pytest.mark.parametrize(("method", "epoch", "iteration"), MOMENTS)
def test_any_method_killed_in_a_stage_or_between_two_ends_as_never_stopped(
    workspace, trained_once, method, epoch, iteration
):
    whole = trained_once(method)
    cls, calls = METHODS[method], steps_before(whole)[epoch] + iteration
    overrides = [EVERY_STEP] if iteration > 1 else []  # a stage's end is saved by itself
    kill_in_training(workspace, f"{cls.__module__}:{cls.__name__}", "training_step", calls, method, overrides)
    killed = workspace / "checkpoints" / "killed"
    position = torch.load(killed / "last.pt", weights_only=True)["position"]
    assert position == {"epoch": epoch, "batch": iteration - 1, "global_step": calls - 1}
    assert train("killed", method=method) == 0
    assert_same_run(killed, whole)


def test_output_that_was_closed_from_the_start_is_no_matter_when_the_terminal_closes():
    command = [sys.executable, "-c", "from system.signals import leave_terminal; leave_terminal()"]
    assert subprocess.run(command, cwd=ROOT, preexec_fn=lambda: os.close(1)).returncode == 0


CLOSED_TERMINAL = """
import os, signal
from experiments.folder import Experiment
from experiments.log import Log
from system.signals import handled_by
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
ours, its = os.openpty()
os.dup2(its, 1), os.close(its), os.close(ours)
"""


@pytest.mark.parametrize(
    "program",
    [
        "with Experiment('a') as experiment, Log(experiment) as log: log('before its signal comes')",
        "with handled_by(lambda *_: None): os.kill(os.getpid(), signal.SIGHUP), print('after it', flush=True)",
    ],
)
def test_a_line_for_a_terminal_that_is_closed_is_no_error(tmp_path, program):
    command = [sys.executable, "-c", CLOSED_TERMINAL + program]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0
    logged = tmp_path / "checkpoints" / "a" / "log.txt"
    assert not logged.exists() or logged.read_text().endswith("before its signal comes\n")


def test_a_closed_terminal_saves_and_stops(workspace):
    config, settings = TINY["ae"]
    ours, its = os.openpty()
    arguments = ["--exp", "a", "--config", config, "--device", "cpu", "--set", *settings, "epochs=100000"]

    def at_a_terminal():
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup

    training = subprocess.Popen(
        [sys.executable, ROOT / "main.py", *arguments], stdin=its, stdout=its, stderr=its, start_new_session=True,
        preexec_fn=at_a_terminal,
    )  # fmt: skip
    os.close(its)
    said = b""
    while b"epoch 2/" not in said:
        said += os.read(ours, 1000)
    os.close(ours)
    training.send_signal(signal.SIGHUP)  # the shell's, after the kernel's
    assert training.wait(60) == 128 + signal.SIGHUP
    folder = workspace / "checkpoints" / "a"
    position = torch.load(folder / "last.pt", weights_only=True)["position"]
    stopped = f"stopped by SIGHUP before epoch {position['epoch'] + 1}, batch {position['batch'] + 1}"
    assert position["epoch"] >= 1 and stopped in (folder / "log.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize("errors", [subprocess.STDOUT, subprocess.DEVNULL], ids=["both", "output alone"])
def test_where_nobody_reads_any_more_it_saves_and_stops(workspace, errors):
    config, settings = TINY["ae"]
    arguments = ["--exp", "a", "--config", config, "--device", "cpu", "--set", *settings, "epochs=100000"]
    command = [sys.executable, ROOT / "main.py", *arguments, "save_seconds=100000"]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    with training.stdout as said:
        while "epoch 2/" not in said.readline():
            assert training.poll() is None
    assert training.wait(60) == 128 + signal.SIGPIPE
    folder = workspace / "checkpoints" / "a"
    position = torch.load(folder / "last.pt", weights_only=True)["position"]
    assert position["epoch"] == json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] >= 2
    stopped = f"stopped by SIGPIPE before epoch {position['epoch'] + 1}, batch {position['batch'] + 1}"
    assert stopped in (folder / "log.txt").read_text().splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "method", "epoch", "iteration"),
    [
        *((signal.SIGINT, "squid", *before) for before in ((0, 2), (0, 3), (1, 1))),
        *(
            pytest.param(
                signal.SIGTERM,
                *moment.values,
                id=f"SIGTERM {moment.id}",
                marks=() if moment.id in SIGNALLED else pytest.mark.slow,
            )
            for moment in MOMENTS
        ),
    ],
)
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(
    workspace, trained_once, monkeypatch, capsys, number, method, epoch, iteration
):
    whole = trained_once(method)
    steps = steps_before(whole)
    stop_in = steps[epoch] + iteration - 1
    cls, taken = METHODS[method], []
    original = cls.training_step

    def signalled(self, batch):
        taken.append(batch.step)
        if len(taken) == stop_in:
            os.kill(os.getpid(), number)
        return original(self, batch)

    monkeypatch.setattr(cls, "training_step", signalled)
    handler = signal.getsignal(number)
    assert train("a", method=method) == 128 + number
    stopped = (
        f"Stopped and saved at epoch {epoch + 1}, batch {iteration}. Go on from there with: python main.py --exp a"
    )
    assert stopped in capsys.readouterr().err
    assert len(taken) == stop_in and signal.getsignal(number) is handler
    assert command("main", "--exp", "a", "--device", "cpu") == 0
    assert len(taken) == steps[-1]
    assert_same_run(workspace / "checkpoints" / "a", whole)


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(workspace, monkeypatch, capsys):
    original = Squid.training_step

    def poisoned(self, batch):
        if batch.step == 3:
            batch.images[0] = torch.nan
        return original(self, batch)

    monkeypatch.setattr(Squid, "training_step", poisoned)
    assert train("a", overrides=[EVERY_STEP]) == 1
    assert "epoch 1, batch 4 (training images [" in capsys.readouterr().err
    saved = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)
    assert saved["position"]["batch"] == 3 and all(v.isfinite().all() for v in saved["method"].values())


@pytest.mark.parametrize("name", [name for name in METHODS if len(configs.build(*TINY[name]).stages()) > 1])
def test_the_last_stage_repeated_ends_as_it_did(workspace, trained, trained_once, name):
    trained("a", name)
    last = configs.build(*TINY[name]).stages()[-1].name
    assert command("main", "--exp", "again", "--from", "a", "--stage", last, "--device", "cpu") == 0
    assert_same_run(workspace / "checkpoints" / "again", trained_once(name))


def test_the_first_stage_repeated_has_a_log_and_a_time_of_its_own(workspace, trained):
    log = trained("a", "ae") / "log.txt"
    log.write_text(re.sub(r"\d+\.\d s(,|$)", r"1000.0 s\1", log.read_text(), flags=re.MULTILINE))
    assert command("main", "--exp", "again", "--from", "a", "--stage", "train", "--device", "cpu") == 0
    again = workspace / "checkpoints" / "again"
    assert (again / "log.txt").read_text().count("epoch 1/") == 1
    assert torch.load(again / "last.pt", weights_only=True)["seconds"] < 1000


def test_a_run_that_goes_on_with_other_threads_says_so(workspace, trained, monkeypatch):
    trained("a", "ae", overrides=["epochs=1"])
    log = workspace / "checkpoints" / "a" / "log.txt"
    assert train("a", method="ae", overrides=["epochs=2"]) == 0
    assert "trained so far" not in log.read_text()
    monkeypatch.setattr("system.device.torch.get_num_threads", lambda: 64)
    assert train("a", method="ae", overrides=["epochs=3"]) == 0
    assert "note: trained so far on cpu (" in log.read_text()
