"""A bank of patch features: the nearest of them, and which to keep."""

import torch

from models.fitted import Fitted
from system.progress import watched
from system.tuning import full_products

ROWS_AT_ONCE = 4096  # of the bank: distances to them are (queries, rows)


class Bank(Fitted):
    """Rows (n, d) of features, none at first; their number is in the state dict."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, 0))

    @full_products()
    def nearest(self, queries: torch.Tensor, count: int = 1) -> torch.Tensor:
        """Squared distances of each query to its ``count`` nearest rows, summed: (q, d) → (q,)."""
        best = queries.new_full((len(queries), count), torch.inf)
        squares = queries.square().sum(1, keepdim=True)  # (q, 1)
        for rows in self.rows.split(ROWS_AT_ONCE):
            distances = (queries @ rows.T).mul_(-2).add_(squares).add_(rows.square().sum(1))  # (q, ≤ ROWS_AT_ONCE)
            near = distances.topk(min(count, len(rows)), largest=False).values
            best = torch.cat([best, near], dim=1).topk(count, largest=False).values
        return best.clamp(min=0).sum(1)  # rounding


@full_products()
def greedy_coreset(features: torch.Tensor, count: int, rng: torch.Generator, starts: int = 10) -> torch.Tensor:
    """Indices (count,) of features (n, d): each pick is the one farthest from the picks before it.

    The distance to "the picks before the first" is the mean distance to ``starts`` random features, as in the
    approximate sampler of PatchCore's program; it stays among the distances of which each feature has the smallest.
    """
    first = torch.randperm(len(features), generator=rng)[:starts].to(features.device)
    squares = features.square().sum(1)  # (n,)

    def distances(index: torch.Tensor) -> torch.Tensor:  # () → (n,)
        return (features @ features[index]).mul_(-2).add_(squares).add_(squares[index]).clamp_(min=0).sqrt_()

    farthest = torch.stack([distances(index) for index in first]).mean(0)
    # made at once: a small tensor kept from every turn would lie between the large ones, and the heap would only grow
    picks = torch.empty(count, dtype=torch.long, device=features.device)
    for k in watched(range(count), "choosing the bank"):
        picks[k] = farthest.argmax()
        farthest = torch.minimum(farthest, distances(picks[k]))
        farthest[picks[k]] = -1  # never again
    return picks.cpu()
