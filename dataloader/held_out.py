"""Normal images that are held out of training (``held_out``), by a draw that depends on nothing but their names."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from dataloader.base import Item, digest
from dataloader.errors import DataError

MOST_HELD_OUT = 500  # images: a rate of 5 % of them is known to ± 2 %


def hold_out(
    training: list[Item], share: float, root: Path, name_of: Callable[[Item], str]
) -> tuple[list[Item], list[Item]]:
    """Training images → those to train on, and normal ones that are not, whole persons where persons are known; a held
    person's anomalous images are in neither.

    Persons come in the order of a hash of their names, so that a new file moves few others.

    Raises:
        DataError: where nothing would be left to train on.
    """
    persons: dict[str, list[Item]] = defaultdict(list)
    for item in training:
        if not item.label:
            persons[item.person or name_of(item)].append(item)
    if len(persons) < 2:
        raise DataError(
            f"{root}: its normal training images are one, or one person's, and some are held out. Add images, or train "
            "on all with --set held_out=0."
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
