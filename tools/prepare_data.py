"""Make a dataset's layout from an original download, or look at what is in any dataset.

    python tools/prepare_data.py {rsna,vindr,brain,lag} --source DOWNLOAD --out DIR [--lists data.json] [--seed N]
    python tools/prepare_data.py covidx --source LISTS --out DIR [--seed N]
    python tools/prepare_data.py --check DATASET [--data-root PATH]

rsna, vindr, brain and lag get the Med-AD layout, images/ and data.json. With the authors' data.json (--lists) the split
is theirs. Without it, patients are drawn by the seed into training, unlabeled and test images in the numbers of the
benchmark (or in their proportions, where the download is smaller), so that no patient is in the test set and outside
it; where the files do not name a patient, every image is its own.

RSNA and VinDr-CXR are DICOM and become 512×512 PNG (pip install -r requirements-dicom.txt); others are copied as they
are. Files that are there already are kept, so an interrupted run goes on; prepared.json says how they were made. A
DICOM file's rescale and window (VOI) are applied, and what it then spans is stretched to 8 bits; --raw stretches the
stored pixels, as DDAD's program does. The radiologists' boxes in anomalous test images become masks/, filled, all boxes
of an image together, and so eval.py has pixel figures: rough ones, as a box is more than what is in it.

covidx gets its four lists alone (train_squid.txt …), made of COVIDx's own in the folder --source; no patient is in two
of training, validation and test. Which images SQUID's authors held out is not public: these lists are ours.

--check says of any dataset how many images its splits have; how many of them repeat another one; how many persons are
in two splits; whether a linear classifier tells validation's and test's images from training's of the same class; and
how well what is no anatomy tells the test classes apart: the files' colour modes and sizes, the mean gray level, and
the mean step between neighbouring pixels.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from commands import cli
from dataloader import DATASETS, DataError, build_dataset
from dataloader.dicom import patient_of, read_dicom
from dataloader.images import DICOM
from dataloader.medad import parse_lists
from system.files import write_atomically, write_text
from system.progress import watched
from system.seeding import generator
from tools import covidx_lists
from tools.check_data import check
from tools.originals import READERS, Box, Original, present

PART = tuple[str, int]  # (train, unlabeled or test; label)
COUNTS: dict[str, dict[PART, int]] = {  # of the benchmark
    "rsna": {("train", 0): 3851, ("unlabeled", 0): 4000, ("unlabeled", 1): 5012, ("test", 0): 1000, ("test", 1): 1000},
    "vindr": {("train", 0): 4000, ("unlabeled", 0): 5606, ("unlabeled", 1): 3394, ("test", 0): 1000, ("test", 1): 1000},
    "brain": {("train", 0): 1000, ("unlabeled", 0): 400, ("unlabeled", 1): 600, ("test", 0): 600, ("test", 1): 600},
    "lag": {("train", 0): 1500, ("unlabeled", 0): 832, ("unlabeled", 1): 900, ("test", 0): 811, ("test", 1): 811},
}
PNG_SIDE = 512


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", choices=(*READERS, "covidx"))
    parser.add_argument("--source", type=Path, metavar="DOWNLOAD", help="the unpacked original download, or its lists")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where images/ and data.json, or the lists, are made")
    parser.add_argument("--lists", type=Path, metavar="FILE", help="the authors' data.json")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the split without --lists")
    parser.add_argument("--raw", action="store_true", help="DICOM: the stored pixels, without rescale and window")
    parser.add_argument("--check", metavar="DATASET", choices=tuple(DATASETS), help=f"of {', '.join(DATASETS)}")
    cli.add_data_root(parser)
    args = parser.parse_args()
    if bool(args.check) == bool(args.dataset) or (args.dataset and not (args.source and args.out)):
        parser.error("give a dataset with --source and --out, or --check DATASET")
    if args.dataset == "covidx" and (args.lists or args.raw):
        parser.error("--lists and --raw are not for covidx, whose lists alone are made")
    return args


def main() -> None:
    args = arguments()
    if args.check:
        print(check(build_dataset(configs.build("ae", [f"dataset={args.check}"]), args.data_root)))
    elif args.dataset == "covidx":
        print(covidx_lists.write_lists(args.source, args.out, args.seed))
    else:
        print(prepare(args))


def prepare(args: argparse.Namespace) -> str:
    originals = present(READERS[args.dataset](args.source), args.source)
    if args.lists:
        parts = listed_parts(args.lists, originals)
    else:
        parts = drawn_parts(originals, read_patients(originals), COUNTS[args.dataset], args.seed)
    claim(args.out, {"dataset": args.dataset, "raw": args.raw, "side": PNG_SIDE})
    tested = {original.name for original in parts["test", 1]}
    for original in watched([o for part in parts.values() for o in part], "writing images"):
        write_image(original, original.boxes if original.name in tested else (), args.out, args.raw)
    names = {part: [original.name for original in chosen] for part, chosen in parts.items()}
    train = {"0": names["train", 0], "unlabeled": {str(label): names["unlabeled", label] for label in (0, 1)}}
    content = {"train": train, "test": {str(label): names["test", label] for label in (0, 1)}}
    write_text(args.out / "data.json", json.dumps(content, indent=1) + "\n")
    counts = ", ".join(f"{split} {('normal', 'anomalous')[label]} {len(p)}" for (split, label), p in parts.items())
    return f"{args.out}: {counts}. Train with --data-root {args.out}"


def claim(out: Path, settings: dict[str, str | bool | int]) -> None:
    """Write down how the images of a folder are made. Raises DataError where some are there, made otherwise."""
    path = out / "prepared.json"
    try:
        made = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error}). Name another folder with --out.") from error
    if made != settings and (out / "images").exists():
        how = f"that were made with {made}" if made else "and no prepared.json that says how they were made"
        raise DataError(
            f"{out}: has images {how}; asked for is {settings}. Name another folder with --out, or, if they were made "
            f"like that, write {json.dumps(settings)} into {path}."
        )
    write_text(path, json.dumps(settings) + "\n")


def listed_parts(path: Path, originals: list[Original]) -> dict[PART, list[Original]]:
    """The authors' split: names are looked up by label, whatever their ending. Raises DataError."""
    names = parse_lists(path, "Name the authors' data.json with --lists.")
    by_name = {(original.label, original.path.stem): original for original in originals}
    absent = [name for (_, label), of in names.items() for name in of if (label, Path(name).stem) not in by_name]
    if absent:
        raise DataError(f"{path}: {len(absent)} files are not in the download, the first {absent[0]}.")
    return {part: [by_name[part[1], Path(name).stem] for name in of] for part, of in names.items()}


def read_patients(originals: list[Original]) -> dict[str, str]:
    """The patient of every image by its name: what the DICOM header says, else the image itself."""
    found = {}
    for original in originals:
        patient = patient_of(original.path) if original.path.suffix in DICOM else ""
        found[original.name] = patient or original.name
    return found


def drawn_parts(
    originals: list[Original], patients: dict[str, str], counts: dict[PART, int], seed: int
) -> dict[PART, list[Original]]:
    """A split by patient: each kind in the proportions of the benchmark, never more than it has. Raises DataError."""
    room = quotas(originals, counts)
    of_patient: dict[str, list[Original]] = {}
    for original in sorted(originals, key=lambda o: o.name):
        of_patient.setdefault(patients[original.name], []).append(original)
    order = torch.randperm(len(of_patient), generator=generator(seed, "prepare"))
    parts: dict[PART, list[Original]] = {part: [] for part in counts}
    groups = list(of_patient.values())
    for own in (groups[i] for i in order):
        needed = Counter(original.kind for original in own)
        in_test = all(room["test", kind] >= n for kind, n in needed.items())
        for original in own:  # all of a patient's images go to the test set, or none
            splits = ("test",) if in_test else ("train", "unlabeled")
            split = next((s for s in splits if room.get((s, original.kind), 0) > 0), None)
            if split:
                room[split, original.kind] -= 1
                parts[split, original.label].append(original)
    empty = [f"{split} {label}" for (split, label), chosen in parts.items() if not chosen]
    if empty:
        raise DataError(f"The download has too few images: nothing is left for {', '.join(empty)}.")
    return parts


def quotas(originals: list[Original], counts: dict[PART, int]) -> dict[tuple[str, str], int]:
    """How many images of a kind a split takes: the benchmark's, shared equally by the kinds of a label."""
    kinds = Counter((original.label, original.kind) for original in originals)
    room = {}
    for (label, kind), there in kinds.items():
        sharing = sum(other == label for other, _ in kinds)
        wanted = {split: n / sharing for (split, of), n in counts.items() if of == label}
        scale = min(1.0, there / sum(wanted.values()))
        room |= {(split, kind): max(1, int(n * scale)) for split, n in wanted.items()}
    return room


def write_image(original: Original, boxes: tuple[Box, ...], out: Path, raw: bool) -> None:
    """The image, and what is in the boxes as its mask; what is there already stays. Raises DataError, FileError."""
    image, mask = (out / folder / original.name for folder in ("images", "masks"))
    if image.exists() and (mask.exists() or not boxes):
        return
    if original.path.suffix not in DICOM:
        write_atomically(image, lambda part: shutil.copyfile(original.path, part))
        return
    picture = read_dicom(original.path, raw)
    if not image.exists():
        written = picture.resize((PNG_SIDE, PNG_SIDE), Image.Resampling.BILINEAR)
        write_atomically(image, lambda part: written.save(part, format="PNG"))
    if boxes:
        marked = mask_of(boxes, picture.size)
        write_atomically(mask, lambda part: marked.save(part, format="PNG"))


def mask_of(boxes: tuple[Box, ...], size: tuple[int, int]) -> Image.Image:
    """White in every pixel of the written image that a box, in pixels of an original of that size, has a part of."""
    scale = PNG_SIDE / np.array([*size, *size])
    mask = np.zeros((PNG_SIDE, PNG_SIDE), np.uint8)
    for box in boxes:
        left, top = np.floor(box * scale)[:2].astype(int).clip(0)
        right, bottom = np.ceil(box * scale)[2:].astype(int).clip(0)
        mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


if __name__ == "__main__":
    cli.run(main)
