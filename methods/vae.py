"""VAE: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, as Cai et al. compare with it, "MedIAnomaly: A
comparative study of anomaly detection in medical images", Medical Image Analysis 2025. Gradients as scores: Zimmerer
et al., "Unsupervised Anomaly Localization using Variational Auto-Encoders", MICCAI 2019.

Latents of normal images are kept near a standard Gaussian, and decoded; what is rebuilt badly is anomalous.

Deviations from the authors' program (MedIAnomaly's):
- The mean of the latent is decoded to score an image; there a sample is, so that scores differ from run to run.
- The last epoch counts, and seeds fix weights, order and samples.
- A last batch of a single image, of which batch norm has no variance, is left out; there it is an error.
- The score by the gradient of the divergence weighs it with the squared error.
"""

import torch
from torch.nn.functional import mse_loss

from configs.vae import VaeConfig
from dataloader.loader import Batch
from methods.autoencoder import mean_of, to_images, to_network
from methods.base import Method, Scores, lr_scheduler
from models.vae import Inferred, VariationalAutoEncoder


class Vae(Method):
    """Image score: ``reconstruction``, the mean squared error in [−1, 1].

    With ``gradient_scores`` also the means of ``elbo_gradient``, |∂(error + weighted divergence)/∂x|, and
    ``kl_gradient``, |∂divergence/∂x| times the squared error of the pixel.
    """

    score_names = ("reconstruction",)

    def __init__(self, config: VaeConfig):
        super().__init__(config)
        if config.gradient_scores:
            self.score_names = ("reconstruction", "elbo_gradient", "kl_gradient")
        sizes = (config.image_size, config.multiplier, config.latent_size, config.hidden_size)
        self.network = VariationalAutoEncoder(*sizes)
        self.optimizers = {"network": torch.optim.Adam(self.network.parameters(), config.learning_rate, fused=True)}
        self.schedulers = {"network": lr_scheduler(self.optimizers["network"], config)}

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        x = to_network(batch.images)
        out = self.inferred(x)
        terms = {
            "reconstruction": mse_loss(out.x_hat, x),
            "divergence": self.config.kl_weight * divergence(out.mu, out.log_var).mean(),
        }
        return terms | {"loss": self.update("network", terms, batch)}

    def inferred(self, x: torch.Tensor) -> Inferred:
        """What the network makes of x (B, 1, S, S), computed in the configured precision, in x's."""
        with self.autocast():
            out = self.network(x)
        return Inferred(*(part.to(x) for part in out))

    def scores_of(self, images: torch.Tensor) -> Scores:
        x = to_network(images)
        x_hat = self.inferred(x).x_hat
        error = (x_hat - x).square()  # (B, 1, S, S)
        maps = {"reconstruction": error}
        if self.config.gradient_scores:
            of_loss, of_divergence = self.gradients(x)
            maps |= {"elbo_gradient": of_loss.abs(), "kl_gradient": of_divergence.abs() * error}
        return Scores(
            image={name: mean_of(pixels) for name, pixels in maps.items()},
            maps=maps,
            reconstruction=to_images(x_hat),
        )

    @torch.enable_grad()
    def gradients(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """By each image, of its own loss and of its own divergence: (B, 1, S, S) each."""
        x = x.clone().requires_grad_()
        out = self.inferred(x)
        apart = divergence(out.mu, out.log_var)  # (B,)
        loss = (out.x_hat - x).square().mean((1, 2, 3)) + self.config.kl_weight * apart  # (B,)
        # no image has a part in another's loss, so that the sum's gradient is each one's own
        (of_loss,) = torch.autograd.grad(loss.sum(), x, retain_graph=True)
        (of_divergence,) = torch.autograd.grad(apart.sum(), x)
        return of_loss, of_divergence


def divergence(mu: torch.Tensor, log_var: torch.Tensor) -> torch.Tensor:
    """Of N(μ, σ²) from N(0, 1), the mean over the latent's dimensions: (B, latent) each → (B,)."""
    return (mu.square() + log_var.exp() - 1 - log_var).mean(1) / 2
