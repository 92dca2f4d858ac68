"""PaDiM: Gaussians of one embedding, distances and maps by them."""

from collections.abc import Iterator, Sequence

import torch

import configs
from benchmarks.beside_anomalib.shared import SIGMA, Row, blurred_as_theirs, shown
from methods.maps import gaussian_blur, upsample
from methods.padim import Padim
from models.gaussians import Gaussians, unfolded

THEIR_RIDGE = 0.01 + 1e-5  # one where covariances are summed up, one where they are inverted


def rows(settings: Sequence[str]) -> Iterator[Row]:
    from anomalib.models.components import MultiVariateGaussian
    from anomalib.models.image.padim.torch_model import PadimModel

    config = configs.build("padim", settings)
    loader, images = shown(config)
    ours = Padim(config)
    ours.load_pretrained()
    ours.fit(loader)
    theirs = PadimModel("resnet18", list(config.layers), pre_trained=False)
    theirs.feature_extractor, theirs.idx = ours.features, ours.chosen

    # 1. one set of features, both embeddings
    f = ours.embedded(images)  # (B, d, h, w)
    yield Row("= embedding, the same channels", f, theirs.generate_embedding(ours.features(images)))

    # 2. one embedding of the training images, both sets of Gaussians
    theirs.train()
    for batch in loader.unaugmented():
        theirs(batch)
    embedded = torch.cat(theirs.memory_bank)  # (N, d, h, w)
    theirs.fit()
    theirs.eval()
    alike, exact = Gaussians(), in_float64(MultiVariateGaussian, embedded)
    alike.fit(embedded.flatten(2).split(config.batch_size), THEIR_RIDGE)
    count = embedded[0, 0].numel()
    yield Row("= means", ours.gaussians.means.flatten(0, 1)[:count].T, theirs.gaussian.mean)
    yield Row("= inverse covariances, ridge 0.01001, float64", inverses(alike)[:count], exact.inv_covariance)

    # 3. distances by them
    def grid(gaussians: Gaussians) -> torch.Tensor:
        return gaussians.distances(f.flatten(2)).reshape(-1, 1, *f.shape[2:])  # (B, 1, h, w)

    def their_grid(gaussian: MultiVariateGaussian) -> torch.Tensor:
        inverse = gaussian.inv_covariance
        return theirs.anomaly_map_generator.compute_distance(f.to(inverse), [gaussian.mean, inverse])  # (B, 1, h, w)

    yield Row("= distance, ridge 0.01001, float64", grid(alike), their_grid(exact))
    yield Row("distance: ridge 0.01; 0.01001", grid(ours.gaussians), their_grid(exact))
    distances = their_grid(theirs.gaussian)
    yield Row("distance: inverted in float64; in float32", grid(alike), distances)

    # 4. maps of one grid of distances, and scores as they come
    pixels, out = upsample(distances, images.shape[-1]), theirs(images)  # (B, 1, H, W)
    yield Row("map: edge repeated; not repeated", gaussian_blur(pixels, SIGMA), out.anomaly_map)
    alike_map = blurred_as_theirs(pixels)
    yield Row("= map, edge not repeated", alike_map, out.anomaly_map)
    yield Row("score: as they come", ours.score(images).image["distance"], out.pred_score[:, 0])
    yield Row("= score of the same distances, edge not repeated", alike_map.amax((1, 2, 3)), out.pred_score[:, 0])


def in_float64(gaussian: type[torch.nn.Module], embedded: torch.Tensor) -> torch.nn.Module:
    """Their Gaussians of features (N, d, h, w), which are float32 by default, to tell rounding from intent."""
    torch.set_default_dtype(torch.float64)
    try:
        fitted = gaussian()
        fitted.fit(embedded.double())
    finally:
        torch.set_default_dtype(torch.float32)
    return fitted


def inverses(gaussians: Gaussians) -> torch.Tensor:
    """The covariances' inverses (P, d, d), P rounded up to an even number."""
    lower = torch.stack(unfolded(gaussians.factors), 1).flatten(0, 1).tril()
    return torch.cholesky_inverse(lower.double())
