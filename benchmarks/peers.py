"""Our PatchCore and GANomaly beside anomalib's, on the same features and with the same weights: arithmetic alone,
nothing is trained and nothing is timed.

    pip install anomalib  # beside requirements.txt, in an environment of its own: it brings many packages
    python benchmarks/peers.py [--set backbone=resnet18 dataset=zhang …] [--out FILE.md]

``apart`` is the largest difference in shares of our largest value. Rows that begin with = must be apart by rounding,
or the command fails; in the others the two differ by intent.
"""

import argparse
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, l1_loss, mse_loss

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from benchmarks import report
from commands import cli
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from methods.autoencoder import to_network
from methods.ganomaly import Ganomaly
from methods.losses import adversarial_loss
from methods.maps import gaussian_blur, upsample
from methods.patchcore import PatchCore
from models.bank import Bank, greedy_coreset
from system.device import to_float
from system.seeding import generator, seeded
from tools.results import markdown

CPU = torch.device("cpu")
SMALL = ["image_size=96", "dataset=digit", "digits_per_epoch=48", "bank_ratio=0.05", "backbone=efficientnet_lite0"]
TESTED = 32  # images
ROUNDING = 1e-4


class Row(NamedTuple):
    """One quantity as both compute it."""

    what: str
    ours: torch.Tensor | float
    theirs: torch.Tensor | float

    @property
    def apart(self) -> float:
        ours, theirs = (torch.as_tensor(values, dtype=torch.float64) for values in (self.ours, self.theirs))
        return float((ours - theirs).abs().max() / ours.abs().max())

    def cells(self) -> list[str]:
        means = [float(torch.as_tensor(values, dtype=torch.float64).mean()) for values in (self.ours, self.theirs)]
        return [self.what, *(f"{mean:.5g}" for mean in means), f"{self.apart:.1e}"]


class Given(nn.Module):
    """Our frozen features in the place of anomalib's: (B, 1, H, W) → layer → (B, C, h, w)."""

    def __init__(self, features: nn.Module):
        super().__init__()
        self.features = features

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.features(images)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changed settings of patchcore")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the tables there too, as Markdown")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    if not find_spec("anomalib"):
        sys.exit("error: anomalib is not installed here: pip install anomalib, in an environment of its own.")
    config = configs.build("patchcore", [*SMALL, *args.set])
    with torch.no_grad():
        tables = {"PatchCore": list(patchcore(config)), "GANomaly": list(ganomaly())}
    out = report.Report("Ours beside anomalib", args.out, CPU)
    for title, rows in tables.items():
        header = ("what (the mean of it)", "ours", "anomalib", "apart")
        out.add(f"## {title}", "", *markdown(header, [row.cells() for row in rows]), "")
    same = [row for rows in tables.values() for row in rows if row.what.startswith("=")]
    return int(any(not row.apart < ROUNDING for row in same))


def patchcore(config: configs.BaseConfig) -> Iterator[Row]:
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    dataset = build_dataset(config)
    loader, split = TrainLoader(dataset, config, CPU), dataset.split("test")
    images = to_float(split.images[:TESTED], CPU)
    normal = torch.cat(list(loader.unaugmented()))
    ours = PatchCore(config)
    ours.load_pretrained()
    ours.fit(loader)
    theirs = PatchcoreModel(config.layers, "resnet18", pre_trained=False)
    theirs.feature_extractor = Given(ours.features)

    # 1. one bank, the same queries
    patches = ours.patches(images)  # (B, h·w, d)
    queries = patches.flatten(0, 1)  # (B·h·w, d)
    distances = ours.bank.nearest(queries).reshape(patches.shape[:2]).sqrt()  # (B, h·w)
    theirs.memory_bank = ours.bank.rows
    found, places = (each.reshape(distances.shape) for each in theirs.nearest_neighbors(queries, n_neighbors=1))
    yield Row("= distance to the nearest row", distances, found)
    weighted = theirs.compute_anomaly_score(found, places, queries)
    yield Row("score: largest distance; re-weighted by nine neighbours", distances.amax(1), weighted)

    # 2. one grid of distances, both maps
    side, size = int(distances.shape[1] ** 0.5), images.shape[-1]
    grid = distances.reshape(-1, 1, side, side)
    map_of_theirs = theirs.anomaly_map_generator(grid, (size, size))
    yield Row(
        "map: bilinear, edge repeated; nearest, not repeated", gaussian_blur(upsample(grid, size), 4), map_of_theirs
    )
    nearest, inner = gaussian_blur(interpolate(grid, size=(size, size)), 4), (..., slice(16, -16), slice(16, -16))
    yield Row("= map off the border, both nearest", nearest[inner], map_of_theirs[inner])

    # 3. one set of patches, both coresets
    def chosen_by_theirs(features: torch.Tensor) -> list[int]:
        sampler = KCenterGreedy(features, config.bank_ratio)
        sampler.model.random_state = np.random.RandomState(0)  # by default, none that a seed of torch reaches
        with seeded(0, "peers"):
            return sampler.select_coreset_idxs()

    train = ours.patches(normal).flatten(0, 1)  # (n, d)
    count, rng = int(len(train) * config.bank_ratio), generator(0, "peers")
    of = f"radius of {count} of {len(train)} patches"
    random = radius(train, torch.randperm(len(train), generator=rng)[:count])
    yield Row(f"{of}, at random", random, random)
    unprojected = chosen_by_theirs(train.unsqueeze(2))  # what is 3-D is not projected
    yield Row(f"{of}, chosen", radius(train, greedy_coreset(train, count, rng)), radius(train, unprojected))
    projected = greedy_coreset(ours.projected(train), count, rng)
    yield Row(f"{of}, chosen in a projection", radius(train, projected), radius(train, chosen_by_theirs(train)))
    yield Row("dimensions of a patch", train.shape[1], theirs.train()(normal[:1]).shape[1])


def radius(features: torch.Tensor, picks) -> float:
    """The largest distance of a feature to the nearest pick."""
    bank = Bank()
    bank.rows = features[torch.as_tensor(picks)]
    return float(bank.nearest(features).max().sqrt())


def ganomaly() -> Iterator[Row]:
    from anomalib.models.image.ganomaly.loss import DiscriminatorLoss, GeneratorLoss
    from anomalib.models.image.ganomaly.torch_model import GanomalyModel

    config = configs.build("ganomaly", ["image_size=64"])
    with seeded(0, "peers"):
        ours, theirs = Ganomaly(config), GanomalyModel((64, 64), 1, config.base_channels, config.latent_size)
        x = to_network(torch.rand(8, 1, 64, 64))
    pairs = (
        (ours.generator.encoder, theirs.generator.encoder1), (ours.generator.decoder, theirs.generator.decoder),
        (ours.generator.second_encoder, theirs.generator.encoder2), (ours.discriminator, theirs.discriminator),
    )  # fmt: skip
    first = [next(network.parameters()).std() for network in pairs[0]]
    yield Row("deviation of the first weights, published 0.02", *first)

    # 1. one set of weights, both networks, as they score
    for own, other in pairs:
        for a, b in zip(own.parameters(), other.parameters(), strict=True):
            b.copy_(a)
    ours.eval(), theirs.eval()
    out = ours.generator(x)
    score = (out.z_hat - out.z).square().mean((1, 2, 3))
    yield Row("score: first convolutions padded by 1; by 4", score, theirs(x).pred_score)
    for _, other in (pairs[0], *pairs[2:]):
        next(module for module in other.modules() if isinstance(module, nn.Conv2d)).padding = (1, 1)
    yield Row("= score, padded by 1", score, theirs(x).pred_score)
    x_hat, z, z_hat = theirs.generator(x)
    yield Row("= reconstruction, padded by 1", out.x_hat, x_hat)

    # 2. one forward, both losses
    (p_real, _), (p_fake, _) = (theirs.discriminator(each) for each in (x, x_hat))
    their_loss = {
        part: GeneratorLoss(*weights)(z, z_hat, x, x_hat, p_real, p_fake)
        for part, weights in (("adversarial", (1, 0, 0)), ("reconstruction", (0, 50, 0)), ("latent", (0, 0, 1)))
    }
    features = mse_loss(ours.seen(x), ours.seen(x_hat))
    yield Row("adversarial loss: of features; of probabilities", features, their_loss["adversarial"])
    yield Row("= reconstruction's loss", config.recon_weight * l1_loss(x, x_hat), their_loss["reconstruction"])
    yield Row("latent loss: squared; smooth L1", mse_loss(z, z_hat), their_loss["latent"])
    verdict = (adversarial_loss(ours.judged(x), real=True) + adversarial_loss(ours.judged(x_hat), real=False)) / 2
    yield Row("= discriminator's loss", verdict, DiscriminatorLoss()(p_real, p_fake))


if __name__ == "__main__":
    cli.run(main)
