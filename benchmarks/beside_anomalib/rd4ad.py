"""RD4AD: maps and loss of one teacher's and one student's features, and one set of weights in both students."""

from collections.abc import Iterator, Sequence

import torch

import configs
from benchmarks.beside_anomalib.shared import SIGMA, Row, blurred_as_theirs, copy_weights, shown
from dataloader.loader import Batch
from methods.rd4ad import Rd4ad, summed_distances
from models.rd4ad import Bottleneck, Decoder
from system.seeding import seeded

STEPS = 12  # that our student is trained for, so that there is something to restore
WIDE = "wide_resnet50_2"  # theirs has fixed widths
CHANNELS = (256, 512, 1024)


def rows(settings: Sequence[str]) -> Iterator[Row]:
    config = configs.build("rd4ad", ["batch_size=4", f"max_batches={STEPS}", *settings])
    loader, images = shown(config)
    with seeded(0, "peers"):
        ours = Rd4ad(config)
    ours.load_pretrained()
    with torch.enable_grad():
        for batch in loader.epoch(0).batches():
            ours.training_step(batch)
    yield from maps(ours, images)
    yield from losses(ours, images)
    yield from networks()


def maps(ours: Rd4ad, images: torch.Tensor) -> Iterator[Row]:
    """Of the same features; theirs multiplies the layers' maps on demand, ours always adds them."""
    from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode, AnomalyMapGenerator

    ours.eval()
    compared, side = ours.compared(images), images.shape[-1]
    teacher, student = (list(features) for features in zip(*compared.values(), strict=True))
    unblurred = AnomalyMapGenerator((side, side), 0.1, AnomalyMapGenerationMode.ADD)  # a kernel of one pixel
    added, multiplied = (
        AnomalyMapGenerator((side, side), SIGMA, mode)(teacher, student)
        for mode in (AnomalyMapGenerationMode.ADD, AnomalyMapGenerationMode.MULTIPLY)
    )

    layers = {layer: summed_distances([pair], side) for layer, pair in compared.items()}  # (B, 1, S, S) each
    for (layer, (t, s)), grid in zip(compared.items(), layers.values(), strict=True):
        yield Row(f"= 1 − cosine of {layer}, upsampled", grid, unblurred([t], [s]))
    out, score = ours.score(images), added.amax((1, 2, 3))
    yield Row("map: edge repeated; not repeated", out.maps["distance"], added)
    alike_map = blurred_as_theirs(summed_distances(compared.values(), side))
    yield Row("= map, edge not repeated", alike_map, added)
    yield Row("score: as they come", out.image["distance"], score)
    yield Row("= score, edge not repeated", alike_map.amax((1, 2, 3)), score)
    product = blurred_as_theirs(torch.stack(list(layers.values())).prod(0))
    yield Row("= map, layers multiplied, edge not repeated", product, multiplied)


def losses(ours: Rd4ad, images: torch.Tensor) -> Iterator[Row]:
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss

    ours.train()
    teacher, student = zip(
        *(tuple(f.contiguous() for f in pair) for pair in ours.compared(images).values()), strict=True
    )
    with torch.enable_grad():
        loss = ours.training_step(Batch.of(images))["loss"]
    yield Row("= loss", loss, ReverseDistillationLoss()(teacher, student))


def networks() -> Iterator[Row]:
    """Bottleneck and decoder for a Wide ResNet-50-2's features."""
    from anomalib.models.components.backbone import get_decoder
    from anomalib.models.image.reverse_distillation.components import get_bottleneck_layer

    with seeded(0, "peers"):
        bottleneck, decoder = Bottleneck(CHANNELS), Decoder(CHANNELS)
        teacher = [torch.rand(2, c, 16 >> k, 16 >> k) for k, c in enumerate(CHANNELS)]
    decoder(bottleneck(*teacher))  # in training mode, so that the batch norms have statistics

    with torch.device("meta"):
        narrow = get_bottleneck_layer(WIDE)
    widths = [next(blocks.parameters()).shape[0] for blocks in (bottleneck.embedding, narrow.bn_layer)]
    yield Row("width of the embedding's blocks, published 1024", *widths)
    their_bottleneck, their_decoder = get_bottleneck_layer(WIDE, width_per_group=128), get_decoder(WIDE)
    del their_bottleneck.conv4, their_bottleneck.bn4  # nothing uses them
    copy_weights((bottleneck.embedding, bottleneck.from_layer1, bottleneck.from_layer2), their_bottleneck)
    copy_weights(decoder, their_decoder)
    for network in (bottleneck, decoder, their_bottleneck, their_decoder):
        network.eval()
    f = bottleneck(*teacher)
    yield Row("= embedding, 1024 wide", f, their_bottleneck(teacher))
    for k, (own, other) in enumerate(zip(decoder(f), their_decoder(f), strict=True), 1):
        yield Row(f"= restored layer{k}", own, other)
