"""Make the Med-AD layout (images/ and data.json) from an original download, or look for repeated images in one.

    python tools/prepare_data.py {rsna,vindr,brain,lag} --source DOWNLOAD --out DIR [--lists data.json] [--seed N]
    python tools/prepare_data.py --check DIR

With the authors' data.json (--lists) the split is theirs. Without it, patients are drawn by the seed into training,
unlabeled and test images in the numbers of the benchmark (or in their proportions, where the download is smaller), so
that no patient is in the test set and outside it; where the files do not name a patient, every image is its own.

RSNA and VinDr-CXR are DICOM and become 512×512 PNG (pip install -r requirements-dicom.txt); others are copied as they
are. Files that are there already are kept, so an interrupted run goes on. A DICOM file's rescale and window (VOI) are
applied, and what it then spans is stretched to 8 bits; --raw stretches the stored pixels, as DDAD's program does.

--check counts the test images that repeat training or unlabeled images, as eval.py leaves them out, and says what tells
the test classes apart without any look at the anatomy: the files' colour modes, and the mean gray level.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands import cli
from dataloader import DataError
from dataloader.dicom import patient_of, read_dicom
from dataloader.duplicates import RULE, SIDE, duplicates_of
from dataloader.images import DICOM, read_images
from dataloader.medad import parse_lists, read_lists
from evaluation.metrics import auc
from system.files import write_atomically, write_text
from system.seeding import generator
from tools.originals import READERS, Original, present

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
    parser.add_argument("dataset", nargs="?", choices=tuple(READERS))
    parser.add_argument("--source", type=Path, metavar="DOWNLOAD", help="the unpacked original download")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where images/ and data.json are made")
    parser.add_argument("--lists", type=Path, metavar="FILE", help="the authors' data.json")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the split without --lists")
    parser.add_argument("--raw", action="store_true", help="DICOM: the stored pixels, without rescale and window")
    parser.add_argument("--check", type=Path, metavar="DIR", help="count repeated images of a Med-AD layout")
    args = parser.parse_args()
    if bool(args.check) == bool(args.dataset) or (args.dataset and not (args.source and args.out)):
        parser.error("give a dataset with --source and --out, or --check DIR")
    return args


def main() -> None:
    args = arguments()
    print(check(args.check) if args.check else prepare(args))


def prepare(args: argparse.Namespace) -> str:
    originals = present(READERS[args.dataset](args.source), args.source)
    if args.lists:
        parts = listed_parts(args.lists, originals)
    else:
        parts = drawn_parts(originals, read_patients(originals), COUNTS[args.dataset], args.seed)
    images = args.out / "images"
    for original in tqdm([o for part in parts.values() for o in part], "writing images", disable=None, leave=False):
        write_image(original, images / original.name, args.raw)
    names = {part: [original.name for original in chosen] for part, chosen in parts.items()}
    train = {"0": names["train", 0], "unlabeled": {str(label): names["unlabeled", label] for label in (0, 1)}}
    content = {"train": train, "test": {str(label): names["test", label] for label in (0, 1)}}
    write_text(args.out / "data.json", json.dumps(content, indent=1) + "\n")
    counts = ", ".join(f"{split} {('normal', 'anomalous')[label]} {len(p)}" for (split, label), p in parts.items())
    return f"{args.out}: {counts}. Train with --data-root {args.out}"


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


def write_image(original: Original, target: Path, raw: bool) -> None:
    if target.exists():
        return
    if original.path.suffix in DICOM:
        picture = read_dicom(original.path, raw).resize((PNG_SIDE, PNG_SIDE), Image.Resampling.BILINEAR)
        write_atomically(target, lambda part: picture.save(part, format="PNG"))
    else:
        write_atomically(target, lambda part: shutil.copyfile(original.path, part))


def check(root: Path) -> str:
    """Of the test images, which repeat others and what tells the classes apart at no cost. Raises DataError."""
    lists = read_lists(root, "Make it with tools/prepare_data.py.")
    paths = {part: [root / "images" / name for name in names] for part, names in lists.items()}
    references = [path for (split, _), of in paths.items() if split != "test" for path in of]
    lines = [f"{root}: test images that repeat training or unlabeled ones. Rule: {RULE}."]
    for label, what in ((0, "normal"), (1, "anomalous")):
        found = duplicates_of(paths["test", label], references)
        lines.append(
            f"{what:>10}: {found.count('identical')} byte-identical and {found.count('near')} more nearly identical, "
            f"of {len(found)}"
        )
    return "\n".join(lines + differences(paths["test", 0], paths["test", 1]))


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def differences(normal: list[Path], anomalous: list[Path]) -> list[str]:
    """Two traits of the test files that are no anatomy, and the AUC that each has alone, in its better direction."""
    files = normal + anomalous
    labels = np.arange(len(files)) >= len(normal)
    gray = read_images(files, SIDE, "gray levels", "box").float().mean((1, 2)).numpy()  # 0 … 255
    modes = np.array([mode_of(path) for path in files])

    def line(what: str, values: np.ndarray, of_class: Callable[[np.ndarray], str]) -> str:
        found = auc(labels, values)
        classes = "; ".join(
            f"{name} {of_class(chosen)}" for name, chosen in (("normal", ~labels), ("anomalous", labels))
        )
        return f"{what:>16}: AUC {100 * max(found, 1 - found):.1f} % ({classes})"

    return [
        "What tells the test classes apart without a look at the anatomy:",
        line(
            "colour mode", modes == "L", lambda of: ", ".join(f"{m} {n}" for m, n in Counter(modes[of]).most_common())
        ),
        line("mean gray level", gray, lambda of: f"{gray[of].mean():.0f} ± {gray[of].std():.0f} of 255"),
    ]


if __name__ == "__main__":
    cli.run(main)
