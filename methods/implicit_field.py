"""Implicit field: Naval Marimont and Tarroni, "Implicit Field Learning for Unsupervised Anomaly Detection in Medical
Images", MICCAI 2021; in two dimensions, an adaptation of ours.

A network tells from a place and a code of the whole image how bright the place is. Codes are learned with it; of a new
image the code is sought that explains it best, and what is left unexplained is the anomaly.

Deviations from the authors' program, which is for volumes of brains:
- Places are pixels; the classes are k-means' clusters of the training images' intensities. An image's percentiles are
  of its pixels above 0, as theirs; its zeros are of the lowest class.
- Coordinates are of pixel centres, in training, fitting and scoring; theirs are off by up to a pixel in the first two.
- At 64 pixels the four highest of ten frequencies are constant at pixels' centres, and say nothing.
- Losses are means over points, not sums, which Adam does not tell apart.
- Images that a dataset makes anew for every epoch (DigitAnatomy) stay those of the first, whose codes are learned.
- All codes are shortened to norm 1 when drawn and after each iteration; theirs when next looked at.
- Every scored image is fitted from the same initial code at the same points, which the seed draws.
- The image score, the mean of the map, is ours, as is how long is trained and fitted.
"""

import torch
from sklearn.cluster import KMeans
from torch.nn.functional import avg_pool2d, cross_entropy, max_pool2d, one_hot

from configs.implicit_field import ImplicitFieldConfig
from dataloader.loader import Batch, TrainLoader
from methods.autoencoder import mean_of
from methods.base import Method, Scores, lr_scheduler
from models.implicit_field import Codes, Field, fourier_features, initial_codes
from system.seeding import derive, seeded

PERCENTILES = (0.02, 0.98)  # of an image's intensities above 0, which become 0 and 1
LEVELS = 1024  # of intensities, of which k-means is told how often they occur
MIN_POOL, MEAN_POOL = 3, 15  # of the map: windows, in pixels
POINTS_AT_ONCE = 2**16  # of all images that are scored at once, for memory's sake


class ImplicitField(Method):
    """Image score: ``cross_entropy``, the mean of the map of what the fitted field does not explain."""

    score_names = ("cross_entropy",)

    def __init__(self, config: ImplicitFieldConfig):
        super().__init__(config)
        places = fourier_features(config.image_size, config.frequencies)  # (S², 4·frequencies)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("centres", torch.linspace(0, 1, config.bins))  # of the classes, ascending
        self.field = Field(config.code_size, places.shape[1], config.width, config.bins, config.dropout)
        self.codes = Codes(config.code_size)
        groups = [
            {"params": self.field.parameters()},
            {"params": self.codes.parameters(), "lr": config.code_learning_rate},
        ]
        self.optimizers = {"field": torch.optim.Adam(groups, config.learning_rate, fused=True)}
        self.schedulers = {"field": lr_scheduler(self.optimizers["field"], config)}

    def start_epoch(self, loader: TrainLoader, epoch: int) -> None:
        """Before the first, the classes are made and the codes drawn: only the loader knows how many."""
        if len(self.codes.rows):
            return
        with seeded(self.config.seed, "codes"):
            self.codes.draw(loader.training_size())
        counts = sum(torch.histc(stretched(images)[0], LEVELS, 0, 1).cpu().double() for images in loader.unaugmented())
        levels = (torch.arange(LEVELS) + 0.5) / LEVELS
        kmeans = KMeans(self.config.bins, n_init=10, random_state=derive(self.config.seed, "bins") % 2**32)
        found = kmeans.fit(levels.unsqueeze(1).numpy(), sample_weight=counts.numpy())
        self.centres.copy_(torch.from_numpy(found.cluster_centers_).flatten().sort().values)

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        config = self.config
        self.require_finite(images=batch.images.sum())  # classes would hide it

        # 1. points, anew for every image, and their classes
        points = draw_points(len(batch.images), config.points, len(self.places)).to(batch.images.device)  # (B, points)
        classes = self.classes(batch.images).flatten(1).gather(1, points)  # (B, points)

        # 2. what the field says of them, and how long the codes are
        codes = self.codes(batch.indices)  # (B, code)
        logits = self.logits(codes, self.places[points])  # (B, points, bins)
        grown = min(1.0, (self.schedulers["field"].last_epoch + 1) / config.prior_epochs)  # by this epoch, from 1
        losses = {
            "cross_entropy": cross_entropy(logits.flatten(0, 1), classes.flatten()),
            "prior": config.prior_weight * grown * codes.norm(dim=1).mean(),
        }
        self.update("field", losses, batch)
        self.codes.bound()
        return losses

    def logits(self, codes: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The field of each code (B, code) at places (B or 1, n, place): (B, n, bins), in the codes' precision."""
        shape = (len(codes), places.shape[1], -1)
        with self.autocast():
            logits = self.field(codes.unsqueeze(1).expand(shape), places.expand(shape))
        return logits.to(codes)

    def classes(self, images: torch.Tensor) -> torch.Tensor:
        """The class of every pixel: (B, 1, S, S) → (B, 1, S, S) int64."""
        nearest = torch.bucketize(stretched(images)[0], (self.centres[1:] + self.centres[:-1]) / 2)
        return most_frequent(nearest, len(self.centres))

    def fitted(self, classes: torch.Tensor) -> torch.Tensor:
        """The codes that explain images best whose classes are (B, 1, S, S): (B, code). The field stays as it is."""
        config, classes = self.config, classes.flatten(1)
        with seeded(config.seed, "fit"), torch.enable_grad():
            codes = initial_codes(1, config.code_size).to(self.places).repeat(len(classes), 1).requires_grad_()
            for iterations, count in zip(config.fit_iterations, config.fit_points, strict=True):
                optimizer = torch.optim.Adam([codes], config.fit_learning_rate)
                for _ in range(iterations):
                    points = draw_points(1, count, len(self.places)).to(codes.device)  # (1, count)
                    logits = self.logits(codes, self.places[points])  # (B, count, bins)
                    found = cross_entropy(logits.movedim(2, 1), classes[:, points[0]], reduction="none")
                    optimizer.zero_grad()
                    found.mean(1).sum().backward(inputs=[codes])  # each image's loss is its own
                    optimizer.step()
        return codes.detach()

    def scores_of(self, images: torch.Tensor) -> Scores:
        at_once = max(1, POINTS_AT_ONCE // max(len(self.places), *self.config.fit_points))
        parts = [self.explained(part) for part in images.split(at_once)]
        errors, x_hat = (torch.cat(each) for each in zip(*parts, strict=True))  # (B, 1, S, S)
        maps = smoothed(errors)
        return Scores(image={"cross_entropy": mean_of(maps)}, maps={"cross_entropy": maps}, reconstruction=x_hat)

    def explained(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every pixel's cross-entropy, and the intensity expected there: (B, 1, S, S) each."""
        classes = self.classes(images)
        logits = self.logits(self.fitted(classes), self.places.unsqueeze(0)).movedim(2, 1)  # (B, bins, S²)
        errors = cross_entropy(logits, classes.flatten(1), reduction="none").reshape(images.shape)
        _, low, high = stretched(images)
        expected = (logits.softmax(1) * self.centres[:, None]).sum(1).reshape(images.shape)
        return errors, low + (high - low) * expected


def draw_points(count: int, points: int, pixels: int) -> torch.Tensor:
    """Pixels (count, points), with replacement, from torch's global generator on the CPU."""
    return torch.randint(pixels, (count, points))


def stretched(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images (B, 1, S, S) with intensities from ``low`` to ``high`` stretched to [0, 1]; low and high (B, 1, 1, 1).

    These are PERCENTILES of each image's pixels above 0; zeros stay 0.
    """
    above = images.where(images > 0, torch.nan).flatten(1)  # (B, S²)
    percentiles = images.new_tensor(PERCENTILES)
    low, high = above.nanquantile(percentiles, dim=1).nan_to_num()[..., None, None, None]
    return ((images - low) / (high - low).clamp(min=1e-6)).clamp(0, 1), low, high


def most_frequent(classes: torch.Tensor, count: int) -> torch.Tensor:
    """The class that is most frequent among each pixel, those above and left of it: (B, 1, S, S) int64 → same.

    Beyond the border is class 0; of equally frequent ones it is the lowest.
    """
    side = classes.shape[-1]
    padded = torch.nn.functional.pad(classes, (1, 0, 1, 0)).squeeze(1)  # (B, S + 1, S + 1)
    votes = one_hot(padded, count)  # (B, S + 1, S + 1, count)
    votes = sum(votes[:, dy : dy + side, dx : dx + side] for dy in (0, 1) for dx in (0, 1))
    return votes.argmax(3).unsqueeze(1)


def smoothed(errors: torch.Tensor) -> torch.Tensor:
    """The least of each pixel's neighbours, then their mean over a larger window, beyond the border 0."""
    least = -max_pool2d(-errors, MIN_POOL, 1, MIN_POOL // 2)  # (B, 1, S, S)
    return avg_pool2d(least, MEAN_POOL, 1, MEAN_POOL // 2)
