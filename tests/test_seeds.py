"""main.py --seeds: one job for several seeds, each an experiment of its own."""

import json
import os
import signal
import sys
import threading
import time

import pytest
import torch
from tiny import TINY, command

from commands.jobs import Job, places_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OVERRIDES = [*TINY["ae"][1], "epochs=1"]


def test_every_seed_is_trained_and_one_that_fails_is_named(workspace, capfd, monkeypatch):
    seeds = ["--exp=a", "--config", TINY["ae"][0], "--device", "cpu", "--seeds=0,1", "--set", *OVERRIDES]
    lost = workspace / "checkpoints" / "a_s1" / "last.pt"  # of an experiment whose config.json is gone
    lost.parent.mkdir(parents=True)
    lost.touch()
    assert command("main", *seeds) == 1
    out, err = capfd.readouterr()
    assert "a_s0: epoch 1/1" in out and "a_s1: error: " in out and "Traceback" not in out
    assert "not finished: a_s1 (exit code 1); finished: a_s0" in err

    saved = json.loads((workspace / "checkpoints" / "a_s0" / "config.json").read_text())
    assert saved["settings"]["seed"] == 0 and sorted(os.listdir(workspace / "checkpoints")) == ["a_s0", "a_s1"]

    def in_this_process(self, name, arguments):
        return command("main", *arguments[2:])

    monkeypatch.setattr(Job, "run", in_this_process)
    assert command("main", *seeds, "--seeds", "0") == 0  # the same experiment is taken up
    out, _ = capfd.readouterr()
    assert "checkpoints/a_s0 is finished" in out and "Finished: a_s0." in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0,x"], "--seeds 0,x: write whole numbers"),
        (["--seeds", ""], "write whole numbers"),
        (["--seeds", "0,1,0"], "must be different"),
        (["--seeds", "0,-1"], "at least 0"),
        (["--seeds", "0,1", "--seed", "2"], "leave out --seed"),
        (["--seeds", "0,1", "--set", "seed=2"], "leave out --seed"),
    ],
)
def test_seeds_that_cannot_be(workspace, capsys, arguments, said):
    assert command("main", "--exp", "a", "--config", "digit_quick", "--device", "cpu", *arguments) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (workspace / "checkpoints").exists()


def test_seeds_under_torchrun_are_refused(workspace, capsys, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(name, str(value))
    assert command("main", "--exp", "a", "--config", "digit_quick", "--seeds", "0,1") == 1
    assert "run it without torchrun" in capsys.readouterr().err


def test_each_gpu_takes_one_at_a_time_and_the_cpu_shares_its_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places_for(3, CUDA) == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
    on_both = [{"CUDA_VISIBLE_DEVICES": name} for name in "010"]
    assert places_for(3, CUDA, shared=True) == on_both and places_for(1, CUDA, shared=True) == on_both[:1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert places_for(3, CUDA) == [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "GPU-5"}]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert places_for(3, CPU) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert places_for(20, CPU) == [{"OMP_NUM_THREADS": "1"}] * 8
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert places_for(3, CPU) == [{}] * 3
    assert places_for(3, torch.device("mps")) == [{}]


def test_a_place_runs_one_command_at_a_time(capfd):
    job = Job([{"PLACE": "one"}])
    script = "import os, time; print('from', os.environ['PLACE'], flush=True); time.sleep(0.1); print('to')"
    threads = [threading.Thread(target=job.run, args=(name, [sys.executable, "-c", script])) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line.split(": ") for line in capfd.readouterr().out.splitlines()]
    assert [text for _, text in lines] == ["from one", "to"] * 2 and lines[0][0] == lines[1][0] != lines[2][0]


def test_a_signal_goes_to_what_runs_once_and_nothing_else_starts(tmp_path):
    script = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGINT, lambda n, f: sys.exit(7)); "
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    job, codes, ready = Job([{}]), {}, tmp_path / "ready"

    def run():
        codes["a"] = job.run("a", [sys.executable, "-c", script, str(ready)])
        codes["b"] = job.run("b", [sys.executable, "-c", script, str(ready)])

    thread = threading.Thread(target=run)
    with job.signals_passed_on():
        thread.start()
        while not ready.exists():
            assert thread.is_alive()
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        thread.join(60)
    assert codes == {"a": 7, "b": None} and job.stop_signal == signal.SIGINT
