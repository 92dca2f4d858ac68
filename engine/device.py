"""Choosing a device, and tuning this process to the machine it runs on."""

import ctypes
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from engine import distributed


class DeviceError(Exception):
    """A device that this machine does not have."""


def choose_device(name: str) -> torch.device:
    """``auto`` takes cuda, then mps, then cpu; of several processes each takes a GPU of its own, or the CPU.

    Raises:
        DeviceError: where a named one is not available, or GPUs are fewer than processes.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if distributed.world_size() > 1:
        available["mps"] = False  # torch.distributed does not know it
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        there = ", ".join(device for device, yes in available.items() if yes)
        raise DeviceError(f"--device {name} is not available here; this machine has: {there}.")
    if name == "cuda" and distributed.world_size() > 1:
        if distributed.local_rank() >= torch.cuda.device_count():
            raise DeviceError(
                f"There are more processes than GPUs ({torch.cuda.device_count()}) on this machine. Give torchrun "
                f"--nproc_per_node={torch.cuda.device_count()}, or --device cpu."
            )
        torch.cuda.set_device(distributed.local_rank())
        return torch.device(name, distributed.local_rank())
    return torch.device(name)


def tune(precision: str) -> None:
    """Allocator, threads and TF32 of this process; with ``fp32`` or ``bf16`` none of it changes a result."""
    keep_memory()
    fit_threads()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


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


def to_float(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, H, W) uint8 → (B, 1, H, W) float32 in [0, 1] on the device."""
    return images.to(device).unsqueeze(1).float() / 255


def resident(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Images on the GPU, where they take no more than a quarter of what is free there; else where they are."""
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 4:
        return images
    return images.to(device)


def describe(device: torch.device) -> str:
    """The device in words, for logs and results."""
    several = f"{distributed.world_size()} × " if distributed.world_size() > 1 else ""
    if device.type == "cuda":
        return several + torch.cuda.get_device_name(device)
    return f"{several}{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def provenance(device: torch.device) -> dict[str, str]:
    """Commit, versions and machine, so that a figure can be produced again."""
    root = Path(__file__).resolve().parent.parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        commit = subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git on this machine
        commit = ""
    return {
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of torch's own would not load with weights_only
        "device": describe(device),
    }
