"""A Gaussian at every position of a grid of features."""

from collections.abc import Iterable

import torch

from models.fitted import Fitted
from system.tuning import full_products

ENTRIES_AT_ONCE = 10**7  # of (d, d) matrices: 80 MB in float64


class Gaussians(Fitted):
    """Means and covariances of features (d,) at P positions, none at first.

    Of the covariances' Cholesky factors the triangles alone are kept, two positions' in a rectangle: P/2 · (d + 1) · d
    numbers. They take P · d² · 4 bytes while they are fitted and half of it afterwards, for however many images: 125
    and 63 MB of the published ResNet-18 (P = 56², d = 100), 3.8 and 1.9 GB of WideResNet-50 (d = 550).
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("means", torch.zeros(0, 2, 0))  # (P/2, 2, d)
        self.register_buffer("factors", torch.zeros(0, 1, 0))  # (P/2, d + 1, d)

    def fit(self, batches: Iterable[torch.Tensor], ridge: float) -> None:
        """Sums over features (B, d, P), in float64; the covariances' divisor is N − 1, ``ridge`` is on their diagonals.

        Raises:
            torch.linalg.LinAlgError: where a covariance has no Cholesky factor.
        """
        count, total, products = 0, 0.0, []
        for features in batches:
            x = paired(features.cpu() if features.is_mps else features)  # (P/2, 2, d, B); mps has no float64
            parts = x.split(at_once(x.shape[2]))
            products = products or [0.0] * len(parts)
            for k, part in enumerate(parts):
                part = part.double()  # (p, 2, d, B)
                products[k] += folded(part @ part.mT)  # (p, d + 1, d)
            count += x.shape[3]
            total = total + x.sum(3, dtype=torch.float64)  # (P/2, 2, d)
        means = total / count
        pairs, _, d = means.shape
        factors = self.factors.new_empty(pairs, d + 1, d)
        for mean, part in zip(means.split(at_once(d)), factors.split(at_once(d)), strict=True):
            # the sums go as the factors come, so that both are never there
            covariance = torch.stack(unfolded(products.pop(0)), 1).tril_()  # (p, 2, d, d)
            covariance += covariance.tril(-1).mT
            covariance -= count * mean.unsqueeze(3) * mean.unsqueeze(2)
            covariance /= count - 1
            covariance.diagonal(dim1=2, dim2=3).add_(ridge)
            part.copy_(folded(torch.linalg.cholesky(covariance)))
        self.means, self.factors = means.to(self.means), factors

    @full_products()
    def distances(self, features: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distance at every position: (B, d, P) → (B, P)."""
        x = paired(features) - self.means.unsqueeze(3)  # (P/2, 2, d, B)
        step, found = at_once(x.shape[2]), []
        for part, factors in zip(x.split(step), self.factors.split(step), strict=True):
            z = [
                torch.linalg.solve_triangular(lower, own, upper=False)  # (p, d, B)
                for lower, own in zip(unfolded(factors), part.unbind(1), strict=True)
            ]
            found.append(torch.stack(z, 1).square().sum(2))  # (p, 2, B)
        return torch.cat(found).flatten(0, 1)[: features.shape[2]].sqrt().T


def at_once(d: int) -> int:
    """How many pairs of positions are worked on together."""
    return max(ENTRIES_AT_ONCE // (2 * d * d), 1)


def paired(features: torch.Tensor) -> torch.Tensor:
    """(B, d, P) → (P/2, 2, d, B), rounded up: of an odd number the last position is there twice."""
    x = features.permute(2, 1, 0)
    if len(x) % 2:
        x = torch.cat([x, x[-1:]])
    return x.unflatten(0, (-1, 2))


def folded(squares: torch.Tensor) -> torch.Tensor:
    """Lower triangles (p, 2, d, d) → (p, d + 1, d): the first below the second, which is transposed."""
    first, second = squares.unbind(1)
    rectangle = squares.new_zeros(len(squares), squares.shape[2] + 1, squares.shape[3])
    rectangle[:, 1:] += first.tril()
    rectangle[:, :-1] += second.tril().mT
    return rectangle


def unfolded(rectangle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The inverse of :func:`folded`: two views (p, d, d), whose lower triangles are meant."""
    return rectangle[:, 1:], rectangle[:, :-1].mT
