"""Several seeds of one configuration as one job: main.py --seeds 0,1,2 trains ID_s0, ID_s1 and ID_s2.

Each is a process of its own, over the devices there are: one at a time on every GPU; on CPUs side by side, since
processes of few threads get more done than one after another with all of them.
"""

import argparse
import os
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

import torch

from configs import ConfigError
from system import distributed
from system.signals import handled_by
from system.tuning import cores

MAIN = Path(__file__).resolve().parent.parent / "main.py"


def train_seeds(args: argparse.Namespace, device: torch.device) -> int:
    """Run this command once for every seed of --seeds; returns the exit code.

    Raises:
        ConfigError: for --seeds that is not a list of different numbers, or beside what it excludes.
    """
    seeds = parse(args.seeds)
    if args.seed is not None or any(pair.startswith("seed=") for pair in args.set):
        raise ConfigError("--seeds gives the seeds: leave out --seed and --set seed=N.")
    if distributed.launched():
        raise ConfigError("--seeds starts processes of its own: run it without torchrun.")
    commands = {f"{args.exp}_s{seed}": command(f"{args.exp}_s{seed}", seed) for seed in seeds}
    places = places_for(len(seeds), device)
    names = ", ".join(commands)
    print(f"{names}: {min(len(places), len(seeds))} at a time", flush=True)
    job = Job(places)
    with job.signals_passed_on(), ThreadPoolExecutor(len(places)) as pool:
        codes = dict(zip(commands, pool.map(job.run, commands, commands.values()), strict=True))

    finished = [name for name, code in codes.items() if code == 0]
    failed = [f"{name} ({describe(code)})" for name, code in codes.items() if code != 0]
    if not failed:
        print(f"Finished: {names}.")
        return 0
    done = f"finished: {', '.join(finished)}" if finished else "none finished"
    same = "The same command without --overwrite" if args.overwrite else "The same command"
    print(f"error: not finished: {', '.join(failed)}; {done}. {same} goes on with them.", file=sys.stderr)
    return 128 + job.stop_signal if job.stop_signal else 1


def parse(text: str) -> list[int]:
    """``0,1,2`` → the numbers. Raises ConfigError."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds {text}: write whole numbers with commas between them, such as 0,1,2.") from None
    if any(seed < 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text}: the seeds must be different, and at least 0.")
    return seeds


def command(exp: str, seed: int) -> list[str]:
    """This process's command for one seed alone."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--seeds")
    others = parser.parse_known_args(sys.argv[1:])[1]
    return [sys.executable, str(MAIN), *others, "--exp", exp, "--seed", str(seed)]  # the last --exp counts


def places_for(jobs: int, device: torch.device, shared: bool = False) -> list[dict[str, str]]:
    """What each place that trains one seed at a time adds to its process's environment; ``shared`` puts several on a
    GPU, where there are more jobs than GPUs.
    """
    if device.type == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
        count = jobs if shared else len(names)
        return [{"CUDA_VISIBLE_DEVICES": names[i % len(names)]} for i in range(count)]
    if device.type != "cpu":
        return [{}]
    count = min(jobs, cores())
    if "OMP_NUM_THREADS" in os.environ:  # is obeyed
        return [{}] * count
    return [{"OMP_NUM_THREADS": str(cores() // count)}] * count


def describe(code: int | None) -> str:
    if code is None:
        return "not started"
    return f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


class Job:
    """Runs commands in places, each in one that is free; a signal to this process goes to all of them, once."""

    def __init__(self, places: list[dict[str, str]]):
        self.free: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
        for place in places:
            self.free.put(place)
        self.running: set[subprocess.Popen] = set()
        self.lock = threading.RLock()  # a second signal may interrupt the handling of the first
        self.stop_signal = 0

    def run(self, name: str, arguments: list[str], log: TextIO | None = None) -> int | None:
        """A command's exit code; None where a signal came before. Its output goes to ``log``, or is printed line by
        line after ``name``."""
        place = self.free.get()
        try:
            with self.lock:
                if self.stop_signal:
                    return None
                # in a session of its own a process gets Ctrl-C from here alone: a second one would end it at once
                process = subprocess.Popen(
                    arguments, env=os.environ | place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                    errors="replace", start_new_session=True,
                )  # fmt: skip
                self.running.add(process)
            for line in process.stdout:
                print(line if log else f"{name}: {line}", end="", flush=True, file=log)
            return process.wait()
        finally:
            with self.lock:
                self.running -= {p for p in self.running if p.poll() is not None}
            self.free.put(place)

    def signals_passed_on(self) -> AbstractContextManager:
        """Within the ``with``, SIGINT and SIGTERM go to the commands that run, and no other starts."""

        def pass_on(number: int, frame: object) -> None:
            self.stop_signal = self.stop_signal or number
            with self.lock:
                for process in self.running:
                    process.send_signal(number)

        return handled_by(pass_on)
