"""DDAD's speed: an epoch of each stage beside a plain loop that takes one network after another, and scoring in batches
beside one image at a time. Random images; all is measured in this one run, in turn, so the ratios can be compared.

    python benchmarks/ddad.py [--config ddad_brain_ae] [--images 256] [--repeats 5] [--out results/ddad_speed.md]
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from benchmarks import report
from benchmarks.measure import timed
from commands import cli
from dataloader.loader import Batch
from evaluation.scoring import score_images
from methods import METHODS
from methods.autoencoder import BETAS, losses, to_network
from methods.ddad import Ddad, focal_loss, refinement_inputs
from methods.synthetic import with_squares
from system.device import choose_device, to_float
from system.tuning import tune
from tools.results import markdown


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ddad_brain_ae", metavar="NAME", help="default: ddad_brain_ae")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changed settings of it")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="of an epoch; default: 256")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there too, as Markdown")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    device = choose_device(args.device)
    config = configs.build(args.config, args.set)
    if config.method != "ddad":
        raise configs.ConfigError(f"--config {args.config}: is of method {config.method}, not ddad.")
    if args.images < max(stage.batch_size for stage in config.stages()) or args.repeats < 1:
        raise configs.ConfigError("--images must be at least a batch, and --repeats 1.")
    tune(config.precision)
    out = report.Report("DDAD's speed", args.out, device)
    method = METHODS[config.method](config).to(device)
    pictures = torch.randint(0, 256, (args.images, config.image_size, config.image_size), dtype=torch.uint8)
    images = to_float(pictures, device)  # (N, 1, S, S)

    def plain_refinement() -> None:
        for name in method.refinement:
            one_refinement(method, images, name)

    def score(batch: torch.Tensor) -> None:
        score_images(method, batch, device, "scoring")

    rows = []
    for stage in ("udm", "ndm", "refine"):
        method.start_stage(stage)
        plain = plain_refinement if stage == "refine" else partial(plain_epoch, method, images)
        times = side_by_side(device, partial(epoch, method, images), plain, args.repeats)
        rows.append([f"an epoch of {stage}", *times])
    one_by_one = pictures.split(1)
    times = side_by_side(device, lambda: score(pictures), lambda: [score(each) for each in one_by_one], args.repeats)
    rows.append(["scoring", *times])
    out.add(
        f"{args.config}, {args.images} random images, medians of {args.repeats} (lowest – highest). Plain takes one "
        "network after another, and one image at a time to score.", "",
        *markdown(["work", "ours, s", "plain, s", "ratio"], rows),
    )  # fmt: skip


def side_by_side(device: torch.device, ours: Callable, plain: Callable, repeats: int) -> list[str]:
    """Seconds of both, which take turns, and their ratio."""
    ours()
    plain()
    times = [(timed(ours, device), timed(plain, device)) for _ in range(repeats)]
    own, theirs = map(list, zip(*times, strict=True))
    return [report.spread(own), report.spread(theirs), report.ratios(theirs, own)]


def epoch(method: Ddad, images: torch.Tensor) -> None:
    """A stage as it is trained: all its networks step together, an ensemble's each on a batch of its own."""
    (stage,) = (stage for stage in method.stages if stage.name == method.stage)
    for batch in whole_batches(images, stage.batch_size):
        method.training_step(Batch.of(torch.cat([batch] * stage.orders)))


def whole_batches(images: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """As training takes them: a last one that is not full is left out."""
    return images[: len(images) // size * size].split(size)


def plain_epoch(method: Ddad, images: torch.Tensor) -> None:
    """Member after member goes through the images."""
    config = method.config
    for network in method.ensemble(method.stage):
        optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, BETAS)
        network.train()
        for x in whole_batches(to_network(images), config.batch_size):
            loss = losses(network(x), x, config.entropy_weight)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()


def one_refinement(method: Ddad, images: torch.Tensor, name: str) -> None:
    """One refinement net goes through the images, with discrepancies of its own."""
    config, network = method.config, method.refinement[name]
    adam = {"lr": config.refine_learning_rate, "weight_decay": config.refine_weight_decay}
    optimizer = torch.optim.Adam(network.parameters(), **adam)
    method.eval()
    network.train()
    for batch in whole_batches(images, config.refine_batch_size):
        x, mask = with_squares(to_network(batch))
        with torch.no_grad():
            maps = refinement_inputs(method.discrepancies(x))[name]
        loss = focal_loss(network(maps).softmax(1), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


if __name__ == "__main__":
    cli.run(main)
