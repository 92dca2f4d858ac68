"""Normal images that are held out of training (``held_out``), by a draw that depends on nothing but their names, and on
which of them are copies."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from hashlib import sha256
from pathlib import Path

from dataloader.base import Item, digest, read_bytes, sampled
from dataloader.errors import DataError

MOST_HELD_OUT = 500  # images: a rate of 5 % of them is known to ± 2 %


def hold_out(
    training: list[Item],
    share: float,
    root: Path,
    name_of: Callable[[Item], str],
    sample: Callable[[Item], str] = lambda item: sampled(item.path),
) -> tuple[list[Item], list[Item]]:
    """Training images → those to train on, and normal ones that are not, whole persons where persons are known; a held
    person's anomalous images are in neither.

    Persons come in the order of a hash of their names, so that a new file moves few others. Copies of a file stay
    together: what was trained on says nothing of the scores of what was not.

    Args:
        sample: a digest of some of a file's bytes.
    Raises:
        DataError: where nothing would be left to train on.
    """
    persons = of_persons([item for item in training if not item.label], name_of, sample)
    if len(persons) < 2:
        raise DataError(
            f"{root}: its normal training images are one, or one person's, and some are held out (who has a copy of "
            "another's file is the same). Add images, take out such copies, or train on all with --set held_out=0."
        )
    wanted = min(max(1, round(share * sum(map(len, persons.values())))), MOST_HELD_OUT)
    ordered = [persons[name] for name in sorted(persons, key=lambda name: digest(["held out", name]))]
    held: list[Item] = []
    for own in ordered:
        if len(held) + len(own) <= wanted:
            held += own
    held = held or min(ordered, key=len)
    chosen, of_whom = {item.path for item in held}, {item.person for item in held if item.person}
    left = [item for item in training if item.path not in chosen and item.person not in of_whom]
    return left, [item for item in training if item.path in chosen]


def of_persons(
    items: list[Item], name_of: Callable[[Item], str], sample: Callable[[Item], str]
) -> dict[str, list[Item]]:
    """Person, or file where none is known → their images; who has a copy of another's image is the same."""
    same: dict[str, str] = {}  # name → another of the same person, or itself

    def person(name: str) -> str:
        while same.setdefault(name, name) != name:
            name = same[name]
        return name

    owner: dict[str, str] = {}  # what a file holds → whose it is
    names = [item.person or name_of(item) for item in items]
    for name, content in zip(names, contents(items, sample), strict=True):
        first, second = sorted((person(name), person(owner.setdefault(content, name))))
        same[second] = first
    found = defaultdict(list)
    for name, item in zip(names, items, strict=True):
        found[person(name)].append(item)
    return found


def contents(items: list[Item], sample: Callable[[Item], str]) -> list[Hashable]:
    """What tells each file's content from the others': no more of it is read than that takes. Raises DataError."""
    found: list[Hashable] = [item.path.stat().st_size for item in items]
    for more in (sample, lambda item: sha256(read_bytes(item.path)).hexdigest()):
        several = Counter(found)
        found = [(of, more(item)) if several[of] > 1 else of for of, item in zip(found, items, strict=True)]
    return found
