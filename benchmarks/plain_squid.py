"""SQUID in the plain arrangement of the released program, for comparison: the same weights give the same numbers,
computed the way it is said to compute them.

- Nothing of what ``ANOMALY_PLAIN=1`` turns off; no channels_last, no activations in place, PyTorch's default Adam.
- Memories are read place after place, neighbours gathered for torch's multi-head attention.
- The discriminator's turn runs the whole generator in training mode, with the graph and the teacher.
- Every loss is taken to Python each iteration.
- Scoring takes one image at a time, with the graph and the teacher, the discriminator in training mode.
- The accuracy is looked up at every threshold of the ROC with scikit-learn.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score, roc_curve
from torch import nn
from torch.nn.functional import multi_head_attention_forward, pad

from configs import ConfigError
from configs.squid import SquidConfig
from dataloader.loader import Batch
from methods.base import lr_scheduler
from methods.squid import Squid
from models.inpaint import NeighbourAttention
from models.memory import Memory
from system import tuning
from system.device import to_float


@contextmanager
def plainly() -> Iterator[None]:
    """Within the ``with``, nothing is rearranged to be fast."""
    before, tuning.plain = tuning.plain, True
    try:
        yield
    finally:
        tuning.plain = before


def place_after_place(memory: Memory, query: torch.Tensor) -> torch.Tensor:
    """:meth:`Memory.forward`: (B, J, d) → (B, J, d)."""
    if memory.training:
        memory.pending = query.detach()
    read = []
    for j, slots in enumerate(memory.slots):
        place = query[:, j].unsqueeze(0), slots.unsqueeze(0)
        read.append((memory.addressing(*place) @ place[1])[0])
    return torch.stack(read, dim=1)


def gathered(attention: NeighbourAttention, query: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
    """:meth:`NeighbourAttention.forward`: every patch's eight neighbours are projected for it again."""
    b, count, d = n.shape
    side = int(count**0.5)
    grid = pad(n.transpose(1, 2).reshape(b, d, side, side), (1, 1, 1, 1))
    around = grid.unfold(2, 3, 1).unfold(3, 3, 1).permute(4, 5, 0, 2, 3, 1).reshape(9, -1, d)  # (9, B·P², d)
    neighbours = torch.cat([around[:4], around[5:]])
    found, _ = multi_head_attention_forward(
        query.reshape(1, -1, d), neighbours, neighbours, d, attention.heads, attention.in_proj.weight,
        attention.in_proj.bias, None, None, False, 0.0, attention.out_proj.weight, attention.out_proj.bias,
        need_weights=False,
    )  # fmt: skip
    return found.reshape(query.shape)


class PlainSquid(Squid):
    """A :class:`methods.squid.Squid` in float32, trained and used in the plain arrangement."""

    def __init__(self, config: SquidConfig):
        if not config.teacher:
            raise ConfigError("The plain arrangement has a teacher.")
        super().__init__(config)
        self.to(memory_format=torch.contiguous_format)
        for module in self.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
            if isinstance(module, nn.Conv2d):  # patches come with their channels together
                module.register_forward_pre_hook(lambda conv, maps: tuple(x.contiguous() for x in maps))
            if isinstance(module, Memory):
                module.forward = place_after_place.__get__(module)
            if isinstance(module, NeighbourAttention):
                module.forward = gathered.__get__(module)
        rates = {"lr": config.learning_rate, "betas": (0.5, 0.999)}
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), eps=1e-7, weight_decay=1e-5, **rates),
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), eps=1e-8, **rates),
        }
        self.schedulers = {"generator": lr_scheduler(self.optimizers["generator"], config)}

    @plainly()
    def training_step(self, batch: Batch) -> dict[str, float]:
        self.train()
        x = batch.images
        losses = self.discriminator_losses(x, self.generator(x).x_hat.detach())
        self._learn("discriminator", losses)
        if batch.step % self.config.n_critic == 0:
            terms = self.generator_losses(x, self.generator(x))
            losses |= terms | {"generator": self._learn("generator", terms)}
            self.fill_queue()
        return {name: loss.item() for name, loss in losses.items()}

    def _learn(self, name: str, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = sum(losses.values())
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()
        return loss

    @plainly()
    def logit(self, x: torch.Tensor) -> float:
        """Of one image (1, 1, H, W)."""
        self.generator.eval()
        self.discriminator.train()
        with torch.enable_grad():
            return self.discriminator(self.generator(x).x_hat).item()

    def fit(self, loader, epoch: int = 0) -> None:
        batches = loader.in_order(0, self.config.statistics_images)
        logits = np.array([self.logit(x) for images in batches for x in images.split(1)])
        self.mu.fill_(logits.mean())
        self.sigma.fill_(logits.std())

    def scored(self, images: torch.Tensor) -> np.ndarray:
        """(N, H, W) uint8 → (N,) anomaly scores, 1 = anomalous."""
        device = self.mu.device
        logits = np.array([self.logit(to_float(image, device)) for image in images.split(1)])
        return 1 - 1 / (1 + np.exp((self.mu.item() - logits) / self.sigma.item()))

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
