"""The exponential moving average of a method's weights.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; of adversarially trained networks:
Yazıcı et al., "The unusual effectiveness of averaging in GAN training", ICLR 2019.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from methods import Method


class Average:
    """Of ``method``'s parameters and batch norm's running statistics; all else of its state, such as queues and the
    statistics of scores, is what it was when the average was last scored, or since a later step, what it is now.

    It starts as the weights are. With step t, counted from 0, it becomes d · average + (1 − d) · weights, where
    d = min(decay, (1 + t) / (10 + t)): the start, which is hardly trained, is soon forgotten.

    Args:
        decay: in (0, 1).
    """

    def __init__(self, method: Method, decay: float):
        self.method = method
        self.decay = decay
        self.steps = 0
        self.scored = False  # since the last step
        state = method.without_frozen(method.state_dict())
        self.weights = {name: value.detach().clone() for name, value in state.items()}
        norms = [name for name, module in method.named_modules() if isinstance(module, _BatchNorm)]
        self.names = [name for name, p in method.named_parameters() if p.requires_grad]  # of what is averaged
        self.names += [f"{norm}.{kind}" for norm in norms for kind in ("running_mean", "running_var")]
        self.names = [name for name in self.names if name in self.weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights that a step has led to."""
        weights, decay = self.method.state_dict(), min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.tensors(), [weights[name] for name in self.names], None)
        self.steps += 1
        self.scored = False

    def tensors(self) -> list[torch.Tensor]:
        """What is averaged."""
        return [self.weights[name] for name in self.names]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the ``with``, the method has the averaged weights; what is fitted to them there is kept with them."""
        trained = {name: value.clone() for name, value in self.method.state_dict().items()}
        self.method.load_state_dict(trained | {name: self.weights[name] for name in self.names})
        try:
            yield
        finally:
            for name, value in self.method.without_frozen(self.method.state_dict()).items():
                self.weights[name] = value.clone()
            self.scored = True
            self.method.load_state_dict(trained)

    def state(self) -> dict[str, Any]:
        """The entries of last.pt; ``average`` is a whole state dict of the method."""
        weights = self.weights
        if not self.scored:
            now = self.method.without_frozen(self.method.state_dict())
            weights = now | {name: weights[name] for name in self.names}
        return {"average": weights, "average_steps": self.steps}

    def load(self, saved: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave. Raises KeyError where it is not there."""
        self.weights = {name: saved["average"][name].to(value) for name, value in self.weights.items()}
        self.steps = saved["average_steps"]
