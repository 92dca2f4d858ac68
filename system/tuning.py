"""Tuning this process to the machine it runs on: allocator, threads, TF32, and the switch for all that is only fast.

None of it knows what is computed. ``ANOMALY_PLAIN=1`` turns off the allocator's settings and whatever asks
:func:`rearranges`: models/fast.py, and the encoder that SQUID's two turns share.
"""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

plain = os.environ.get("ANOMALY_PLAIN", "") not in ("", "0")  # compute everything as the papers' figures have it


def rearranges(x: torch.Tensor) -> bool:
    """Whether x is to be computed with in another order where that is faster: on a CPU, unless it is to be plain.

    On a GPU each of many small passes over memory would have to be launched.
    """
    return not plain and x.device.type == "cpu"


def tune(precision: str) -> None:
    """Allocator, threads and TF32 of this process; with ``fp32`` or ``bf16`` none of it changes a result."""
    if not plain:
        keep_memory()
    fit_threads()
    choose_tf32(precision)


def choose_tf32(precision: str) -> None:
    """Whether a GPU computes float32 in TF32: PyTorch's default does so in convolutions alone."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


@contextmanager
def full_products() -> Iterator[None]:
    """Within the ``with``, a GPU multiplies float32 as it is, whatever the precision: where nearly equal products are
    subtracted, TF32 would leave its own rounding alone."""
    former = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = former


def keep_memory() -> None:
    """On glibc, serve big tensors from one heap that is kept, in huge pages: mapping them anew each step costs page
    faults, and convolutions in small pages miss the TLB."""
    if sys.platform != "linux":
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # from malloc.h
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (OSError, AttributeError):  # musl and others
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)  # never
    mallopt(M_TOP_PAD, 256 * 2**20)
    half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    ask_for_huge_pages(libc, min(half, 8 * 2**30))


def ask_for_huge_pages(libc: ctypes.CDLL, size: int) -> None:
    """Have Linux back the heap's next ``size`` bytes by huge pages, once they are used; where it will not, they stay
    small. The heap grows by that much address space, and by no memory."""
    HUGE_PAGE, MADV_HUGEPAGE = 2**21, 14  # x86's and arm64's usual size; from sys/mman.h
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    block = libc.malloc(size)
    if block:
        first = -(-block // HUGE_PAGE) * HUGE_PAGE
        libc.madvise(first, (block + size - first) // HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE)
        libc.free(block)


def fit_threads() -> None:
    """No more threads than cores that may be used: torch knows nothing of quotas. OMP_NUM_THREADS is obeyed."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cores()))


def cores() -> int:
    """How many cores this process may use, in its container too; at least 1."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(there, max(1, math.floor(cpu_quota() or there)))


def cpu_quota(cgroup: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The cores' worth of time that the container may use (cgroup v2, else v1); None where there is no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError):  # no cgroups here
        return None
