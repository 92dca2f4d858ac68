"""Time and peak memory, each piece of work in a process of its own."""

import contextlib
import ctypes
import gc
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode


class Work(NamedTuple):
    """Something to repeat; ``warm_up`` comes before the first time and is all of it unless given."""

    run: Callable[[], object]
    warm_up: Callable[[], object] | None = None


class Measured(NamedTuple):
    peak: int  # bytes beyond what the process had before the work was set up
    flops: int  # floating point operations of one repetition; 0 where not counted


class Worker:
    """A process that does one piece of work again whenever it is asked to, and nothing meanwhile.

    Peak memory and the allocator's settings belong to a process, so each arrangement gets its own; several of them,
    asked in turn, are measured under the same conditions. ``build``, called there, sets the work up.
    """

    def __init__(self, device: torch.device, build: Callable[..., Work], *arguments):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        threads = torch.get_num_threads()
        self._process = context.Process(target=_serve, args=(theirs, threads, device, build, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def seconds(self) -> float:
        """Of one repetition."""
        self._connection.send("run")
        return self._answer()

    def finish(self, flops: bool = False) -> Measured:
        """Ends the process; with ``flops`` the work is done once more to count them."""
        self._connection.send("count" if flops else "finish")
        measured = self._answer()
        self._process.join()
        return measured

    def _answer(self):
        try:
            return self._connection.recv()
        except EOFError:
            sys.exit("error: a measurement ended early; its traceback is above")


def _serve(connection, threads: int, device: torch.device, build: Callable[..., Work], arguments: tuple) -> None:
    torch.set_num_threads(threads)
    before = resident()
    work = build(*arguments)
    forget_peak(device)
    (work.warm_up or work.run)()
    connection.send(None)
    while (wanted := connection.recv()) == "run":
        connection.send(timed(work.run, device))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident() - before
    connection.send(Measured(peak, count_flops(work) if wanted == "count" else 0))


def count_flops(work: Work) -> int:
    """Floating point operations of one repetition: products and convolutions, a multiply-add being two."""
    with FlopCounterMode(display=False) as counter:
        work.run()
    return counter.get_total_flops()


def forget_peak(device: torch.device) -> None:
    """What setting up took is not counted, as far as it was given back."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError, AttributeError):  # no Linux, another C library
        ctypes.CDLL(None).malloc_trim(0)  # what is free, but kept for the next allocations
        Path("/proc/self/clear_refs").write_text("5")


def timed(run: Callable, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def resident() -> int:
    """Bytes of memory that this process has now."""
    return _status("VmRSS")


def peak_resident() -> int:
    """The most that this process has had."""
    return _status("VmHWM")


def _status(key: str) -> int:
    path = Path("/proc/self/status")
    if not path.exists():  # no Linux: the peak stands for both
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    (line,) = (line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
