"""compile=true: the networks that torch.compile makes compute what they do without it, and are made once."""

import pytest
import torch
from tiny import TINY
from torch._dynamo.utils import counters

from configs import build
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from methods import METHODS

CPU = torch.device("cpu")


def trained(name: str, monkeypatch, compiled: bool):
    """Losses and weights of four iterations in float64, and how many graphs there were after two and after four."""
    torch.compiler.reset()
    counters.clear()
    if compiled:  # the default, inductor, needs a C++ compiler
        method_class = METHODS[name]
        wrapped = method_class.compile_networks
        monkeypatch.setattr(method_class, "compile_networks", lambda self: wrapped(self, backend="aot_eager"))
    config = build(TINY[name][0], [*TINY[name][1], f"compile={compiled}", "mask_ratio=1", "n_critic=2"])
    torch.manual_seed(0)
    method = METHODS[name](config).double()
    loader = TrainLoader(build_dataset(config), config, CPU)
    method.start_stage("train")
    images = next(loader.epoch(0).batches())[1].double()
    losses, graphs = [], []
    for step in range(4):
        losses.append(method.training_step(images, step))
        graphs.append(counters["stats"]["unique_graphs"])
    return losses, method.state_dict(), graphs


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_compiled_training_is_that_of_the_same_networks(name, monkeypatch):
    losses, weights, graphs = trained(name, monkeypatch, compiled=False)
    assert set(graphs) == {0}
    ours, ours_weights, graphs = trained(name, monkeypatch, compiled=True)
    assert not counters["graph_break"]
    assert graphs[3] == graphs[1] > 0  # nothing is compiled again
    torch.testing.assert_close(ours, losses, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours_weights, weights, rtol=1e-6, atol=1e-8)
