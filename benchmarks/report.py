"""What a benchmark writes: its command, the machine, and tables."""

import shlex
import sys
from pathlib import Path
from statistics import median

import torch

from system.files import write_text
from system.provenance import provenance


class Report:
    """Lines on the terminal as they come, and in the file so far, beginning with what they were made by and on."""

    def __init__(self, title: str, path: Path | None, device: torch.device):
        self.path = path
        self.lines: list[str] = []
        made = ", ".join(f"{key} {value}" for key, value in provenance(device).items())
        command = shlex.join(["python", *sys.argv])
        self.add(f"# {title}", "", f"Written by `{command}`.", "", f"{made}.", "")

    def add(self, *lines: str) -> None:
        print(*lines, sep="\n", flush=True)
        self.lines += lines
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, "\n".join(self.lines).rstrip() + "\n")


def spread(values: list[float], digits: str = ".3g") -> str:
    """The median with the lowest and the highest."""
    return f"{median(values):{digits}} ({min(values):{digits}} – {max(values):{digits}})"


def ratios(plain: list[float], own: list[float]) -> str:
    """How many times as fast, of neighbouring repetitions."""
    return spread([of_plain / of_own for of_plain, of_own in zip(plain, own, strict=True)], ".2f")
