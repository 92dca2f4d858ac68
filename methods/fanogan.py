"""f-AnoGAN: Schlegl et al., "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks",
Medical Image Analysis 2019.

A GAN learns to make normal images of noise, then an encoder to find the noise that an image is made of; what comes back
otherwise than it went in is the anomaly.

Deviations from the authors' program:
- Training images are not mirrored left to right: a chest is not symmetric.
- The generator steps after every five steps of the critic; the program's steps before them, but for the first five.
  The turns are the same, but that ours end with the generator's.
- Adam's eps is added to the root after the bias correction, as PyTorch does (TensorFlow: before).
- Budgets are in steps and ours; all images are scored, where the program leaves out a last partial batch.
"""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from configs.fanogan import FanoganConfig
from dataloader.loader import Batch
from methods.autoencoder import mean_of, to_images, to_network
from methods.base import Method, Scores, lr_scheduler
from models.fanogan import Critic, Encoder, Generator, standing_statistics

BETAS = (0.0, 0.9)  # of Adam


class Fanogan(Method):
    """Image score: ``izi_f``, the mean squared error of the pixels plus κ times that of the critic's features.

    Its map is the pixels' absolute error, in [−1, 1] as the networks see them.
    """

    score_names = ("izi_f",)

    def __init__(self, config: FanoganConfig):
        super().__init__(config)
        self.generator = Generator(config.image_size, config.base_channels, config.latent_size)
        self.critic = Critic(config.image_size, config.base_channels)
        self.encoder = Encoder(config.image_size, config.base_channels, config.latent_size)
        self.start_stage("gan")

    def trained_in(self, stage: str) -> list[nn.Module]:
        return [self.encoder] if stage == "encoder" else [self.generator, self.critic]

    def start_stage(self, name: str) -> None:
        super().start_stage(name)
        config = self.config
        if name == "encoder":
            self.optimizers = {"encoder": TensorFlowRMSProp(self.encoder.parameters(), config.encoder_learning_rate)}
        else:
            self.optimizers = {
                player: torch.optim.Adam(network.parameters(), config.learning_rate, BETAS, fused=True)
                for player, network in (("generator", self.generator), ("critic", self.critic))
            }
        self.schedulers = {player: lr_scheduler(optimizer, config) for player, optimizer in self.optimizers.items()}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        return self.encoder_step(batch) if self.stage == "encoder" else self.gan_step(batch)

    def gan_step(self, batch: Batch) -> dict[str, torch.Tensor]:
        config, x = self.config, to_network(batch.images)

        # 1. the critic learns how far images are from what the generator makes of noise
        with torch.no_grad(), standing_statistics(self.generator):
            fake = self.generated(draw_latents(x, config.latent_size))
        penalty = lipschitz_penalty(self.critic, x, fake, draw_mixture(x))
        terms = {
            "distance": self.critic(fake).mean() - self.critic(x).mean(),
            "penalty": config.penalty_weight * penalty,
        }
        losses = terms | {"critic": self.update("critic", terms, batch)}

        # 2. after every n_critic-th step, the generator learns to bring its images nearer
        if (batch.step + 1) % config.n_critic == 0:
            fake = self.generated(draw_latents(x, config.latent_size))
            losses["generator"] = self.update("generator", {"generator": -self.critic(fake).mean()}, batch)
        return losses

    def encoder_step(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.generator.eval()  # its running statistics are frozen, as all of it is
        x = to_network(batch.images)
        with torch.no_grad():
            f = self.critic.features(x)  # (B, C, 4, 4)
        x_hat = self.generated(self.encoded(x))
        terms = {
            "reconstruction": mse_loss(x_hat, x),
            "features": self.config.feature_weight * mse_loss(self.critic.features(x_hat), f),
        }
        return terms | {"encoder": self.update("encoder", terms, batch)}

    def generated(self, z: torch.Tensor) -> torch.Tensor:
        """(B, latent) → (B, 1, S, S) in [−1, 1]."""
        with self.autocast():  # the critic, whose gradients are a loss, stays in float32
            return self.generator(z).to(z)

    def encoded(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, S, S) → (B, latent)."""
        with self.autocast():
            return self.encoder(x).to(x)

    def scores_of(self, images: torch.Tensor) -> Scores:
        x = to_network(images)
        z = self.encoded(x)
        x_hat = self.generated(z)
        reconstruction = mean_of((x_hat - x).square())
        features = mean_of((self.critic.features(x_hat) - self.critic.features(x)).square())
        latent = (self.encoded(x_hat) - z).square().mean(1).cpu().double()
        return Scores(
            image={"izi_f": reconstruction + self.config.feature_weight * features},
            columns={"reconstruction": reconstruction, "features": features, "latent": latent},
            maps={"izi_f": (x - x_hat).abs()},
            reconstruction=to_images(x_hat),
        )


def draw_latents(x: torch.Tensor, latent: int) -> torch.Tensor:
    """Noise for as many images as x has: (B, latent) from N(0, I)."""
    return torch.randn(len(x), latent, dtype=x.dtype, device=x.device)


def draw_mixture(x: torch.Tensor) -> torch.Tensor:
    """Where between a real and a generated image the critic's gradient is taken: (B, 1, 1, 1) from U(0, 1)."""
    return torch.rand(len(x), 1, 1, 1, dtype=x.dtype, device=x.device)


def lipschitz_penalty(critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Mean over the images of (‖∇‖ − 1)² (Gulrajani et al., NeurIPS 2017, equation 3).

    Args:
        critic: images → (B, 1).
        real, fake: (B, 1, H, W), without gradients.
        alpha: (B, 1, 1, 1), the share of ``fake`` in the images that the critic's gradient is taken at.
    """
    mixed = (real + alpha * (fake - real)).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


class TensorFlowRMSProp(torch.optim.Optimizer):
    """RMSProp as TensorFlow 1 steps it: s ← decay·s + (1 − decay)·g²; p ← p − lr·g/√(s + eps), s from 1 on.

    PyTorch's s starts at 0, so that its first step is lr/√(1 − decay) however small g is; its eps is outside the root.
    """

    def __init__(self, params, lr: float, decay: float = 0.9, eps: float = 1e-10):
        super().__init__(params, {"lr": lr, "decay": decay, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                if not state:
                    state["mean_square"] = torch.ones_like(p)
                s = state["mean_square"].lerp_(p.grad.square(), 1 - group["decay"])
                p.addcdiv_(p.grad, (s + group["eps"]).sqrt(), value=-group["lr"])
