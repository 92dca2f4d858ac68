"""SQUID in the plain arrangement of the released program (squid.md), for comparison: the same weights give the same
numbers, computed the way it is said to compute them.

- The networks of plain_networks.py: memories read place after place, neighbours gathered for nn.MultiheadAttention.
- The discriminator's turn runs the whole generator in training mode, with the graph and the teacher.
- PyTorch's default Adam; every loss is taken to Python each iteration.
- Scoring takes one image at a time, with the graph and the teacher, the discriminator in training mode.
- The accuracy is looked up at every threshold of the ROC with scikit-learn.
"""

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score, roc_curve
from torch.nn import functional as F

from benchmarks.plain_networks import Discriminator, Generator, plain_state
from configs import ConfigError
from dataloader.loader import Batch
from methods.base import lr_scheduler
from system.device import to_float


def adversarial(logits: torch.Tensor, real: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))


class PlainSquid:
    """The weights of a :class:`methods.squid.Squid`, in float32, trained and used in the plain arrangement."""

    def __init__(self, method):
        config = self.config = method.config
        if set(config.decoder_memory) - {"V1", "none"} or not config.teacher:
            raise ConfigError("The plain arrangement knows the decoder memory V1, or none, and has a teacher.")
        like = next(method.parameters())
        self.device = like.device
        self.generator, self.discriminator = Generator(config).to(like), Discriminator(config.image_size).to(like)
        self.generator.load_state_dict(plain_state(method.generator.state_dict()))
        for place in self.generator.inpaint.places:
            place.pointer = int(method.generator.inpaint.memory.pointer)
        self.discriminator.load_state_dict(method.discriminator.state_dict())
        rates = {"lr": config.learning_rate, "betas": (0.5, 0.999)}
        self.adam_g = torch.optim.Adam(self.generator.parameters(), eps=1e-7, weight_decay=1e-5, **rates)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), eps=1e-8, **rates)
        self.scheduler = lr_scheduler(self.adam_g, config)

    def training_step(self, batch: Batch) -> dict[str, float]:
        x = batch.images
        self.generator.train()
        losses = {"discriminator": self.discriminator_turn(x)}
        return losses | self.generator_turn(x) if batch.step % self.config.n_critic == 0 else losses

    def discriminator_turn(self, x: torch.Tensor) -> float:
        x_hat = self.generator(x)[0]
        real, fake = adversarial(self.discriminator(x), 1.0), adversarial(self.discriminator(x_hat.detach()), 0.0)
        loss = self.config.discriminator_weight * (real + fake)
        self.adam_d.zero_grad()
        loss.backward()
        self.adam_d.step()
        return loss.item()

    def generator_turn(self, x: torch.Tensor) -> dict[str, float]:
        config = self.config
        x_hat, features, teacher_x_hat, teacher_features = self.generator(x)
        losses = {
            "reconstruction": config.recon_weight * F.mse_loss(x_hat, x),
            "adversarial": config.adversarial_weight * adversarial(self.discriminator(x_hat), 1.0),
            "teacher": config.teacher_weight * F.mse_loss(teacher_x_hat, x),
            "distillation": config.distill_weight
            * sum(F.mse_loss(s, t) for s, t in zip(features, teacher_features, strict=True)),
        }
        losses["generator"] = sum(losses.values())
        self.adam_g.zero_grad()
        losses["generator"].backward()
        self.adam_g.step()
        self.generator.inpaint.enqueue()
        return {name: loss.item() for name, loss in losses.items()}

    def end_epoch(self) -> None:
        self.scheduler.step()

    def logit(self, x: torch.Tensor) -> float:
        """Of one image (1, 1, H, W)."""
        self.generator.eval()
        return self.discriminator(self.generator(x)[0]).item()

    def fit(self, loader) -> None:
        batches = loader.in_order(0, self.config.statistics_images)
        logits = np.array([self.logit(x) for images in batches for x in images.split(1)])
        self.mu, self.sigma = logits.mean(), logits.std()

    def score(self, images: torch.Tensor) -> np.ndarray:
        """(N, H, W) uint8 → (N,) anomaly scores, 1 = anomalous."""
        logits = np.array([self.logit(to_float(image, self.device)) for image in images.split(1)])
        return 1 - 1 / (1 + np.exp((self.mu - logits) / self.sigma))

    @staticmethod
    def metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        """AUC, and the figures at the threshold of the highest accuracy, the first of equals."""
        thresholds = roc_curve(labels, scores)[2]
        best = max(thresholds, key=lambda threshold: accuracy_score(labels, scores >= threshold))
        called = scores >= best
        return {
            "auc": roc_auc_score(labels, scores),
            "accuracy": accuracy_score(labels, called),
            "f1": f1_score(labels, called),
            "recall": recall_score(labels, called),
            "precision": precision_score(labels, called, zero_division=0),
            "specificity": recall_score(labels == 0, ~called),
        }
