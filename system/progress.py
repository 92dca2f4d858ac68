"""Long work as people see it: a bar on a terminal, and elsewhere, as in a batch queue's log, a line a minute."""

import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

from tqdm import tqdm

from system import distributed

SILENCE = 60.0  # seconds after which a log gets a line

T = TypeVar("T")


def watched(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items one after another, of which there are ``total`` (by default ``len(items)``)."""
    total = len(items) if total is None else total
    if sys.stderr.isatty():
        yield from tqdm(items, what, total, leave=False)
        return
    started = spoke = monotonic()
    for done, item in enumerate(items):
        now = monotonic()
        if done and now - spoke >= SILENCE and distributed.is_main_process():
            spoke, left = now, (now - started) / done * (total - done)
            print(f"{what}: {done} of {total}, about {in_words(left)} left", file=sys.stderr, flush=True)
        yield item


def in_words(seconds: float) -> str:
    """A duration: 40 s, 5 min, 6 h 12 min, 3 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
