"""Our PaDiM, PatchCore, RD4AD and GANomaly beside anomalib's, on the same features and with the same weights:
arithmetic alone; nothing is timed, and nothing trained but RD4AD's student for a dozen steps.

    pip install anomalib  # beside requirements.txt, in an environment of its own: it brings many packages
    python benchmarks/peers.py [--set backbone=resnet18 dataset=zhang …] [--out FILE.md]

Rows that begin with = make the command fail where the two are not equal; in the others they differ by intent.
"""

import argparse
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import report
from benchmarks.beside_anomalib import ganomaly, padim, patchcore, rd4ad
from benchmarks.beside_anomalib.shared import CPU, ROUNDING, TESTED, TRAINED
from commands import cli
from tools.results import markdown

SMALL = ["image_size=96", "dataset=digit", "backbone=efficientnet_lite0"]
APART = (
    "*apart* is the largest difference in shares of our largest value. Rows that begin with = must be equal up to "
    f"rounding, apart by less than {ROUNDING:g}; in the others the two differ by intent."
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings that PaDiM, PatchCore and RD4AD have"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the tables there too, as Markdown")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if not find_spec("anomalib"):
        sys.exit("error: anomalib is not installed here: pip install anomalib, in an environment of its own.")
    settings = [*SMALL, *args.set]
    tables = {
        "PaDiM": padim.rows(settings), "PatchCore": patchcore.rows(settings), "RD4AD": rd4ad.rows(settings),
        "GANomaly": ganomaly.rows(),
    }  # fmt: skip
    out, failed = report.Report("Ours beside anomalib", args.out, CPU), False
    out.add(f"{TRAINED} training images, {TESTED} test images. {APART}", "")
    header = ("what (the mean of it)", "ours", f"anomalib {version('anomalib')}", "apart")
    for title, rows in tables.items():
        with torch.no_grad():
            found = list(rows)
        out.add(f"## {title}", "", *markdown(header, [row.cells() for row in found]), "")
        failed |= any(row.wrong for row in found)
    return int(failed)


if __name__ == "__main__":
    cli.run(main)
