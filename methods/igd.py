"""IGD: Chen et al., "Deep One-Class Classification via Interpolated Gaussian Descriptor", AAAI 2022.

Codes of normal images gather around a centre, and an image is decoded from its code; a critic has the images of mixed
codes look as those of plain ones. What lies far from the centre or is decoded badly is anomalous: whole images are
judged so, and patches, by networks of their own.

Deviations from the authors' program, of which the first five mend it:
- The critic is compared with the share that each image was mixed with; the program compares every image with every
  share, so that the critic learns the mean share alone.
- The decoder's batch norm is in training mode in training; the program leaves evaluation mode on when it has taken the
  first centre, and the running statistics stay what they were at first.
- sigma is taken around the new centre, not the one before it.
- A patch's reconstruction error is absolute; the program's scoring lets differences cancel out.
- The last weights are taken, not the best on the test set.
- Images are gray, and repeated for the frozen network only. They are not mirrored in training: a chest has sides.
- Reconstructions are compared in [0, 1], where similarity is at home; the networks work in [−1, 1].
- A code is decoded together with its mixture, so that batch norm's running statistics are of both.
- The patches' sigma is a mean over batches of as many images as ``batch_size``, not of the two that are trained on.
- A scale's similarity counts as 0.001 at least, and patches of 32 pixels have two scales; the weights of any number
  of scales add up to 1.
- The decoder's tanh, and sizes that are not said of the networks for patches and of the critic's ends, follow from the
  images.
- The parts are stages of one training. A last batch that is not full is left out for images: a single one has no other
  to be mixed with. The maps are ours.
"""

import torch
from torch import nn
from torch.nn.functional import conv_transpose2d
from torch.optim.lr_scheduler import PolynomialLR

from configs.igd import IgdConfig
from dataloader.loader import Batch, TrainLoader
from methods.autoencoder import to_images, to_network
from methods.base import Method, Scores
from models.features import FrozenFeatures
from models.igd import Descriptor
from models.ssim import multi_scale_similarity
from system.seeding import seeded

BETAS = (0.0, 0.9)  # of Adam
PATCHES_AT_ONCE = 512  # where no gradient is wanted
# the reconstruction error's shares of a score; the rest is the Gaussian's
GLOBAL_SHARE = 0.5
DETECTION_SHARES = {"global": 0.1, "local": 0.9}  # the halves that make up ``detection``


class Igd(Method):
    """Image scores: ``detection``, half of each part's; ``global``, the image's own; ``local``, its worst patch's."""

    score_names = ("detection", "global", "local")

    def __init__(self, config: IgdConfig):
        super().__init__(config)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        channels = self.features.channels[config.layers[0]]
        self.parts = nn.ModuleDict()
        for name, side in (("global", config.image_size), ("local", config.local_side)):
            with seeded(config.seed, "weights", name):
                self.parts[name] = Descriptor(channels, side, config.base_channels, config.latent_size)
        self.start_stage("global")

    def trained_in(self, stage: str) -> list[nn.Module]:
        return [self.parts[stage]]

    def start_stage(self, name: str) -> None:
        super().start_stage(name)
        config, part = self.config, self.parts[name]
        self.optimizers = {
            player: torch.optim.Adam(
                [parameter for network in networks for parameter in network.parameters()],
                config.learning_rate, BETAS, weight_decay=config.weight_decay, fused=True,
            )
            for player, networks in (("autoencoder", (part.encoder, part.decoder)), ("critic", (part.critic,)))
        }  # fmt: skip
        self.schedulers = {
            player: PolynomialLR(optimizer, config.poly_epochs, config.poly_power)
            for player, optimizer in self.optimizers.items()
        }

    def start_epoch(self, loader: TrainLoader, epoch: int) -> None:
        own = epoch if self.stage == "global" else epoch - self.config.epochs
        if own % self.config.refresh_every == 0:
            self.refresh(loader)

    @torch.no_grad()
    def refresh(self, loader: TrainLoader) -> None:
        """The centre and the variance of the stage's codes of all training images."""
        part = self.parts[self.stage]
        counts, sums, squares = [], [], []  # of each batch: all codes of a data set's patches take much memory
        for images in loader.unaugmented():
            z = part.encoder(self.described(self.cut(images))).cpu().double()  # (n, latent); mps has no float64
            counts.append(len(z))
            sums.append(z.sum(0))
            squares.append(z.square().sum())
        sums, squares = torch.stack(sums), torch.stack(squares)  # (batches, latent), (batches,)
        counts = torch.tensor(counts).to(squares)

        mean = sums.sum(0) / counts.sum()  # (latent,)
        # an encoder of zeros alone must not be at the centre (Deep SVDD)
        centre = mean.abs().clamp(min=self.config.least_centre) * torch.where(mean < 0, -1, 1)
        distances = squares - 2 * sums @ centre + counts * centre.square().sum()  # (batches,): sums of squares
        part.centre.copy_(centre)
        part.sigma.copy_((distances / counts).clamp(min=1).mean())

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        part, config = self.parts[self.stage], self.config

        # 1. codes of the images, or of their patches, and mixtures of two; alpha is the share of the code itself
        images = self.cut(batch.images)  # (n, 1, s, s)
        x = to_network(images)
        z = part.encoder(self.described(images))  # (n, latent)
        alpha = torch.rand(len(z), 1).to(z) / 2
        mixed = alpha * z + (1 - alpha) * z.flip(0)

        # 2. the auto-encoder learns to rebuild, to keep codes near the centre, and that mixtures decode to images
        x_hat, x_mixed = self.decoded(part, torch.cat([z, mixed])).chunk(2)  # (n, 1, s, s) each
        terms = {
            "reconstruction": self.reconstruction_error(x_hat, images).mean(),
            "gaussian": part.strangeness(z).mean(),
            "mixture": config.critic_weight * self.judged(part, x_mixed).square().mean(),
        }
        losses = terms | {"autoencoder": self.update("autoencoder", terms, batch)}

        # 3. the critic learns to tell how much was mixed, and that in reconstructions nothing was
        x_hat, x_mixed = x_hat.detach(), x_mixed.detach()
        realer = x_hat + config.real_share * (x - x_hat)
        terms = {
            "critic_mixed": (self.judged(part, x_mixed) - alpha.squeeze(1)).square().mean(),
            "critic_plain": self.judged(part, realer).square().mean(),
        }
        return losses | terms | {"critic": self.update("critic", terms, batch)}

    def cut(self, images: torch.Tensor) -> torch.Tensor:
        """What the stage's part sees: (B, 1, S, S) → the same, or all patches (B·g², 1, s, s)."""
        return self.patches(images) if self.stage == "local" else images

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """All patches of every image, row by row: (B, 1, S, S) → (B·g², 1, s, s)."""
        side, stride = self.config.local_side, self.config.local_stride
        return images.unfold(2, side, stride).unfold(3, side, stride).reshape(-1, 1, side, side)

    @torch.no_grad()
    def described(self, images: torch.Tensor) -> torch.Tensor:
        """The frozen network's mean features: (n, 1, s, s) → (n, C)."""
        parts = images.split(PATCHES_AT_ONCE)
        return torch.cat([f.mean((2, 3)) for part in parts for f in self.features(part).values()])

    def decoded(self, part: Descriptor, z: torch.Tensor) -> torch.Tensor:
        """(n, latent) → (n, 1, s, s) in [−1, 1], computed in the configured precision, in z's."""
        with self.autocast():
            x_hat = part.decoder(z)
        return x_hat.to(z)

    def judged(self, part: Descriptor, x: torch.Tensor) -> torch.Tensor:
        """What the critic says: (n, 1, s, s) in [−1, 1] → (n,)."""
        with self.autocast():
            guess = part.critic(x)
        return guess.to(x)

    def reconstruction_error(self, x_hat: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Of x̂ (n, 1, s, s) in [−1, 1] and the images in [0, 1], mixed of structure and absolute error: (n,)."""
        x_hat, weight = to_images(x_hat), self.config.ssim_weight
        absolute = (x_hat - images).abs().mean((1, 2, 3))
        return weight * (1 - multi_scale_similarity(x_hat, images)) + (1 - weight) * absolute

    def judgements(self, name: str, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a part makes of images (n, 1, s, s): its error (n,), its Gaussian's (n,) and x̂ (n, 1, s, s)."""
        part, found = self.parts[name], []
        for some in images.split(PATCHES_AT_ONCE):
            z = part.encoder(self.described(some))
            x_hat = self.decoded(part, z)
            found.append((self.reconstruction_error(x_hat, some), part.strangeness(z), x_hat))
        return tuple(torch.cat(each) for each in zip(*found, strict=True))

    def scores_of(self, images: torch.Tensor) -> Scores:
        error, gaussian, x_hat = self.judgements("global", images)
        patch_error, patch_gaussian, _ = self.judgements("local", self.patches(images))
        shares = DETECTION_SHARES
        patch = blend(patch_error, patch_gaussian, shares["local"]).reshape(len(images), -1)  # (B, g²)
        local = patch.amax(1)
        grid = patch.unflatten(1, (1, int(patch.shape[1] ** 0.5), -1)).clamp(min=0)  # (B, 1, g, g); rounding
        scores = {
            "detection": (local + blend(error, gaussian, shares["global"])) / 2,
            "global": blend(error, gaussian, GLOBAL_SHARE),
            "local": local,
        }
        patch_map = self.spread(grid)
        return Scores(
            image={name: values.cpu().double() for name, values in scores.items()},
            columns={"global_error": error.cpu().double(), "global_gaussian": gaussian.cpu().double()},
            maps={"detection": patch_map, "global": (to_images(x_hat) - images).abs(), "local": patch_map},
            reconstruction=to_images(x_hat),
        )

    def spread(self, grid: torch.Tensor) -> torch.Tensor:
        """For every pixel the mean of the patches that it is in: (B, 1, g, g) → (B, 1, S, S)."""
        kernel = grid.new_ones(1, 1, self.config.local_side, self.config.local_side)
        totals, counts = (conv_transpose2d(each, kernel, stride=self.config.local_stride) for each in
                          (grid, torch.ones_like(grid[:1])))  # fmt: skip
        return totals / counts


def blend(error: torch.Tensor, gaussian: torch.Tensor, share: float) -> torch.Tensor:
    return share * error + (1 - share) * gaussian
