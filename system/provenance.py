"""Where a figure comes from."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from system.device import describe

# what reads images, draws and scores; pydicom where DICOM files are read
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow", "pydicom")


def packages() -> dict[str, str]:
    """The versions of the packages that a number depends on, those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
