"""COVIDx's own lists → the four that the loader reads (dataloader/covidx.py), split by patient.

Which training images SQUID's authors held out is not public: these lists are ours, and a comment in them says so.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from dataloader import DataError
from dataloader.base import read_lines
from dataloader.covidx import COMMENT, parse_line
from system.files import write_text
from system.seeding import generator

VERSIONS = ("9A", "_CXR-3A", "8A", "7A")  # of the lists with three labels; SQUID's is 9A
HOW_TO = (
    "Name the folder of COVIDx's lists with --source (labels/ of github.com/lindawangg/COVID-Net): train_COVIDx9A.txt "
    f"and test_COVIDx9A.txt, or another version of {', '.join(VERSIONS)}."
)
TEST = "test_COVIDx9A.txt"
MADE = f"{COMMENT} not the authors' list: made by tools/prepare_data.py"


class Entry(NamedTuple):
    """A line of a list."""

    line: str
    patient: str
    name: str
    label: str


def write_lists(source: Path, out: Path, seed: int) -> str:
    """Write the lists into ``out``; returns what they hold, in words. Raises DataError."""
    version = next((v for v in VERSIONS if all(official(source, part, v).is_file() for part in ("train", "test"))), "")
    if not version:
        raise DataError(f"{source}: holds no training and test list of one version. {HOW_TO}")
    test = read_entries(official(source, "test", version))
    listed = read_entries(official(source, "train", version))
    tested = {entry.patient for entry in test}
    free = [entry for entry in listed if entry.patient not in tested]
    train, val = hold_out(free, Counter(entry.label for entry in test), seed)
    parts = {
        "train_squid.txt": [entry for entry in train if entry.label == "normal"],
        "train_squid_abnormal.txt": [entry for entry in train if entry.label != "normal"],
        "val_squid.txt": val,
    }
    if not all(parts.values()) or len({entry.label == "normal" for entry in val}) < 2:
        raise DataError(f"{official(source, 'train', version)}: has too few images of a class to hold any out.")
    drawn_from = f"{MADE}, seed {seed}, from {official(source, 'train', version).name}"
    texts = {name: "\n".join([drawn_from, *(entry.line for entry in part), ""]) for name, part in parts.items()}
    texts[TEST] = official(source, "test", version).read_text(encoding="utf-8-sig")
    if version != VERSIONS[0]:
        texts[TEST] = f"{MADE}: {official(source, 'test', version).name} as it is\n{texts[TEST]}"
    new = {name: text for name, text in texts.items() if is_new(out / name, text)}
    for name, text in new.items():
        write_text(out / name, text)
    counts = "\n".join(f"{name}: {in_words(part)}" for name, part in {**parts, TEST: test}.items())
    return (
        f"{counts}\nIn {out}, from COVIDx's lists of version {version.strip('_')}; {len(listed) - len(free)} training "
        "images whose patients are in the test list are left out. These are not the lists of SQUID's authors, which "
        "are not public."
    )


def official(source: Path, part: str, version: str) -> Path:
    return source / f"{part}_COVIDx{version}.txt"


def read_entries(path: Path) -> list[Entry]:
    """The lines of a list, a file that is listed again left out. Raises DataError."""
    entries: dict[str, Entry] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip() and not line.startswith(COMMENT):
            entry = Entry(line, *parse_line(line, f"{path}, line {number}"))
            entries.setdefault(entry.name, entry)
    return list(entries.values())


def hold_out(entries: list[Entry], wanted: Counter[str], seed: int) -> tuple[list[Entry], list[Entry]]:
    """Training images → those to train on, those to validate with: as many of each label as wanted, at most a tenth.

    Patients come in an order drawn by the seed, and go with all their images or stay.
    """
    there = Counter(entry.label for entry in entries)
    room = Counter({label: min(wanted[label], max(1, n // 10)) for label, n in there.items()})
    patients: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        patients.setdefault(entry.patient, []).append(entry)
    names = list(patients)
    held: set[str] = set()
    for i in torch.randperm(len(names), generator=generator(seed, "covidx")):
        needed = Counter(entry.label for entry in patients[names[i]])
        if needed <= room:
            room -= needed
            held.add(names[i])
    return [e for e in entries if e.patient not in held], [e for e in entries if e.patient in held]


def is_new(path: Path, text: str) -> bool:
    """Whether a list is to be written. Raises DataError for one that is not of our making: the authors', perhaps."""
    there = path.read_text(encoding="utf-8-sig") if path.is_file() else MADE
    if there != text and not there.startswith(MADE):
        raise DataError(f"{path}: is there already, and not made by this tool. Move it, or take another --out.")
    return there != text


def in_words(entries: list[Entry]) -> str:
    return ", ".join(f"{n} {label}" for label, n in Counter(entry.label for entry in entries).items())
