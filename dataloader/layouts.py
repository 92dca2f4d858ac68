"""What one's own folders hold, be it one class or splits and classes; what a CSV file lists (docs/own_images.md)."""

import csv
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dataloader.base import Item
from dataloader.errors import DataError
from dataloader.images import FORMATS, image_files

HOW_TO = (
    "Name a folder of normal images with --data-root, or one with train/good and val/<class>, test/<class>, or a CSV "
    "file with a column path (docs/own_images.md)."
)
SPLITS = {name: name for name in ("train", "val", "test")} | {
    "training": "train", "valid": "val", "validation": "val", "testing": "test",
}  # fmt: skip
NORMAL = {"good", "normal"}
MASKS = "ground_truth"
NOT_MASKS = {"mask", "masks", "gt", "groundtruth", "ground-truth", "segmentation", "segmentations"}  # often meant so
HEALTHY = {"healthy", "negative", "no finding", "no findings", "no_finding", "nofinding", "false"}  # often meant so
NOTHING = {"nan", "na", "n/a", "none", "null", "unknown", "?", "-1", "-1.0"}  # labels that are none
FOLDERS_NAMED = 5  # of those that are taken for normal
BESIDE = {"img": False, "label": True}  # within a class's folder: whether masks are there
COLUMNS = ("path", "label", "split", "mask", "person")
UNNAMED = {"1", "1.0", "anomalous"}  # labels that do not say of what kind

Items = dict[str, list[Item]]  # of train, val and test


# -- folders ----------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where in the layout of splits and classes a file lies."""

    split: str
    folder: str  # the class's, as it is written; "" where the file lies directly in its split
    name: str  # below that folder, without the file's ending
    is_mask: bool

    @property
    def of_class(self) -> str:
        return "normal" if self.folder.lower() in NORMAL or not self.folder else self.folder.lower()


def place_of(parts: tuple[str, ...]) -> Place | None:
    """The place of a file from the parts of its path below the root; None for one beside the splits."""
    *folders, file = parts
    names = [folder.lower() for folder in folders]
    if names[:1] == [MASKS]:
        split, is_mask, inner = "test", True, folders[1:]
    elif names and names[0] in SPLITS:
        split, is_mask = SPLITS[names[0]], names[1:2] == [MASKS]
        inner = folders[1 + is_mask :]
    else:
        return None
    of_class, *inner = inner or [""]
    if inner and inner[0].lower() in BESIDE:
        is_mask |= BESIDE[inner[0].lower()]
        inner = inner[1:]
    return Place(split, of_class, "/".join([*inner, Path(file).stem]), is_mask)


def from_folders(root: Path) -> Items:
    """What a folder holds, normal images of each split first. Raises DataError."""
    files = {file: file.relative_to(root).parts for file in image_files(root)}
    if not files:
        raise DataError(f"{root}: holds no {FORMATS}. {HOW_TO}")
    if not any(len(parts) > 1 and SPLITS.get(parts[0].lower()) == "train" for parts in files.values()):
        return {"train": all_normal(root, files), "val": [], "test": []}
    places = {file: place for file, parts in files.items() if (place := place_of(parts))}
    if beside := sorted({parts[0] for file, parts in files.items() if file not in places}):
        print(f"note: {root}: not read, being in no split: {', '.join(beside)}", file=sys.stderr)
    check_folders(root, files, places)
    masks = find_masks(places)
    are_masks = set(masks.values())
    items: Items = {"train": [], "val": [], "test": []}
    for file, place in places.items():
        if file not in are_masks:
            label = int(place.of_class != "normal")
            mask = masks.get((place.split, place.of_class, place.name))
            items[place.split].append(Item(file, label, place.folder if label else "normal", mask=mask))
    return {split: sorted(of_split, key=lambda item: item.label) for split, of_split in items.items()}


def all_normal(root: Path, files: dict[Path, tuple[str, ...]]) -> list[Item]:
    """All files as normal images. Raises DataError where the names of folders say otherwise."""
    advice = f"Put normal images in {root / 'train' / 'good'} and others in {root / 'test' / '<class>'}."
    example: dict[frozenset[str], Path] = {}  # which of NORMAL a file's folders are called → such a folder
    stems = {(file.parent, file.stem) for file in files}
    for file, parts in files.items():
        names = {part.lower() for part in parts[:-1]}
        check_mask_folder(file, parts)
        if (of := without_mask(file.stem)) != file.stem and (file.parent, of) in stems:
            raise DataError(f"{file}: looks like the mask of {of}, among images that are all normal. Take it out.")
        if names & {*SPLITS, MASKS}:
            raise DataError(
                f"{file}: lies in a split or among masks, but {root / 'train'} has no images. {advice} What is to be "
                "evaluated lies beside what was trained on."
            )
        example.setdefault(frozenset(names & NORMAL), file.parent)
    if len(example) > 1:
        raise DataError(f"{' and '.join(map(str, example.values()))}: which of them are the normal images? {advice}")
    common = len(os.path.commonprefix([parts[:-1] for parts in files.values()]))  # folders that all of them lie in
    folders = Counter("/".join(parts[: common + 1]) if len(parts) > common + 1 else "." for parts in files.values())
    if len(folders) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in folders.most_common(FOLDERS_NAMED))
        more = f" and {len(folders) - FOLDERS_NAMED} more" if len(folders) > FOLDERS_NAMED else ""
        print(f"note: {root}: all images are taken for normal ones: {shown}{more}. If some are not: {advice}",
              file=sys.stderr)  # fmt: skip
    return [Item(file, 0) for file in files]


def check_mask_folder(file: Path, parts: tuple[str, ...]) -> None:
    """Raise DataError where a file lies in a folder that is called as masks are elsewhere."""
    if names := NOT_MASKS & {part.lower() for part in parts[:-1]}:
        raise DataError(
            f"{file}: lies in a folder {names.pop()}, but masks are in {MASKS}/<class> beside train, or in label "
            "beside img, and all others are images. Rename the folder."
        )


def check_folders(root: Path, files: dict[Path, tuple[str, ...]], places: dict[Path, Place]) -> None:
    """Raise DataError for an image in no class, a split or class named twice or as no anomaly is, a folder without
    images."""
    spelled: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for file, place in places.items():
        if not place.folder and place.split != "train":
            raise DataError(f"{file}: is in no class. Put it in {file.parent / 'good'} or {file.parent / '<class>'}.")
        if not place.is_mask:
            check_mask_folder(file, files[file])
            if place.of_class in HEALTHY | NOTHING:
                raise DataError(
                    f"{root.joinpath(*files[file][:2])}: would be a kind of anomaly. Rename it to good if it is of "
                    "normal images."
                )
            split, *others = files[file][:-1]
            spelled[place.split,].add(split)
            spelled[place.split, place.of_class].add("/".join([split, *others[:1]] if place.folder else [split]))
    for names in spelled.values():
        if len(names) > 1:
            raise DataError(f"{root}: {' and '.join(sorted(names))} are the same split or class. Make one of them.")
    filled = {folder for file in files for folder in file.parents}
    for split in (folder for folder in root.iterdir() if folder.is_dir() and folder.name.lower() in SPLITS):
        for folder in (split, *(inner for inner in split.iterdir() if inner.is_dir() and inner.name[0] != ".")):
            if folder not in filled:
                raise DataError(f"{folder}: holds no {FORMATS}. Fill the folder, or remove it.")


def find_masks(places: dict[Path, Place]) -> dict[tuple[str, str, str], Path]:
    """(split, class, name of the image) → its mask, which is called as the image or has _mask after it.

    Raises:
        DataError: for two masks of an image, and for one of none.
    """
    names = Counter((place.split, place.of_class, place.name) for place in places.values() if not place.is_mask)
    masks: dict[tuple[str, str, str], Path] = {}
    for file, place in places.items():
        own, of = ((place.split, place.of_class, name) for name in (place.name, without_mask(place.name)))
        key = own if place.is_mask and own in names else of
        if not place.is_mask and (of == own or of not in names):
            continue  # an image; but 000_mask.png beside 000.png is its mask
        if key not in names:
            raise DataError(f"{file}: is the mask of no image of {'/'.join(key[:2])}. Rename or remove it.")
        if names[key] > 1:
            raise DataError(f"{file}: is the mask of {names[key]} images of {'/'.join(key[:2])}. Rename one of them.")
        if masks.setdefault(key, file) != file:
            raise DataError(f"{file}: {masks[key]} is a mask of the same image. Remove one.")
    return masks


def without_mask(name: str) -> str:
    """An image's name, of that of its mask beside it."""
    return name[: -len("_mask")] if name.lower().endswith("_mask") else name


# -- CSV --------------------------------------------------------------------------------------------------------------


def from_csv(path: Path) -> Items:
    """The images of a CSV file, whose paths begin at its own folder. Raises DataError."""
    items: Items = {"train": [], "val": [], "test": []}
    absent, blank = [], Counter()
    for line, row in read_rows(path):
        where, label = f"{path}, line {line}", row["label"].lower()
        if not row["path"]:
            raise DataError(f"{where}: names no path. Mend the line, or take it out.")
        if (split := SPLITS.get(row["split"].lower() or "train")) is None:
            raise DataError(f"{where}: split {row['split']!r} is none of {', '.join(SPLITS)}. Mend the line.")
        if label in HEALTHY | NOTHING:
            raise DataError(
                f"{where}: label {row['label']!r} would be a kind of anomaly. Write good where the image is normal, or "
                "take the line out where nobody knows."
            )
        normal = label in {*NORMAL, "0", "0.0", ""}
        if not label:
            blank[split] += 1
        if not normal and NORMAL & {part.lower() for part in Path(row["path"]).parts[:-1]}:
            raise DataError(
                f"{where}: {row['path']} lies among normal images, and its label is {row['label']!r}. Mend the label, "
                "or move the file."
            )
        kind = "normal" if normal else "anomalous" if label in UNNAMED else row["label"]
        mask = path.parent / row["mask"] if row["mask"] else None
        item = Item(path.parent / row["path"], int(not normal), kind, person=row["person"], mask=mask)
        items[split].append(item)
        absent += [f"{file} (line {line})" for file in (item.path, mask) if file and not file.is_file()]
    if absent:
        raise DataError(
            f"{path}: {len(absent)} files that it names are not there, the first {absent[0]}. Mend the paths, which "
            "begin at the CSV file's folder, or take the lines out."
        )
    for split in ("val", "test"):
        if blank[split] and any(item.label for item in items[split]):
            print(f"note: {path}: {blank[split]} {split} images have no label, and count as normal", file=sys.stderr)
    return items


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a CSV file with their numbers, "" for what is not said. Raises DataError."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restval="", skipinitialspace=True, strict=True)
            names = [name.strip().lower() for name in rows.fieldnames or ()]
            if "path" not in names:
                raise DataError(
                    f"{path}: has no column path. Its first line, {','.join(rows.fieldnames or ())!r}, must name the "
                    f"columns, of {', '.join(COLUMNS)}, with commas between them."
                )
            if twice := [name for name, count in Counter(names).items() if count > 1 and name in COLUMNS]:
                raise DataError(f"{path}: has two columns {twice[0]}. Take one out, or rename it.")
            if unread := [name for name in names if name not in COLUMNS]:
                print(f"note: {path}: columns that are not read: {', '.join(unread)}", file=sys.stderr)
            rows.fieldnames = names
            for row in rows:
                if None in row:
                    raise DataError(
                        f"{path}, line {rows.line_num}: has more fields than columns. Put quotation marks around a "
                        "field that has commas in it."
                    )
                given = {column: row.get(column, "") for column in COLUMNS}
                yield rows.line_num, given | {column: given[column].strip() for column in ("label", "split", "person")}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}). Save it anew.") from error
