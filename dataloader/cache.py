"""Decoded images kept on disk, so that a large dataset is decoded once and not at every start.

They lie in ``data/cache``, beside the datasets' own places and ignored by git, or in the folder that $ANOMALY_CACHE
names; empty or ``off`` keeps none. They are not put into the data root, which may be read-only, somebody else's, or a
folder of pictures where nobody expects other files, nor into the home folder, whose quota is often small.

A file holds the images of one split of one data root, read with one set of settings, at a byte a pixel: 0.5 GB for
30,000 of 128 × 128. Its index has every image's path, size and time of change; what is not as it was is decoded again,
and left out when the file is next written. It is a zip archive, which has a checksum, and may be deleted at any time.
"""

import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from filelock import FileLock

from system.files import FileError, write_in_any_process

VARIABLE = "ANOMALY_CACHE"
FOLDER = Path("data") / "cache"
LEAST = 200  # images: to decode fewer takes about a second or less, so that nothing is kept or written anew for them
WAIT = 600  # seconds, for another process that decodes the same images
PIXELS, INDEX = "pixels", "index.json"


class Damaged(Exception):
    """A file that is none of ours, or not whole."""


def cache_folder() -> Path | None:
    """Where decoded images are kept; None where none are."""
    named = os.environ.get(VARIABLE, str(FOLDER))
    return None if named.lower() in ("", "off") else Path(named).expanduser()


class Kept:
    """The file of one split's images.

    ``reader`` says how they are made of their files; what another reader made is of no use.
    """

    def __init__(self, path: Path, reader: str):
        self.path = path
        self.reader = reader

    def fill(self, images: np.ndarray, paths: Sequence[Path], decode: Callable[[Sequence[int]], object]) -> None:
        """Fill ``images`` (N, H, W) uint8, of N files, from what is kept, and by ``decode`` the rows that are not.

        What ``decode`` raises passes through, and nothing is written then.
        """
        if len(paths) < LEAST:
            decode(range(len(paths)))
            return
        marks = [mark_of(path) for path in paths]  # before decoding: what changes meanwhile is noticed next time
        missing = self._take(images, marks)
        if len(missing) < LEAST:
            decode(missing)
            return
        with self._alone():
            missing = self._take(images, marks)  # another process may have decoded them meanwhile
            decode(missing)
            if len(missing) >= LEAST:
                self._keep(images, marks)

    def _take(self, images: np.ndarray, marks: list[str]) -> list[int]:
        """Fill in the rows that are kept; returns the others."""
        wanted = defaultdict(list)
        for row, mark in enumerate(marks):
            wanted[mark].append(row)
        try:
            for mark, pixels in self._stored(images.shape[1:]):
                for row in wanted.pop(mark, ()):
                    images[row] = pixels
        except Damaged as error:
            note(f"{self.path}: not a whole file of decoded images ({error}); it is made anew.")
            with suppress(OSError):
                self.path.unlink()
            return list(range(len(marks)))
        return sorted(row for rows in wanted.values() for row in rows)

    def _stored(self, shape: tuple[int, int]) -> Iterator[tuple[str, np.ndarray]]:
        """Every image's mark and its pixels (H, W). Raises Damaged, perhaps only after the last of them."""
        try:
            with ZipFile(self.path) as archive:
                index = json.loads(archive.read(INDEX))
                if index["reader"] != self.reader:
                    return
                with archive.open(PIXELS) as pixels:  # its checksum is looked at where it ends
                    for mark in index["marks"]:
                        yield mark, np.frombuffer(pixels.read(math.prod(shape)), np.uint8).reshape(shape)
        except (FileNotFoundError, NotADirectoryError):
            return
        except Exception as error:  # zipfile and json raise many kinds
            raise Damaged(str(error) or repr(error)) from error

    def _keep(self, images: np.ndarray, marks: list[str]) -> None:
        """Write these images, and of those kept before the ones whose files are still the same."""
        asked = set(marks)

        def write(part: Path) -> None:
            index = list(marks)
            with ZipFile(part, "w") as archive:
                with archive.open(PIXELS, "w", force_zip64=True) as pixels:
                    pixels.write(images)
                    for mark, others in self._stored(images.shape[1:]):
                        if mark not in asked and mark == mark_of(path_of(mark)):
                            pixels.write(others)
                            index.append(mark)
                archive.writestr(INDEX, json.dumps({"reader": self.reader, "marks": index}))

        try:
            write_in_any_process(self.path, write)
        except (FileError, Damaged) as error:
            note(
                f"{self.path.parent}: decoded images cannot be kept there ({error.__cause__}), so they are decoded at "
                f"every start. Name another folder with ${VARIABLE}, or turn this off with {VARIABLE}=off."
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the ``with`` no other process decodes the same images, where files can be locked.

        Without the lock the work is done twice, and nothing else happens: files are written whole.
        """
        with ExitStack() as stack:
            with suppress(OSError, NotImplementedError):  # waited too long; nothing can be written, or locked, there
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(f"{self.path}.lock", timeout=WAIT))
            yield


def mark_of(path: Path) -> str:
    """What tells a file from all others and from itself after a change; empty where it is not there."""
    try:
        stat = path.stat()
    except OSError:  # reading it says what is wrong
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {os.path.abspath(path)}"


def path_of(mark: str) -> Path:
    return Path(mark.split(" ", 3)[3])


@cache
def note(message: str) -> None:
    """Say it once."""
    print(f"note: {message}", file=sys.stderr)
