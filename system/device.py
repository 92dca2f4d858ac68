"""The device that networks compute on, and what goes there."""

import platform
from pathlib import Path

import torch

from system import distributed


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


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or this process, has no memory left."""
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in said)


def to_float(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, H, W) uint8 → (B, 1, H, W) float32 in [0, 1] on the device; in colour (B, 3, H, W) → same."""
    images = images.to(device)
    return (images if images.dim() == 4 else images.unsqueeze(1)).float() / 255


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) in [0, 1], what lies beyond being cut → (B, H, W) uint8 on the CPU."""
    return (images.clamp(0, 1) * 255).round().byte().squeeze(1).cpu()


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
    return f"{several}{device.type} ({processor()}, {torch.get_num_threads()} threads)"


def processor() -> str:
    """The CPU's name where Linux tells it, else what the platform calls it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return (names[0] if names else platform.processor()) or platform.machine()
