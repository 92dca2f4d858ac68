"""Where a figure comes from."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from system.device import describe

# what reads images, draws and scores; pydicom where DICOM files are read
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow", "pydicom")

DIRTY = "-dirty"  # follows a commit that is not all that ran
UNKNOWN = "unknown"  # in place of a commit


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
    return {
        "commit": commit(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a class of torch's own would not load with weights_only
        "device": describe(device),
    }


def commit(root: Path) -> str:
    """The commit of the repository at ``root``, with :data:`DIRTY` where tracked files but those of results/, which the
    tools write, have changes beside it; ``unknown`` where there is none.
    """

    def said(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=root, capture_output=True, text=True).stdout.strip()

    try:
        at = said("rev-parse", "--short=12", "HEAD")
        changed = said("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)results")
    except OSError:  # no git on this machine
        return UNKNOWN
    return f"{at}{DIRTY * bool(changed)}" if at else UNKNOWN
