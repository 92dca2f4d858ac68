"""DDAD's speed: an epoch of each stage beside a plain loop that takes one network after another, and scoring in batches
beside one image at a time. Random images; all is measured in this one run, so the ratios can be compared.

    python benchmarks/ddad.py [--config ddad_brain_ae] [--images 256] [--device cpu]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from benchmarks.measure import timed
from engine import cli
from engine.device import choose_device, describe, keep_memory
from engine.evaluation import score_images
from methods import METHODS
from methods.autoencoder import BETAS, losses, to_network
from methods.ddad import Ddad, focal_loss, refinement_inputs
from methods.synthetic import with_squares


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ddad_brain_ae", metavar="NAME", help="default: ddad_brain_ae")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="of an epoch; default: 256")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    keep_memory()
    device = choose_device(args.device)
    config = configs.build(args.config)
    method = METHODS[config.method](config).to(device)
    pictures = torch.randint(0, 256, (args.images, config.image_size, config.image_size), dtype=torch.uint8)
    images = pictures.to(device).unsqueeze(1).float() / 255  # (N, 1, S, S)
    print(f"{args.config}, {args.images} images, {describe(device)}: seconds, best of 2")

    def plain_refinement() -> None:
        for name in method.refinement:
            one_refinement(method, images, name)

    def score(batch: torch.Tensor) -> None:
        score_images(method, batch, device, "scoring")

    for stage in ("udm", "ndm"):
        method.start_stage(stage)
        side_by_side(f"an epoch of {stage}", device, lambda: epoch(method, images), lambda: plain_epoch(method, images))
    method.start_stage("refine")
    side_by_side("an epoch of refine", device, lambda: epoch(method, images), plain_refinement)
    side_by_side("scoring", device, lambda: score(pictures), lambda: [score(each) for each in pictures.split(1)])


def side_by_side(what: str, device: torch.device, ours: Callable, plain: Callable) -> None:
    times = []
    for run in (ours, plain):
        run()
        times.append(min(timed(run, device) for _ in range(2)))
    print(
        f"{what:>20}: {times[0]:8.2f}   one after another {times[1]:8.2f}   ratio {times[1] / times[0]:.2f}", flush=True
    )


def epoch(method: Ddad, images: torch.Tensor) -> None:
    """A stage as it is trained: all its networks step together, an ensemble's each on a batch of its own."""
    (stage,) = (stage for stage in method.stages if stage.name == method.stage)
    for batch in images.split(stage.batch_size):
        method.training_step(torch.cat([batch] * stage.orders), 0)


def plain_epoch(method: Ddad, images: torch.Tensor) -> None:
    """Member after member goes through the images."""
    config = method.config
    for network in method.ensemble(method.stage):
        optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, BETAS)
        network.train()
        for x in to_network(images).split(config.batch_size):
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
    for batch in images.split(config.refine_batch_size):
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
