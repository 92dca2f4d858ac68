"""Choosing a device, and keeping the CPU's allocator from giving big tensors back to the system."""

import ctypes
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


def keep_memory() -> None:
    """On glibc, serve big tensors from the heap: mapping them anew each step costs page faults."""
    if sys.platform != "linux":
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # from malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and others
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 256 * 2**20)


def to_float(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, H, W) uint8 → (B, 1, H, W) float32 in [0, 1] on the device."""
    return images.to(device).unsqueeze(1).float() / 255


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
