"""What happens on Ctrl-C (SIGINT) and SIGTERM."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Within the ``with``, ``handler`` gets both signals; after it, who got them before."""
    former = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
