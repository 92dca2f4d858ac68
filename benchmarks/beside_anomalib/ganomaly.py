"""GANomaly: one set of weights in both networks, and the losses of one forward."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss

import configs
from benchmarks.beside_anomalib.shared import Row, copy_weights
from methods.autoencoder import to_network
from methods.ganomaly import Ganomaly
from methods.losses import adversarial_loss
from system.seeding import seeded


def rows() -> Iterator[Row]:
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
        copy_weights(own, other)
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
