"""SQUID: Xiang et al., "SQUID: Deep Feature In-Painting for Unsupervised Anomaly Detection", CVPR 2023.

Deviations from the released program; none changes a reconstruction, a score or a weight that scoring uses:
- The discriminator's turn runs the generator without gradients and without the teacher, so the batch-norm
  running statistics of the teacher see the generator's turns only.
- Scoring is batched, with per-image statistics, where the released program takes one image at a time.
- The queue's pointer is saved with the model; the released program loses it on reload.
- Ranking uses the discriminator's logit; the shown score 1 − sigmoid((logit − mu)/sigma) saturates in float32.
Deviations of the released program from the paper, kept: see README, "How faithful it is".
"""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from configs.squid import SquidConfig
from methods.base import Method, Scores, lr_scheduler
from models.discriminator import Discriminator
from models.memory import Shrinkage
from models.squid import Generator


def adversarial_loss(logits: torch.Tensor, real: bool) -> torch.Tensor:
    """Binary cross-entropy of (B, 1) logits against all-real or all-generated."""
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def distillation_loss(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> torch.Tensor:
    """Sum over the levels of MSE(student feature, teacher feature); gradients flow into both decoders."""
    return sum(mse_loss(s, t) for s, t in zip(student, teacher, strict=True))


class Squid(Method):
    """Image scores: ``discriminator`` (the paper's) and ``reconstruction`` (mean squared error)."""

    score_names = ("discriminator", "reconstruction")

    def __init__(self, config: SquidConfig):
        super().__init__(config)
        self.generator = Generator(
            image_size=config.image_size,
            patches_per_side=config.patches_per_side,
            levels=config.levels,
            base_channels=config.base_channels,
            initial_combine=config.initial_combine,
            ops=config.ops,
            decoder_memory=config.decoder_memory,
            queue_slots=config.queue_slots,
            matrix_slots=config.matrix_slots,
            shrinkage=Shrinkage(config.gumbel_top_k, config.shrink_threshold),
            mask_ratio=config.mask_ratio,
            dropout=config.dropout,
            teacher=config.teacher,
        )
        self.discriminator = Discriminator(config.image_size)
        self.register_buffer("mu", torch.zeros(()))
        self.register_buffer("sigma", torch.ones(()))
        adam = {"lr": config.learning_rate, "betas": (0.5, 0.999), "fused": True}
        self.optimizers = {
            "generator": torch.optim.Adam(self.generator.parameters(), eps=1e-7, weight_decay=1e-5, **adam),
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), eps=1e-8, **adam),
        }
        # the released program never steps the discriminator's scheduler
        self.schedulers = {"generator": lr_scheduler(self.optimizers["generator"], config)}

    def training_step(self, images: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        config = self.config
        self.train()

        # 1. the discriminator learns to tell images from reconstructions
        with torch.no_grad():
            x_hat = self.generator(images, with_teacher=False).x_hat
        real = adversarial_loss(self.discriminator(images), real=True)
        fake = adversarial_loss(self.discriminator(x_hat), real=False)
        loss_d = config.discriminator_weight * (real + fake)
        self.require_finite(discriminator=loss_d)
        self._step("discriminator", loss_d)
        losses = {"discriminator": loss_d}

        # 2. every n_critic-th iteration, the generators learn from a new forward
        if step % config.n_critic == 0:
            out = self.generator(images)
            terms = {
                "reconstruction": config.recon_weight * mse_loss(out.x_hat, images),
                "adversarial": config.adversarial_weight * adversarial_loss(self.discriminator(out.x_hat), real=True),
            }
            if config.teacher:
                terms["teacher"] = config.teacher_weight * mse_loss(out.teacher_x_hat, images)
                terms["distillation"] = config.distill_weight * distillation_loss(out.features, out.teacher_features)
            loss_g = sum(terms.values())
            self.require_finite(**terms)
            self._step("generator", loss_g)

            # 3. the memory queue takes this forward's features
            self.generator.inpaint.memory.enqueue()
            losses |= terms | {"generator": loss_g}
        return {name: loss.detach() for name, loss in losses.items()}

    def _step(self, name: str, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def fit(self, loader) -> None:
        """mu and sigma of the logits of training images: what normal looks like to the discriminator."""
        batches = loader.in_order(self.config.statistics_images)
        logits = torch.cat([self._reconstruct(images)[1] for images in batches])
        self.mu.copy_(logits.mean())
        self.sigma.copy_(logits.std(correction=0))

    @torch.no_grad()
    def score(self, images: torch.Tensor) -> Scores:
        x_hat, logit = self._reconstruct(images)
        deviation = (self.mu.cpu() - logit) / self.sigma.cpu()  # the discriminator is high on normal images
        error = (x_hat - images).square()
        return Scores(
            image={"discriminator": deviation, "reconstruction": error.mean((1, 2, 3)).cpu().double()},
            columns={"logit": logit},
            shown={"discriminator": torch.sigmoid(deviation)},
            map=error,
            reconstruction=x_hat,
        )

    def _reconstruct(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, H, W) → the evaluation-mode reconstruction (B, 1, H, W) and its logit (B,), float64 on the CPU."""
        self.eval()
        x_hat = self.generator(images, with_teacher=False).x_hat
        logit = self.discriminator(x_hat, per_image=self.config.score_statistics == "image")
        return x_hat, logit.squeeze(1).cpu().double()
