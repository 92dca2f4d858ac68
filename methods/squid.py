"""SQUID: Xiang et al., "SQUID: Deep Feature In-Painting for Unsupervised Anomaly Detection", CVPR 2023.

Deviations from the released program; but for the last two, which set the shown score's scale, none changes a
reconstruction, a score or a weight that scoring uses:
- The discriminator's turn runs the generator without gradients and without the teacher, so the batch-norm
  running statistics of the teacher see the generator's turns only. Where the generator's turn follows, both decode
  what the encoder gave once; the encoder's running statistics are those of two forwards.
- Scoring is batched, with per-image statistics, where the released program takes one image at a time.
- The queue's pointer is saved with the model; the released program loses it on reload.
- Ranking uses the discriminator's logit; the shown score 1 − sigmoid((logit − mu)/sigma) saturates in float32.
- mu and sigma, which set the shown score's scale, are of the same augmented images at every evaluation; the released
  program draws the augmentation anew (``statistics_draw = redrawn``).
- A sigma of 0, of a generator that gives every image the same reconstruction, counts as 1: such an image's score is
  that of any other, where 0 / 0 would end the training.
Deviations of the released program from the paper, kept: see docs/faithful.md.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.functional import mse_loss

from configs.squid import SquidConfig
from dataloader.loader import Batch, TrainLoader
from methods.base import Method, Scores, lr_scheduler
from methods.grad_cam import grad_cam
from methods.losses import adversarial_loss, distillation_loss, gradient_penalty
from methods.maps import upsample
from models.blocks import counting_twice, estimating_batch_norm
from models.discriminator import Discriminator
from models.generator import Generated, Generator
from models.inpaint import InpaintBlock
from models.memory import DECODER_MEMORIES, Addressing, recorded_weights
from system import distributed, tuning


class Squid(Method):
    """Image scores: ``discriminator`` (the paper's) and ``reconstruction`` (mean squared error)."""

    score_names = ("discriminator", "reconstruction")
    sigma_epsilon = 0.0

    def __init__(self, config: SquidConfig):
        super().__init__(config)
        layout = {"memory_format": torch.channels_last}  # faster to convolve
        self.generator = self.build_generator().to(**layout)
        self.discriminator = self.build_discriminator().to(**layout)
        self.register_buffer("mu", torch.zeros(()))
        self.register_buffer("sigma", torch.ones(()))
        adam = {"lr": config.learning_rate, "betas": (0.5, 0.999), "fused": True}
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), eps=1e-7, weight_decay=1e-5, **adam),
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), eps=1e-8, **adam),
        }
        # the released program never steps the discriminator's scheduler
        self.schedulers = {"generator": lr_scheduler(self.optimizers["generator"], config)}

    def build_generator(self) -> torch.nn.Module:
        config = self.config
        return Generator(
            image_size=config.image_size,
            patches_per_side=config.patches_per_side,
            levels=config.levels,
            base_channels=config.base_channels,
            initial_combine=config.initial_combine,
            ops=config.ops,
            inpaint=self.inpaint_block(config.queue_slots),
            decoder_memory=[self.decoder_memory(name) for name in config.decoder_memory],
            teacher=config.teacher,
            skip_dropout=config.skip_dropout,
        )

    def inpaint_block(self, num_slots: int) -> partial | None:
        """The configured bottleneck block, still to be given its sizes."""
        config = self.config
        if config.bottleneck == "none":
            return None
        return partial(
            InpaintBlock,
            num_slots=num_slots,
            addressing=Addressing(config.gumbel_top_k, config.shrink_threshold, config.cosine_addressing),
            mask_ratio=config.mask_ratio,
            dropout=config.dropout,
            queue=config.bottleneck == "queue",
            attention=config.inpaint_attention,
            space_aware=config.space_aware,
        )

    def decoder_memory(self, name: str) -> partial | None:
        """A level's memory, still to be given its sizes."""
        if name == "none":
            return None
        places = {} if name == "V4" else {"space_aware": self.config.space_aware}
        return partial(DECODER_MEMORIES[name], **self.decoder_settings(name), **places)

    def decoder_settings(self, name: str) -> dict[str, Any]:
        """What a level's memory of this name is built with."""
        config = self.config
        return {
            "num_slots": config.matrix_slots,
            "addressing": Addressing(config.gumbel_top_k, config.shrink_threshold, config.cosine_addressing),
            "mask_ratio": config.mask_ratio,
        }

    def build_discriminator(self) -> torch.nn.Module:
        return Discriminator(self.config.image_size)

    def to_network(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] in the range that the networks see."""
        return images

    def to_images(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`to_network`."""
        return x

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        images, generators_turn = batch.images, batch.step % self.config.n_critic == 0
        encoder = self.generator.encoder

        # both turns see the same images with the same encoder, so one forward of it does for both
        shared = generators_turn and not tuning.plain
        twice = counting_twice(encoder) if shared else nullcontext()
        with twice, torch.set_grad_enabled(shared), self.autocast():
            encoded = encoder(images)

        # 1. the discriminator learns to tell images from reconstructions
        with torch.no_grad(), self.autocast():
            x_hat = self.generator.decode(*encoded, with_teacher=False).x_hat
        losses = self.discriminator_losses(images, x_hat)
        self.update("discriminator", losses, batch)

        # 2. every n_critic-th iteration, the generators learn from a new draw of the shortcuts
        if generators_turn:
            with self.autocast():
                out = self.generator.decode(*encoded) if shared else self.generator(images)
            terms = self.generator_losses(images, out)
            losses |= terms | {"generator": self.update("generator", terms, batch)}

            # 3. the memory queue takes this forward's features
            if self.uses_queue:
                self.fill_queue()
        return losses

    def generate(self, x: torch.Tensor, with_teacher: bool = True) -> Generated:
        """The generator in the configured precision; the discriminator, a hundredth of the work, stays in float32."""
        with self.autocast():
            return self.generator(x, with_teacher)

    @property
    def uses_queue(self) -> bool:
        return self.config.bottleneck == "queue"

    def fill_queue(self) -> None:
        """The queue takes the latest features of all processes, so that it is the same in each."""
        queue = self.generator.inpaint.memory
        queue.pending = distributed.all_gather_rows(queue.pending)  # (N, J, d)
        queue.enqueue()

    def discriminator_losses(self, x: torch.Tensor, x_hat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images and detached reconstructions, each its own batch to batch norm → the weighted losses."""
        config = self.config
        x = x.detach().requires_grad_(config.r1_weight > 0)
        logits = self.discriminator(x)
        real = adversarial_loss(logits, real=True)
        fake = adversarial_loss(self.discriminator(x_hat), real=False)
        losses = {"discriminator": config.discriminator_weight * (real + fake)}
        if config.r1_weight:
            losses["r1"] = config.discriminator_weight * config.r1_weight / 2 * gradient_penalty(logits, x)
        return losses

    def generator_losses(self, x: torch.Tensor, out: Generated) -> dict[str, torch.Tensor]:
        """The weighted losses that the generators minimise the sum of."""
        config = self.config
        losses = {
            "reconstruction": config.recon_weight * mse_loss(out.x_hat, x),
            "adversarial": config.adversarial_weight * adversarial_loss(self.discriminator(out.x_hat), real=True),
        }
        if config.teacher:
            losses["teacher"] = config.teacher_weight * mse_loss(out.teacher_x_hat, x)
            losses["distillation"] = config.distill_weight * distillation_loss(out.features, out.teacher_features)
        return losses

    @torch.no_grad()
    def fit(self, loader: TrainLoader, epoch: int = 0) -> None:
        """mu and sigma of the logits of training images: what normal looks like to the discriminator."""
        # the draw of the epoch to come, which no training step has seen yet
        drawn = epoch if self.config.statistics_draw == "redrawn" else 0
        if self.config.reestimate_batch_norm:
            self._reestimate_batch_norm(loader.in_order(drawn))
        batches = loader.in_order(drawn, self.config.statistics_images)
        logits = torch.cat([self._reconstruct(images)[1] for images in batches])
        self.mu.copy_(logits.mean())
        self.sigma.copy_(logits.std(correction=0) + self.sigma_epsilon)
        self.sigma.masked_fill_(self.sigma == 0, 1)

    def _reestimate_batch_norm(self, batches: Iterable[torch.Tensor]) -> None:
        self.eval()
        with estimating_batch_norm(self.generator):
            for i, images in enumerate(batches):
                # a last batch of few images would count as much as any
                if i == 0 or len(images) == self.config.batch_size:
                    self.generate(self.to_network(images), with_teacher=False)

    def scores_of(self, images: torch.Tensor) -> Scores:
        x_hat, logit = self._reconstruct(images)
        deviation = (self.mu.cpu() - logit) / self.sigma.cpu()  # the discriminator is high on normal images
        error = (x_hat - images).square()
        return Scores(
            image={"discriminator": deviation, "reconstruction": error.mean((1, 2, 3)).cpu().double()},
            columns={"logit": logit},
            shown={"discriminator": torch.sigmoid(deviation)},
            maps={"reconstruction": error},
            reconstruction=x_hat,
        )

    def extra_maps(self, images: torch.Tensor, scores: Scores) -> dict[str, torch.Tensor]:
        """``discriminator``: where x_hat, all that the discriminator sees, speaks against being a normal image."""
        network, per_image = self.discriminator, self.config.score_statistics == "image"
        features = network.features(self.to_network(scores.reconstruction), per_image)
        grid = grad_cam(features, lambda features: -network.judge(features, per_image))  # high on normal images
        return {"discriminator": upsample(grid, images.shape[-1])}

    def _reconstruct(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, H, W) → the evaluation-mode reconstruction (B, 1, H, W) and its logit (B,), float64 on the CPU."""
        self.eval()
        x_hat = self.generate(self.to_network(images), with_teacher=False).x_hat
        logit = self.discriminator(x_hat, per_image=self.config.score_statistics == "image")
        return self.to_images(x_hat), logit.squeeze(1).cpu().double()

    @torch.no_grad()
    def slot_weights(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the memories rebuild images from, in evaluation mode: the memory's name, such as ``inpaint.memory``,
        → (J, N, S) weights of its slots, for J locations and N images (or N maps, where a decoder's memory is given
        patches that it cuts again).
        """
        self.eval()
        with recorded_weights(self.generator) as found:
            self.generate(self.to_network(images), with_teacher=False)
        return found
