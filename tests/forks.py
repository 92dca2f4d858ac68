"""Runs in processes of their own, to be killed or to be two: one process imports torch, and is forked for each."""

import faulthandler
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from tiny import FEW, train

import dataloader.digit

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["forks"])


def start(function, *arguments):
    """A process that is forked and runs ``function``."""
    process = FORKS.Process(target=function, args=arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")  # what is preloaded is looked for there
        process.start()
    return process


def settle(folder):
    """As the tests' own process is: in the folder, with few images and one thread, not waiting for the disk."""
    os.chdir(folder)
    os.fsync = lambda file: None
    dataloader.digit.COUNTS = FEW
    torch.set_num_threads(1)


def kill_in_training(workspace, owner, name, calls, method, overrides):
    """Train the experiment ``killed`` in a process of its own, killed at the n-th call of owner.name."""
    process = start(train_until, workspace, owner, name, calls, method, overrides)
    process.join(200)
    assert process.exitcode == -signal.SIGKILL


def train_until(workspace, owner, name, calls, method, overrides):
    settle(workspace)
    owner = pkgutil.resolve_name(owner)
    original, count = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)
    train("killed", method=method, overrides=overrides)


def launch(folder, phases):
    """Run each of ``phases`` (name → program) in two processes as torchrun would, one phase after another.

    Returns:
        The name → of each process (exit code, stdout, stderr).
    """
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True) for _ in phases]  # torchrun keeps the store too
    programs = [(name, program, store.port) for (name, program), store in zip(phases.items(), stores, strict=True)]
    processes = [start(serve, folder, rank, programs) for rank in range(2)]
    try:
        for process in processes:
            process.join(400)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return {name: [json.loads((folder / f"{name}_{k}.json").read_text()) for k in range(2)] for name in phases}


def serve(folder, rank, programs):
    """Every phase in a fork of its own, which ends as it likes."""
    settle(folder)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    for name, program, port in programs:
        os.environ["MASTER_PORT"] = str(port)
        files = [f"{name}_{rank}.{end}" for end in ("json", "out", "err")]
        child = os.fork()
        if child == 0:
            for number, file in ((1, files[1]), (2, files[2])):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
            run(program, rank)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        Path(files[0]).write_text(json.dumps([code, *(Path(file).read_text() for file in files[1:])]))


def run(program, rank):
    """Run a phase's program and end: with the code that it leaves as ``code``, or 99 after a traceback."""
    code = 99
    faulthandler.dump_traceback_later(150, exit=True)  # a process that waits for ever says where
    try:
        names = {"rank": rank}
        exec(program, names)
        code = names["code"]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
