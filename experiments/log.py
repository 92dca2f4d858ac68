"""What a run writes for people: log.txt (and the screen) and TensorBoard."""

import errno
import os
import re
import sys
from contextlib import suppress
from datetime import datetime

from tqdm import tqdm

from experiments.folder import Experiment
from system import distributed
from system.files import DISK_FULL
from system.signals import leave_terminal


class Log:
    """Lines with their time, appended to log.txt and shown on the screen.

    A full disk silences the file, not the run: what must not be lost is written elsewhere, with its error. Of several
    processes the first alone writes.
    """

    def __init__(self, experiment: Experiment):
        path = experiment.path("log.txt") if distributed.is_main_process() else os.devnull
        self.file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __call__(self, line: str) -> None:
        with suppress(OSError):
            self.file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {line}\n")
        try:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
        except OSError as error:
            if error.errno == errno.EIO:  # a closed terminal, whose signal is on its way or ignored (nohup)
                leave_terminal()
            elif error.errno not in DISK_FULL:
                raise

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exc) -> None:
        with suppress(OSError):
            self.file.close()


def opening(made: dict[str, str]) -> str:
    """The line that every part of a run starts with: ``commit …, python …, torch …, device …, precision …``."""
    return ", ".join(f"{key} {value}" for key, value in made.items())


def log_until(experiment: Experiment, epoch: int) -> str:
    """log.txt's lines up to the end of that epoch, counted from 1; all of them where it does not tell, for 0 none."""
    if not epoch:
        return ""
    path = experiment.path("log.txt")
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    ends = [line.end() for line in re.finditer(rf"^[-\d]+ [:\d]+  epoch {epoch}/\d+ .*\n", text, re.MULTILINE)]
    return text[: ends[-1]] if ends else text


def run_parts(experiment: Experiment) -> list[dict[str, str | None]]:
    """What log.txt says of the parts that a run was trained in, as :func:`opening` wrote it; each kind once.

    Keys are commit, python, torch, device and precision, which logs of older versions lack (None). Empty for imports.
    """
    path = experiment.path("log.txt")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ()
    pattern = r"commit (?P<commit>\S+), python (?P<python>\S+), torch (?P<torch>\S+), device (?P<device>.+?)"
    pattern += r"(, precision (?P<precision>\S+))?"
    found = []
    for line in lines:
        made = re.fullmatch(rf"[-\d]+ [:\d]+  {pattern}", line)
        if made and made.groupdict() not in found:
            found.append(made.groupdict())
    return found
