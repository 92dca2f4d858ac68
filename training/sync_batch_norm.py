"""Batch norm over all processes' images (the setting ``sync_batch_norm``): torch's on GPUs, ours on CPUs."""

import torch
from torch import nn

from system import distributed


class _Stacked(torch.autograd.Function):
    """Every process's values (n,) as rows (processes, n); the gradient of the processes' summed losses comes back."""

    @staticmethod
    def forward(ctx, values: torch.Tensor) -> torch.Tensor:
        return distributed.all_gather(values)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _OwnSum.apply(gradient)


class _OwnSum(torch.autograd.Function):
    """Of every process's rows (processes, n) the sum of those that are this one's (n,). It and :class:`_Stacked` are
    each other's gradient, so that a gradient can be differentiated again (R1).
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        total = rows.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce([total])
        return total[distributed.rank()].clone()

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return _Stacked.apply(gradient)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What nn.SyncBatchNorm computes, which runs on GPUs alone.

    In training, mean and variance are of all processes' images, as many as each has; in evaluation it is nn.BatchNorm.
    """

    def _check_input_dim(self, x: torch.Tensor) -> None:
        pass  # of any number of dimensions

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, …) → same
        if not self.training:
            return super().forward(x)
        channels = x.shape[1]
        shape = (1, channels, *[1] * (x.dim() - 2))  # of one value per channel
        axes = [0, *range(2, x.dim())]
        full = x.to(torch.promote_types(x.dtype, torch.float32))

        # 1. each process's count, mean and sum of squares about it: two of these are put together without cancellation
        mean = full.mean(axes)  # (C,)
        squares = (full - mean.view(shape)).square().sum(axes)  # (C,)
        count = mean.new_full((1,), x.numel() // channels)
        counts, means, squares = _Stacked.apply(torch.cat([count, mean, squares])).split([1, channels, channels], dim=1)

        # 2. those of all images
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (squares + counts * (means - mean).square()).sum(0) / total

        # 3. the running ones, and the images normalised
        with torch.no_grad():
            self.num_batches_tracked += 1
            momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum  # as nn.BatchNorm
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_((variance * total / (total - 1)).to(self.running_var), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((full - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make every batch norm in ``network`` a synchronised one; parameters, buffers and their names stay."""
    if next(network.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.__class__ = SyncBatchNorm  # the same module, so that optimizers and references to it hold
