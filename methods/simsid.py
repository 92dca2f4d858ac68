"""SimSID: Xiang et al., "Exploiting Structural Consistency of Chest Anatomy for Unsupervised Anomaly Detection in
Radiography Images", IEEE TPAMI 2024. It shares SQUID's generator, losses and score (methods/squid.py).

Deviations from the released program; none but the last changes a score or a weight that scoring uses:
- Where only the discriminator steps, the shared forward runs without gradients and without the teacher, so the
  batch-norm running statistics of the teacher see the generator's turns only.
- Images stay in [0, 1] outside the networks: reconstructions are given back in that range, and the reconstruction
  error and its map are of it (a quarter of the squared error in [−1, 1], the same ranking).
- Modules that a variant does not read are not built: the attention where it is off, the whole in-painting block
  where that is off, and a 3×3 convolution in the block that no variant reads. Imports drop them by name.
- Scoring is batched, with per-image statistics; the queue's pointer is saved; ranking uses the logit: as in SQUID.
- Anomalous images of contaminated training are drawn by the seed; the released program takes the first of the listing
  (``contamination = first``).
"""

from typing import Any

import torch

from dataloader.loader import Batch
from methods.squid import Squid
from models.discriminator import Discriminator, simsid_channels
from models.generator import Generator
from models.hierarchical import HierarchicalGenerator
from models.memory import Addressing


class SimSid(Squid):
    """Image scores: ``discriminator`` (the paper's) and ``reconstruction`` (mean squared error, images in [0, 1])."""

    sigma_epsilon = 1e-8

    def build_generator(self) -> torch.nn.Module:
        config = self.config
        shared = {
            "image_size": config.image_size, "levels": config.levels, "base_channels": config.base_channels,
            "ops": config.ops, "teacher": config.teacher, "teacher_gradient": config.teacher_gradient,
            "tanh": config.tanh,
        }  # fmt: skip
        if config.hierarchical:
            return HierarchicalGenerator(**shared, num_slots=config.hierarchical_slots)
        return Generator(
            **shared,
            patches_per_side=config.patches_per_side,
            initial_combine=config.initial_combine,
            inpaint=self.inpaint_block(config.bottleneck_slots),
            decoder_memory=[self.decoder_memory(name) for name in config.decoder_memory],
            skip_weights=config.skip_weights,
            skip_dropout=config.skip_dropout,
        )

    def decoder_settings(self, name: str) -> dict[str, Any]:
        config = self.config
        found = {
            "num_slots": config.decoder_slots,
            "addressing": Addressing(config.decoder_top_k, config.decoder_threshold, config.cosine_addressing),
            "mask_ratio": config.decoder_mask_ratio,
        }
        if name == "V1":
            found |= {"channels_first": True, "slot_dim": config.slot_dim if config.dim_reduce else 0}
        return found

    def build_discriminator(self) -> torch.nn.Module:
        return Discriminator(self.config.image_size, simsid_channels(self.config.num_layers))

    def to_network(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * images - 1 if self.config.tanh else images

    def to_images(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1) / 2 if self.config.tanh else x

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        x = self.to_network(batch.images)
        generators_turn = batch.step % self.config.n_critic == 0

        # 1. one forward, which both players learn from
        with torch.set_grad_enabled(generators_turn):
            out = self.generate(x, with_teacher=generators_turn)

        # 2. the discriminator learns to tell images from reconstructions
        losses = self.discriminator_losses(x, out.x_hat.detach())
        self.update("discriminator", losses, batch)

        # 3. every n_critic-th iteration the generators learn; the updated discriminator judges the same x_hat
        if generators_turn:
            terms = self.generator_losses(x, out)
            losses |= terms | {"generator": self.update("generator", terms, batch)}

            # 4. the memory queue takes this forward's features
            if self.uses_queue:
                self.fill_queue()
        return losses

    @property
    def uses_queue(self) -> bool:
        return super().uses_queue and not self.config.hierarchical
