"""The layers between two of a network trained on ImageNet, on their own."""

import torch
from torch import fx, nn

from models.features import FrozenFeatures


class LayersBetween(nn.Module):
    """What leads from a network's layer ``first`` to its layer ``last``, with its weights: (B, C, h, w) → ``last``'s.

    As in :class:`FrozenFeatures`, batch norm stays in evaluation mode.

    Args:
        whole: the network with both layers, which is used up.
    """

    def __init__(self, whole: FrozenFeatures, first: str, last: str):
        super().__init__()
        self.ends = first, last
        graph = whole.network.graph
        image, output = next(iter(graph.nodes)), next(iter(reversed(graph.nodes)))
        outputs = output.args[0]
        outputs[first].replace_all_uses_with(image)
        output.args = (outputs[last],)
        graph.eliminate_dead_code()
        self.network = fx.GraphModule(whole.network, graph)
        self.train(False)

    def train(self, mode: bool = True) -> "LayersBetween":
        return super().train(False)

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        return self.network(f)

    def take(self, whole: FrozenFeatures) -> None:
        """The weights of another network of the same kind."""
        state = whole.network.state_dict()
        self.network.load_state_dict({name: state[name] for name in self.network.state_dict()})
