"""Training augmentation on whole batches: SQUID's translation by ±5 % and scaling by 0.95–1.05, no rotation."""

import torch

TRANSLATE = 0.05
SCALE = (0.95, 1.05)


def draw_affine(count: int, rng: torch.Generator) -> torch.Tensor:
    """Parameters for ``count`` images: (count, 3) of shifts (x, y) as shares of the side, and scale."""
    shift = torch.empty(count, 2).uniform_(-TRANSLATE, TRANSLATE, generator=rng)
    scale = torch.empty(count, 1).uniform_(*SCALE, generator=rng)
    return torch.cat([shift, scale], dim=1)


def affine(images: torch.Tensor, parameters: torch.Tensor) -> torch.Tensor:
    """Scale about the centre, then shift by whole pixels; nearest neighbour, black outside, as torchvision does.

    (B, 1, H, W) with parameters (B, 3) → (B, 1, H, W).
    """
    b, _, h, w = images.shape
    size = torch.stack([torch.full((), side, device=images.device) for side in (w, h)])  # not copied from the host
    shift = (parameters[:, :2] * size).round() * 2 / size  # of the content, in units where the side is 2
    scale = parameters[:, 2:]
    theta = torch.cat([torch.eye(2, device=images.device) / scale[:, :, None], (-shift / scale)[:, :, None]], dim=2)
    grid = torch.nn.functional.affine_grid(theta, [b, 1, h, w], align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, "nearest", "zeros", align_corners=False)
