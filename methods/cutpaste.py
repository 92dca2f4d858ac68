"""CutPaste: Li et al., "CutPaste: Self-Supervised Learning for Anomaly Detection and Localization", CVPR 2021.

A network learns to tell images from the same images with a piece of them pasted elsewhere; what looks unusual to it
then is the anomaly. The paper's authors published no program: settings are those of MedIAnomaly (Cai et al.,
"MedIAnomaly: A comparative study of anomaly detection in medical images", 2024), whose program is meant below.

Deviations from that program:
- It trains on the first 3,000 images; here on all.
- Lengths of a scar are those of the paper's images of 256 pixels, scaled to the image's side, and at least 2.
- The jitter is that of gray images, where saturation and hue do nothing, and its pixels stay unrounded; a
  scar's contrast is changed after it is turned, about the mean of the pixels that are pasted.
- A batch may reach from one pass over the images into the next; the program leaves the last, partial one out.
- The cosine begins after the first epoch, theirs after the second.
- ``kernel`` and ``classifier`` are reported beside the published score, ``gaussian``. The paper's maps, of a network
  for patches or of gradients, are left out.
"""

import math
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy, normalize

from configs.cutpaste import CutPasteConfig
from dataloader.loader import Batch, TrainLoader
from methods.autoencoder import to_network
from methods.base import Method, Scores, lr_scheduler
from models.cutpaste import VIEWS, CutPasteNet
from models.density import Density

JITTER = 0.1  # brightness and contrast are multiplied by 0.9–1.1
PATCH_AREA = (0.02, 0.15)  # as a share of the image's
PATCH_ASPECT = (0.3, 3.3)
SCAR_HEIGHT, SCAR_WIDTH = (10, 25), (2, 16)  # in pixels of an image of SCAR_SIDE
SCAR_SIDE = 256
SCAR_ANGLE = math.radians(45)  # at most, either way


class CutPaste(Method):
    """Image scores: ``gaussian``, the Mahalanobis distance to the mean normal feature; ``kernel``, the negative log of
    a kernel density of the normal features; ``classifier``, 1 − p(normal)."""

    score_names = ("gaussian", "kernel", "classifier")

    def __init__(self, config: CutPasteConfig):
        super().__init__(config)
        self.network = CutPasteNet()
        self.density = Density()
        self.optimizers = {
            "network": torch.optim.SGD(
                self.network.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
            )
        }
        self.schedulers = {"network": lr_scheduler(self.optimizers["network"], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        # 1. every image as it is, with a patch and with a scar
        views = three_views(batch.images)  # (3·B, 1, S, S)
        classes = torch.arange(VIEWS, device=views.device).repeat_interleave(len(batch.images))

        # 2. which is which, all in one forward
        _, logits = self.seen(views)
        losses = {"classification": cross_entropy(logits, classes)}
        self.update("network", losses, batch)
        return losses

    def seen(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, 512) of length 1 and logits (B, 3), computed in the configured precision, in the images'."""
        with self.autocast():
            z, logits = self.network(to_network(images))
        return normalize(z.to(images)), logits.to(images)

    @torch.no_grad()
    def fit(self, loader: TrainLoader, epoch: int = 0) -> None:
        """The densities of the training images' features, unaugmented."""
        self.eval()
        self.density.fit(torch.cat([self.seen(images)[0] for images in loader.unaugmented()]))

    def scores_of(self, images: torch.Tensor) -> Scores:
        z, logits = self.seen(images)
        normal, others = logits.cpu().double().split([1, 2], 1)
        margin = others.logsumexp(1) - normal.squeeze(1)
        return Scores(
            image={
                "gaussian": self.density.mahalanobis(z).cpu().double(),
                "kernel": -self.density.log_density(z, self.config.bandwidth),
                "classifier": margin.sigmoid(),  # 1 − p(normal), which in float32 would be 1 of all that are sure
            }
        )


# -- the views --------------------------------------------------------------------------------------------------------


class Jitter(NamedTuple):
    """Factors of brightness and contrast, and which comes first, of every image; on the CPU."""

    brightness: torch.Tensor  # (B,)
    contrast: torch.Tensor  # (B,)
    contrast_first: torch.Tensor  # (B,) bool


class Cuts(NamedTuple):
    """A rectangle of every image, and how it is pasted; row and column in pixels, on the CPU."""

    size: torch.Tensor  # (B, 2) int64: height and width
    source: torch.Tensor  # (B, 2) int64: the upper left corner that it is cut from
    centre: torch.Tensor  # (B, 2) float: of what is pasted; a pixel's own centre is at its index + ½
    angle: torch.Tensor  # (B,) radians by which it is turned


def three_views(images: torch.Tensor) -> torch.Tensor:
    """Jittered images, these with a patch, and these with a scar: (B, 1, S, S) in [0, 1] → (3·B, 1, S, S).

    All is drawn from torch's global generator, on the CPU.
    """
    count, side = len(images), images.shape[-1]
    normal = jittered(images, draw_jitter(count))
    patched = pasted(normal, draw_patches(count, side), draw_jitter(count))
    scarred = pasted(normal, draw_scars(count, side), draw_jitter(count))
    return torch.cat([normal, patched, scarred])


def draw_jitter(count: int) -> Jitter:
    factors = torch.empty(2, count).uniform_(1 - JITTER, 1 + JITTER)
    return Jitter(*factors, torch.rand(count) < 0.5)


def draw_patches(count: int, side: int) -> Cuts:
    """Upright rectangles of a uniform area and a log-uniform aspect."""
    area = torch.empty(count).uniform_(*PATCH_AREA) * side**2
    aspect = torch.empty(count).uniform_(*map(math.log, PATCH_ASPECT)).exp()
    size = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()], dim=1).round().long()
    return draw_cuts(size, torch.zeros(count), side)


def draw_scars(count: int, side: int) -> Cuts:
    """Small rectangles, higher than wide for the most part, turned a little."""
    sides = [torch.empty(count).uniform_(*bounds) for bounds in (SCAR_HEIGHT, SCAR_WIDTH)]
    size = (torch.stack(sides, dim=1) * side / SCAR_SIDE).round().long().clamp(min=2)
    return draw_cuts(size, torch.empty(count).uniform_(-SCAR_ANGLE, SCAR_ANGLE), side)


def draw_cuts(size: torch.Tensor, angle: torch.Tensor, side: int) -> Cuts:
    """Where rectangles (B, 2) come from and go to, independently; turned ones stay within the image too."""
    cos, sin = angle.cos().abs().unsqueeze(1), angle.sin().abs().unsqueeze(1)
    box = (cos * size + sin * size.flip(1)).ceil().long()  # (B, 2): around what is pasted
    return Cuts(size, draw_corners(size, side), draw_corners(box, side) + box / 2, angle)


def draw_corners(size: torch.Tensor, side: int) -> torch.Tensor:
    """Upper left corners at which rectangles (B, 2) lie within the image: (B, 2) int64."""
    return (torch.rand(size.shape) * (side - size + 1)).long()


def jittered(images: torch.Tensor, jitter: Jitter, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Brightness and contrast as torchvision's ``ColorJitter`` changes them: (B, 1, S, S) in [0, 1] → same.

    Contrast is about the image's mean, or that of the pixels in ``mask`` (B, 1, S, S).
    """
    mask = torch.ones_like(images) if mask is None else mask.to(images)
    brightness, contrast = (f.to(images)[:, None, None, None] for f in (jitter.brightness, jitter.contrast))

    def brightened(x: torch.Tensor) -> torch.Tensor:
        return (brightness * x).clamp(0, 1)

    def contrasted(x: torch.Tensor) -> torch.Tensor:
        mean = (mask * x).sum((1, 2, 3), keepdim=True) / mask.sum((1, 2, 3), keepdim=True)
        return (contrast * x + (1 - contrast) * mean).clamp(0, 1)

    contrast_first = jitter.contrast_first.to(images.device)[:, None, None, None]
    return torch.where(contrast_first, brightened(contrasted(images)), contrasted(brightened(images)))


def pasted(images: torch.Tensor, cuts: Cuts, jitter: Jitter) -> torch.Tensor:
    """Images (B, 1, S, S) with a rectangle of each cut out, jittered, turned and pasted over them; nearest pixel."""
    height, width = cuts.size.to(images.device)[:, :, None, None].unbind(1)  # (B, 1, 1) each, as all below
    top, left = cuts.source.to(images.device)[:, :, None, None].unbind(1)
    y, x = cuts.centre.to(images)[:, :, None, None].unbind(1)
    cos, sin = (f(cuts.angle.to(images))[:, None, None] for f in (torch.cos, torch.sin))

    # 1. where every pixel of the image lies in the rectangle, which is turned back
    pixel = torch.arange(images.shape[-1], device=images.device) + 0.5
    dy, dx = pixel[:, None] - y, pixel - x  # (B, S, 1), (B, 1, S)
    row = (cos * dy + sin * dx + height / 2).floor().long()  # (B, S, S)
    column = (cos * dx - sin * dy + width / 2).floor().long()
    inside = ((row >= 0) & (row < height) & (column >= 0) & (column < width)).unsqueeze(1)  # (B, 1, S, S)

    # 2. the pixels of the rectangle that lie there
    row, column = (top + row).clamp(0, images.shape[-1] - 1), (left + column).clamp(0, images.shape[-1] - 1)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    piece = images[which, 0, row, column].unsqueeze(1)  # (B, 1, S, S)
    return torch.where(inside, jittered(piece, jitter, inside), images)
