"""PatchCore: distances to one bank, maps of one grid of distances, coresets of one set of patches."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.functional import interpolate

import configs
from benchmarks.beside_anomalib.shared import SIGMA, Row, blurred_as_theirs, shown
from methods.maps import gaussian_blur, upsample
from methods.patchcore import PatchCore
from models.bank import Bank, greedy_coreset
from system.seeding import generator, seeded

COVERED = 48  # images whose patches a coreset is chosen of: theirs takes long


def rows(settings: Sequence[str]) -> Iterator[Row]:
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    config = configs.build("patchcore", ["bank_ratio=0.05", *settings])
    loader, images = shown(config)
    normal = torch.cat(list(loader.unaugmented()))[:COVERED]
    ours = PatchCore(config)
    ours.load_pretrained()
    ours.fit(loader)
    theirs = PatchcoreModel(config.layers, "resnet18", pre_trained=False)
    theirs.feature_extractor = ours.features

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
    map_of_ours = gaussian_blur(upsample(grid, size), SIGMA)
    yield Row("map: bilinear, edge repeated; nearest, not repeated", map_of_ours, map_of_theirs)
    alike_map = blurred_as_theirs(interpolate(grid, size=(size, size)))
    yield Row("= map, nearest, edge not repeated", alike_map, map_of_theirs)

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


def radius(features: torch.Tensor, picks: torch.Tensor | list[int]) -> float:
    """The largest distance of a feature to the nearest pick."""
    bank = Bank()
    bank.rows = features[torch.as_tensor(picks)]
    return float(bank.nearest(features).max().sqrt())
