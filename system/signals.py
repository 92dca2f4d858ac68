"""What happens on Ctrl-C (SIGINT), SIGTERM, and SIGHUP, of a terminal or connection that is closed; and where output
goes that nobody reads any more."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HANGUP = getattr(signal, "SIGHUP", None)  # not everywhere
PIPE = getattr(signal, "SIGPIPE", signal.SIGTERM)  # what is said to have stopped a run that nobody reads


@contextmanager
def handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Within the ``with``, ``handler`` gets these signals; after it, who got them before.

    SIGHUP it gets once, since kernel and shell may both send it, and not at all where it is ignored (nohup).
    """
    hung_up = False

    def on_hangup(number: int, frame: object) -> None:
        nonlocal hung_up
        if not hung_up:
            hung_up = True
            leave_terminal()
            handler(number, frame)

    handlers = {signal.SIGINT: handler, signal.SIGTERM: handler}
    if HANGUP and signal.getsignal(HANGUP) != signal.SIG_IGN:
        handlers[HANGUP] = on_hangup
    former = {number: signal.signal(number, own) for number, own in handlers.items()}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


def leave_terminal() -> None:
    """Let what is printed to a terminal go nowhere: writing to one that is closed is an error."""
    for stream in (1, 2):
        with suppress(OSError):  # one that was closed from the start
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def leave_pipe() -> None:
    """Let what is printed to a pipe that nobody reads go nowhere; stderr with it where it is the same pipe."""
    out, err = os.fstat(1), os.fstat(2)
    for stream in (1, 2) if os.path.samestat(out, err) else (1,):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
