"""Files that are there whole or not at all."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from system import distributed

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class FileError(Exception):
    """A file that cannot be written."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """``write`` a temporary file beside ``path``, flush it to the disk and put it in place.

    Of several processes the first alone writes.

    Raises:
        FileError: where the disk is full or closed, the file that was there before stays; where no file can be.
    """
    if distributed.is_main_process():
        write_in_any_process(path, write)


def write_in_any_process(path: Path, write: Callable[[Path], object]) -> None:
    """As :func:`write_atomically`, whichever process this is."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    require_file(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise FileError(
            f"{path}: could not be written ({error}){free_space(path)}. The file that was there before is untouched; "
            f"{remedy(error)} and run the same command again."
        ) from error
    finally:
        with suppress(OSError):  # not there, nor can it be
            part.unlink()


def require_file(path: Path) -> None:
    """Raise FileError where something else is in a file's place."""
    if path.exists() and not path.is_file():
        raise FileError(f"{path}: is a folder or a device. Name another file.")


def check_writable(file: Path) -> None:
    """Raise FileError where the file cannot be put there, before any work is done for it. Leaves nothing behind."""
    require_file(file)
    check_writable_folder(file.parent, file)


def check_writable_folder(folder: Path, what: Path | None = None) -> None:
    """As :func:`check_writable`, of a folder that need not be there, for ``what`` of it."""
    whole = folder.absolute()
    try:
        TemporaryFile(dir=next(above for above in (whole, *whole.parents) if above.exists())).close()
    except OSError as error:
        raise FileError(f"{what or folder}: cannot be written ({error}); {remedy(error)} and run it again.") from error


def remedy(error: Exception) -> str:
    """What to do about it; a RuntimeError is torch's, of a full disk."""
    permitted = isinstance(error, OSError) and error.errno not in DISK_FULL
    return "mend the path or who may write there" if permitted else "make room on the disk"


def free_space(path: Path) -> str:
    """How much its disk has left, to be added to a message; torch's words for a full one do not say."""
    try:
        return f"; {shutil.disk_usage(path.parent).free / 1e6:,.0f} MB are free on its disk"
    except OSError:
        return ""


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
