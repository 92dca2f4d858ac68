"""Weights start as PyTorch's layers do, and memories uniformly in ±1/√d (squid.md, simsid.md): every parameter of every
method is compared with the distribution that it must be drawn from."""

import math

import pytest
import torch
from tiny import DIGITS, TINY
from torch import nn

import configs
import main
from dataloader import build_dataset
from experiments.folder import Experiment
from methods import METHODS
from models.autoencoder import LatentMemory
from models.hierarchical import KeyedMemory
from models.inpaint import NeighbourAttention
from models.memory import Addressing, MemoryMatrix, MemoryQueue, ReducedMatrix, initial_slots

SIMSID = {
    "simsid matrix": ["bottleneck=matrix"],
    "simsid reduced": ["dim_reduce=true", "slot_dim=6"],
    "simsid hierarchical": ["hierarchical=true", "skip_weights="],
}
# their own tests look at them; PatchCore trains nothing
OWN = (
    "ae_pl",
    "cutpaste",
    "dn2",
    "fae_ssim",
    "fanogan",
    "ganomaly",
    "igd",
    "implicit_field",
    "mkd",
    "padim",
    "panda",
    "patchcore",
    "rd4ad",
)
CASES = {
    **{name: (name, []) for name in TINY if name not in OWN},
    **{name: ("simsid", extra) for name, extra in SIMSID.items()},
}


def build(name):
    method, extra = CASES[name]
    config = configs.build(TINY[method][0], [*TINY[method][1], *extra])
    torch.manual_seed(0)
    return METHODS[config.method](config)


def assert_uniform(values: torch.Tensor, bound: float, name: str = "") -> None:
    """Drawn from U(−bound, bound), as far as so many values can tell (five standard errors)."""
    u = values.detach().double().flatten() / bound  # U(−1, 1): mean 0, variance 1/3
    n = u.numel()
    assert u.abs().max() <= 1 + 1e-6, f"{name} exceeds ±{bound:.3g}: {u.abs().max():.3f} times"
    assert abs(u.mean()) <= 5 * math.sqrt(1 / 3 / n), f"{name} has a mean of {u.mean():.3f} times {bound:.3g}"
    assert abs(u.square().mean() - 1 / 3) <= 5 * math.sqrt(4 / 45 / n), f"{name} has another variance"
    if n >= 100:
        assert u.max() > 1 - 30 / n and u.min() < -1 + 30 / n, f"{name} does not reach ±{bound:.3g}"


def expected_bounds(network: nn.Module) -> dict[str, float]:
    """Parameter and slot names → the bound of their uniform distribution; 0 is all zeros, −1 all ones."""
    bounds = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            # kaiming_uniform_(a=√5) is U(±1/√fan_in); PyTorch counts a transposed convolution's fan of its outputs
            bounds[f"{prefix}weight"] = bounds[f"{prefix}bias"] = 1 / math.sqrt(module.weight[0].numel())
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            bounds |= {f"{prefix}weight": -1, f"{prefix}bias": 0}
            bounds |= {f"{prefix}running_mean": 0, f"{prefix}running_var": -1}
        elif isinstance(module, (MemoryQueue, MemoryMatrix, KeyedMemory, LatentMemory)):
            bounds[f"{prefix}slots"] = 1 / math.sqrt(module.slots.shape[2])
        elif isinstance(module, ReducedMatrix):  # between two linear maps that start as nn.Linear does
            slot_dim, d = module.down.shape[1:]
            bounds |= {f"{prefix}down": 1 / math.sqrt(d)}
            bounds |= {f"{prefix}slots": 1 / math.sqrt(slot_dim), f"{prefix}up": 1 / math.sqrt(slot_dim)}
    for name, module in network.named_modules():
        if isinstance(module, NeighbourAttention):  # as nn.MultiheadAttention starts, below
            d = module.out_proj.in_features
            bounds |= {f"{name}.in_proj.weight": math.sqrt(6 / (d + 3 * d)), f"{name}.in_proj.bias": 0}
            bounds |= {f"{name}.out_proj.weight": 1 / math.sqrt(d), f"{name}.out_proj.bias": 0}
    return bounds


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_starts_as_it_must(name):
    method = build(name)
    state, bounds = method.state_dict(), expected_bounds(method)
    # all but counters and the score statistics, which nothing is drawn for
    drawn = {entry for entry in state if not entry.endswith(("num_batches_tracked", "pointer"))} - {"mu", "sigma"}
    assert drawn <= bounds.keys()
    for entry in drawn:
        values, bound = state[entry], bounds[entry]
        if bound <= 0:
            assert (values == -bound).all(), entry
        else:
            assert_uniform(values, bound, entry)
    for entry in ("mu", "sigma"):
        assert entry not in state or state[entry] == {"mu": 0, "sigma": 1}[entry]


def test_attention_starts_as_pytorchs():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(64, 8)
    ours = NeighbourAttention(2, 64)
    assert_uniform(theirs.in_proj_weight, math.sqrt(6 / (64 + 3 * 64)))
    assert_uniform(ours.in_proj.weight, theirs.in_proj_weight.abs().max().item() * 1.001)
    assert_uniform(theirs.out_proj.weight, 1 / 8)
    assert_uniform(ours.out_proj.weight, theirs.out_proj.weight.abs().max().item() * 1.001)
    for bias in (theirs.in_proj_bias, theirs.out_proj.bias, ours.in_proj.bias, ours.out_proj.bias):
        assert (bias == 0).all()


@pytest.mark.parametrize("d", [16, 2048])
def test_slots_start_within_one_over_the_root_of_their_dimension(d):
    torch.manual_seed(0)
    for slots in (
        initial_slots(2, 50, d), MemoryQueue(2, 50, d, Addressing()).slots, MemoryMatrix(2, 50, d, Addressing()).slots,
        ReducedMatrix(2, 50, 12, d, Addressing()).slots, KeyedMemory(2, 50, d).slots, LatentMemory(50, d, 0.0).slots,
    ):  # fmt: skip
        assert_uniform(slots, 1 / math.sqrt(d))
        assert not torch.equal(slots[0], slots[-1]) or len(slots) == 1  # every place has its own


# -- seeds ------------------------------------------------------------------------------------------------------------


def started(method: str, *overrides: str) -> dict[str, torch.Tensor]:
    """The weights with which a run begins."""
    name, settings = TINY[method]
    config = configs.build(name, [*DIGITS, *settings, *overrides])
    return main.build_trainer(Experiment("a"), config, build_dataset(config), torch.device("cpu")).method.state_dict()


@pytest.mark.parametrize("method", TINY)
def test_weights_are_a_function_of_the_seed(workspace, method):
    torch.manual_seed(1)
    first = started(method)
    torch.manual_seed(2)
    again, other = started(method), started(method, "seed=1")
    assert all(torch.equal(value, again[entry]) for entry, value in first.items())
    constants = ("features.mean", "features.std")  # that images are normalised by
    drawn = [
        entry for entry, value in first.items() if value.dim() > 1 and value.numel() and not entry.endswith(constants)
    ]
    assert drawn and not any(torch.equal(first[entry], other[entry]) for entry in drawn)


def test_the_members_of_an_ensemble_differ():
    state = build("ddad").state_dict()
    first = [value for entry, value in state.items() if entry.endswith("encoder.0.weight")]
    assert len(first) == 4  # two members of each module
    for i, one in enumerate(first):
        assert not any(torch.equal(one, other) for other in first[:i])
    assert not torch.equal(state["refinement.dual.layers.3.weight"], state["refinement.intra.layers.3.weight"])
