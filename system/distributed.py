"""Several processes that train one experiment together, as torchrun starts them: all that knows torch.distributed.

    torchrun --nproc_per_node=N main.py --exp ID --config NAME

With a single process everything here does nothing. Small things (flags, scores, messages) go between the processes'
CPUs, even where the networks are on GPUs: there a process that is gone is noticed at once, as a closed connection.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
TIMEOUT = timedelta(minutes=15)  # for a process that hangs; one that dies is noticed at once
FAILED = "failed processes"  # of the store: how many have said that they failed

_store = None  # the processes' common dictionary, kept by torchrun or by the first of them


class LostProcess(Exception):
    """Another process of this run is gone, or does not answer."""


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _store is not None else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _store is not None else 1


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Within the ``with``, the processes that torchrun started work together, and the first alone is heard.

    Raises:
        LostProcess: where the others do not come.
    """
    global _store
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _others_alive():
        store, this, count = next(dist.rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group(backend, store=store, rank=this, world_size=count, timeout=TIMEOUT)
    _store = store
    heard = sys.stdout, sys.stderr
    if this > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        yield
    except Exception:
        first_to_fail()
        raise
    finally:
        sys.stdout, sys.stderr = heard
        dist.destroy_process_group()
        _store = None


def launched() -> bool:
    """Whether torchrun, or something that sets the same variables, started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def local_rank() -> int:
    """The number of this process on its machine, from 0: that of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if _store is not None else 0


def say_once(message: str) -> None:
    """Print to stderr why this process ends, unless another process has ended before it: then that one said why."""
    if first_to_fail():
        print(message, file=sys.stderr if is_main_process() else sys.__stderr__, flush=True)


def first_to_fail() -> bool:
    """Whether no other process has failed before."""
    try:
        return _store is None or _store.add(FAILED, 1) == 1
    except RuntimeError:  # the store is gone with the process that kept it
        return True


def leave_failed(code: int) -> None:
    """End this process at once where there are others: an orderly end would wait for what they do not answer."""
    if _store is not None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            stream.flush()
        os._exit(code)


@contextmanager
def _others_alive() -> Iterator[None]:
    """Within the ``with`` stands nothing but communication. Raises LostProcess."""
    try:
        yield
    except RuntimeError as error:  # torch has no narrower class for a closed connection
        raise LostProcess(
            "A process of this run is gone, or does not answer. Run the same command, with or without torchrun, to go "
            f"on from the last checkpoint. What torch says: {' '.join(str(error).split())[:150]}"
        ) from error


# -- what each process does of the work ---------------------------------------------------------------------------


def shard(items: Sequence[T]) -> Sequence[T]:
    """This process's share of a sequence (or of a tensor's rows), as contiguous and even as can be, without padding."""
    (quotient, more), this = divmod(len(items), world_size()), rank()
    start = this * quotient + min(this, more)
    return items[start : start + quotient + (this < more)]


def barrier() -> None:
    """Wait for the other processes."""
    all_reduce_max(0)


@contextmanager
def main_process_first() -> Iterator[None]:
    """Within the ``with``, the others begin when the first process is done: it may fetch or write what they read."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


# -- what goes between them -----------------------------------------------------------------------------------------


def all_reduce_max(*values: int) -> tuple[int, ...]:
    """The largest that any process gave, for each of the values."""
    if world_size() == 1:
        return values
    found = torch.tensor(values)
    with _others_alive():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(found.tolist())


def all_gather_objects(items: Sequence[Any]) -> list[Any]:
    """All processes' items (plain data, tensors on the CPU), the first process's first."""
    if world_size() == 1:
        return list(items)
    parts: list[Any] = [None] * world_size()
    with _others_alive():
        dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def all_gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """All processes' rows, the first process's first; they may differ in number: (n, …) → (N, …)."""
    if world_size() == 1:
        return rows
    counts = all_gather(torch.tensor(len(rows))).tolist()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts, strict=True)])


def all_gather(values: torch.Tensor) -> torch.Tensor:
    """Every process's values, of one shape: (…) → (processes, …)."""
    if world_size() == 1:
        return values.unsqueeze(0)
    parts = [torch.empty_like(values) for _ in range(world_size())]
    with _others_alive():
        dist.all_gather(parts, values.contiguous())
    return torch.stack(parts)


def all_reduce(tensors: Iterable[torch.Tensor]) -> None:
    """Add up each tensor over the processes, in place; those of a type travel as one."""
    if world_size() > 1:
        _together(tensors, dist.all_reduce)


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """Give all processes the first one's values, in place."""
    if world_size() > 1:
        _together(tensors, lambda flat: dist.broadcast(flat, 0))


@torch.no_grad()
def _together(tensors: Iterable[torch.Tensor], send: Callable[[torch.Tensor], object]) -> None:
    kinds: dict[tuple, list[torch.Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for of_kind in kinds.values():
        flat = torch.cat([tensor.flatten() for tensor in of_kind])
        with _others_alive():
            send(flat)
        for tensor, values in zip(of_kind, flat.split([tensor.numel() for tensor in of_kind]), strict=True):
            tensor.copy_(values.view_as(tensor))
