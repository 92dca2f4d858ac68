"""DN2: Bergman et al., "Deep Nearest Neighbor Anomaly Detection", 2020 (arXiv 2002.10445), and PANDA: Reiss et al.,
"PANDA: Adapting Pretrained Features for Anomaly Detection and Segmentation", CVPR 2021.

An image is anomalous if no normal images are near it among the features of a network trained on ImageNet; PANDA first
draws the normal images' features together. Written from the papers' formulas.

Deviations from PANDA's program:
- Images are resized to the final size; it cuts the margin off, which on radiographs is anatomy.
- The epochs are fixed. For elastic weight consolidation (``ewc_weight``), the Fisher information of the weights is
  estimated from training images, with classes drawn from what the network says of them; theirs is of ImageNet's images.
- DN2 is PANDA before it is tuned, with its network.
"""

from collections.abc import Iterable
from itertools import islice

import torch
from torch.nn.utils import clip_grad_norm_

from configs.panda import NeighbourConfig, PandaConfig
from dataloader.images import DataError
from dataloader.loader import Batch, TrainLoader
from methods.base import Method, Scores, lr_scheduler
from models.bank import Bank
from models.features import FrozenFeatures
from models.panda import LayersBetween
from system.seeding import generator, seeded

MOMENTUM = 0.9  # of SGD


class Dn2(Method):
    """Image score: ``distance``, the sum of the squared distances to the nearest training images. It has no map.

    With bf16 all is computed in float32 none the less: distances are differences of nearly equal features.
    """

    score_names = ("distance",)

    def __init__(self, config: NeighbourConfig):
        super().__init__(config)
        self.features = self.pretrained(config.layers[0])
        self.bank = Bank()

    def pretrained(self, *layers: str) -> FrozenFeatures:
        """A network, the same for all layers that it is asked for."""
        with seeded(self.config.seed, "weights", "features"):
            return FrozenFeatures(self.config.backbone, layers)

    def fit(self, loader: TrainLoader, epoch: int = 0) -> None:
        """Fill the bank from the training images, unaugmented and in order. Raises DataError for too few."""
        if loader.training_size() < self.config.neighbours:
            raise DataError(
                f"{loader.dataset.root}: {loader.training_size()} training images, fewer than neighbours = "
                f"{self.config.neighbours}. Lower it, or add images."
            )
        self.bank.rows = self.training_points(loader)

    @torch.no_grad()
    def training_points(self, loader: TrainLoader) -> torch.Tensor:
        """(N, C)."""
        return torch.cat([self.points(images) for images in loader.unaugmented()])

    def points(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) → (B, C)."""
        return self.deepest(images).mean((2, 3))

    def deepest(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) → (B, C, h, w)."""
        (f,) = self.features(images).values()
        return f

    def scores_of(self, images: torch.Tensor) -> Scores:
        distances = self.bank.nearest(self.points(images), self.config.neighbours)
        return Scores(image={"distance": distances.cpu().double()})


class Panda(Dn2):
    """Points are relative to ``centre``, which changes no distance and keeps small ones exact."""

    def __init__(self, config: PandaConfig):
        super().__init__(config)
        first, last = config.layers
        whole = self.pretrained(first, last)
        # where the training images lie before anything is tuned
        self.register_buffer("centre", torch.zeros(whole.channels[last]))
        self.tuned = LayersBetween(whole, first, last).requires_grad_(True)
        if config.ewc_weight:
            self.classifier = LayersBetween(self.pretrained(last, "logits"), last, "logits")
            count = sum(parameter.numel() for parameter in self.tuned.parameters())
            self.register_buffer("anchor", torch.zeros(count))  # the weights before anything is tuned
            self.register_buffer("fisher", torch.zeros(count))
        optimizer = torch.optim.SGD(
            self.tuned.parameters(), config.learning_rate, MOMENTUM, weight_decay=config.weight_decay
        )
        optimizer.register_step_pre_hook(self.cut_gradient)
        self.optimizers = {"tuned": optimizer}
        self.schedulers = {"tuned": lr_scheduler(optimizer, config)}

    def load_pretrained(self) -> dict[str, dict[str, str]]:
        for part in (self.tuned, self.classifier) if self.config.ewc_weight else (self.tuned,):
            whole = self.pretrained(*part.ends)
            whole.load(self.config.weights)
            part.take(whole)
        return super().load_pretrained()

    def start_epoch(self, loader: TrainLoader, epoch: int) -> None:
        """Before the first epoch: where the training images lie, and what elastic weight consolidation holds on to."""
        if epoch:
            return
        self.centre += self.training_points(loader).mean(0)
        if self.config.ewc_weight:
            self.anchor.copy_(in_one(self.tuned.parameters()).detach())
            self.fisher.copy_(self.fisher_information(loader))

    def fisher_information(self, loader: TrainLoader) -> torch.Tensor:
        """Mean over images of the squared gradient of log p(y), with the class y drawn from p, the network's: (n,)."""
        rng, parameters = generator(self.config.seed, "fisher"), list(self.tuned.parameters())
        images = (image for batch in loader.unaugmented() for image in batch.split(1))
        total, count = torch.zeros_like(self.fisher), 0
        for image in islice(images, self.config.fisher_images):  # (1, 1, H, W)
            log_p = self.classifier(self.deepest(image)).log_softmax(1)  # (1, classes)
            y = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=rng).item()
            total += in_one(torch.autograd.grad(log_p[0, y], parameters)).square()
            count += 1
        return total / count

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        # 1. the training images draw together
        losses = {"compactness": self.points(batch.images).square().mean()}

        # 2. while the weights that matter to the network stay what they were
        if self.config.ewc_weight:
            moved = in_one(self.tuned.parameters()) - self.anchor  # (n,)
            losses["ewc"] = self.config.ewc_weight / 2 * (self.fisher * moved.square()).sum()

        self.update("tuned", losses, batch)
        return losses

    def cut_gradient(self, *_) -> None:
        """Right before an optimizer's step, when the gradient is the whole batch's, of all processes."""
        clip_grad_norm_(self.tuned.parameters(), self.config.gradient_norm)

    def points(self, images: torch.Tensor) -> torch.Tensor:
        return super().points(images) - self.centre

    def deepest(self, images: torch.Tensor) -> torch.Tensor:
        return self.tuned(super().deepest(images))


def in_one(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """All their elements, (n,), however they lie in memory; PyTorch's parameters_to_vector takes one layout alone."""
    return torch.cat([each.flatten() for each in tensors])
