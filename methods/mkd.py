"""M-KD: Salehi et al., "Multiresolution Knowledge Distillation for Anomaly Detection", CVPR 2021.

A small network learns to give a frozen network's features of normal images; where it fails to, the image is anomalous.

Written from the paper's formulas. Deviations from the authors' program:
- The student's compared channels follow the backbone's, which for vgg16 gives the published network. EfficientNet's
  layers have negative values, so that there is then no ReLU before the student's poolings.
- Both networks see images normalised as those that the frozen one was trained on; the program does so for some
  datasets. Images are gray, thrice.
- The map is the size of the score's gradient with respect to the gray image, through both networks; plain or averaged
  over noisy copies (SmoothGrad), not guided. The Gaussian, the opening and the noise have sizes of ours.
- The student's convolutions are drawn by Xavier's uniform rule; the teacher's, which the program can draw anew, stay.
"""

import torch
from torch.nn.functional import cosine_similarity, max_pool2d

from configs.mkd import MkdConfig
from dataloader.loader import Batch
from methods.base import Method, Scores, lr_scheduler
from methods.maps import gaussian_blur
from models.features import BACKBONES, FrozenFeatures
from models.mkd import Student, narrow_vgg16
from system.seeding import generator, seeded

SCORED = ("layer2", "layer3", "layer4")  # the loss is of layer1 too


class Mkd(Method):
    """Image score: ``discrepancy``, what the loss is of this image, in the three deepest layers."""

    score_names = ("discrepancy",)

    def __init__(self, config: MkdConfig):
        super().__init__(config)
        with seeded(config.seed, "weights", "features"):
            self.features = FrozenFeatures(config.backbone, config.layers)
        blocks = narrow_vgg16(list(self.features.channels.values()), config.width)
        self.student = Student(blocks, BACKBONES[config.backbone].rectified)
        self.optimizers = {"student": torch.optim.Adam(self.student.parameters(), config.learning_rate, fused=True)}
        self.schedulers = {"student": lr_scheduler(self.optimizers["student"], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        found = self.discrepancies(batch.images, self.config.layers)
        terms = {name: each.mean() for name, each in found.items()}
        return terms | {"loss": self.update("student", terms, batch)}

    def discrepancies(self, images: torch.Tensor, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """How the student's features differ from the teacher's in direction and in value, summed over layers: (B,)."""
        with self.autocast():
            teacher = self.features(images)
            found = self.student((images - self.features.mean) / self.features.std)
        student = dict(zip(teacher, found, strict=True))
        direction, value = 0, 0
        for layer in layers:
            s, t = (f[layer].to(images).flatten(1) for f in (student, teacher))  # (B, C·h·w)
            direction = direction + 1 - cosine_similarity(s, t)
            value = value + (s - t).square().mean(1)
        return {"direction": direction, "value": self.config.value_weight * value}

    def scores_of(self, images: torch.Tensor) -> Scores:
        score, gradient = self.score_and_gradient(images)
        if self.config.smooth_draws:
            noisy = [images + noise for noise in self.noises(images)]
            gradient = sum(self.score_and_gradient(each)[1] for each in noisy) / len(noisy)
        found = opening(gaussian_blur(gradient.abs(), self.config.blur), self.config.opening)
        return Scores(image={"discrepancy": score.cpu().double()}, maps={"discrepancy": found})

    @torch.enable_grad()
    def score_and_gradient(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The image score (B,), and its gradient with respect to the image's own pixels (B, 1, S, S): of three colours
        the sum, as of a gray pixel, which is in each of three channels.
        """
        x = images.detach().requires_grad_()
        score = sum(self.discrepancies(x, SCORED).values())
        (gradient,) = torch.autograd.grad(score.sum(), x)
        return score.detach(), gradient.sum(1, keepdim=True)

    def noises(self, images: torch.Tensor) -> torch.Tensor:
        """SmoothGrad's noise, every image's the same: (draws, 1, 1, S, S)."""
        shape = (self.config.smooth_draws, 1, *images.shape[1:])
        rng = generator(self.config.seed, "noise")
        return self.config.smooth_noise * torch.randn(shape, generator=rng).to(images)


def opening(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Gray opening by a square, SciPy's ``grey_opening``: what is smaller than it goes. (B, 1, H, W) → same."""
    eroded = -max_pool2d(-maps, size, 1, size // 2)
    return max_pool2d(eroded, size, 1, size // 2)
