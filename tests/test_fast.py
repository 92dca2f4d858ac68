"""What is computed in another order to be fast is what the plain form computes, forwards and backwards."""

import pytest
import torch
from test_methods import build, images_of
from torch.nn.functional import conv2d

from dataloader.loader import Batch
from models import fast
from models.blocks import ResidualBlock, UpBlock
from models.fast import convolve_doubled, double
from models.inpaint import NeighbourAttention
from system import tuning


def operands(n=2, c=3, h=5, w=4, out=6, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(n, c, h, w, dtype=dtype).to(memory_format=torch.channels_last)
    return x, torch.randn(out, c, 3, 3, dtype=dtype), torch.randn(out, dtype=dtype)


def directly(x, weight, bias=None):
    return conv2d(double(x), weight, bias, padding=1)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (4, 4), (5, 8)])
@pytest.mark.parametrize("biased", [True, False])
def test_the_order_does_not_matter(height, width, biased):
    x, weight, bias = operands(h=height, w=width)
    bias = bias if biased else None
    torch.testing.assert_close(convolve_doubled(x, weight, bias), directly(x, weight, bias), rtol=1e-12, atol=1e-12)
    contiguous = convolve_doubled(x.contiguous(), weight, bias)
    torch.testing.assert_close(contiguous, directly(x, weight, bias), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
def test_gradients_are_those_of_the_other_order(size):
    operand = [t.requires_grad_() for t in operands(h=size[0], w=size[1])]
    upstream = torch.randn(directly(*operand).shape, dtype=torch.float64)
    ours = torch.autograd.grad((convolve_doubled(*operand) * upstream).sum(), operand)
    theirs = torch.autograd.grad((directly(*operand) * upstream).sum(), operand)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_constant_map_by_hand():
    ones, weight = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3)
    expected = torch.tensor([[4.0, 6, 6, 4], [6, 9, 9, 6], [6, 9, 9, 6], [4, 6, 6, 4]])  # taps inside the 4 × 4 map
    torch.testing.assert_close(convolve_doubled(ones, weight, None)[0, 0], expected)


def test_bfloat16_rounds_little_more_than_the_other_order():
    x, weight, bias = operands(n=8, c=64, h=8, w=8, out=32, dtype=torch.float32)
    exact, low = directly(x, weight, bias), [t.bfloat16() for t in (x, weight, bias)]
    ours, theirs = ((f(*low).float() - exact).square().mean().sqrt() for f in (convolve_doubled, directly))
    assert ours < 1.5 * theirs < 0.01 * exact.std()


@pytest.mark.parametrize("op", ["concat", "add", "none"])
def test_an_up_block_is_the_residual_block_of_what_it_joins(op):
    torch.manual_seed(0)
    channels = 8 if op == "add" else 12
    up = UpBlock(channels, 8, op).double()
    like = ResidualBlock(20 if op == "concat" else channels, 8).double()
    like.load_state_dict(up.state_dict())
    x, skip = torch.randn(4, channels, 3, 3).double(), torch.randn(4, 8, 6, 6).double()
    joined = {
        "concat": lambda: torch.cat([skip, double(x)], 1),
        "add": lambda: skip + double(x),
        "none": lambda: double(x),
    }[op]()
    maps = (x,) if op == "none" else (x, skip)
    for mode in (True, False):
        torch.testing.assert_close(up.train(mode)(*maps), like.train(mode)(joined), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(up.state_dict(), like.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "last"), [(ResidualBlock, 1), (ResidualBlock, 2), (UpBlock, "concat")])
def test_evaluation_goes_a_few_maps_at_a_time(kind, last, monkeypatch):
    torch.manual_seed(0)
    block = kind(3, 4, last).double().eval()
    maps = [torch.randn(5, 3, 6, 6).double(), torch.randn(5, 4, 12, 12).double()]
    maps = maps if isinstance(block, UpBlock) else maps[:1]
    seen = []
    block.refine.register_forward_hook(lambda module, maps, result: seen.append(len(maps[0])))
    with torch.no_grad():
        whole = block(*maps)
        monkeypatch.setattr(fast, "VALUES_AT_ONCE", 2 * whole[0].numel())
        torch.testing.assert_close(block(*maps), whole)
        assert seen == [5, 2, 2, 1]
        block.train()(*maps)
        assert seen[4:] == [5]  # batch norm is over the whole batch
        monkeypatch.setattr(tuning, "plain", True)
        block.eval()(*maps)
        assert seen[5:] == [5]


def test_one_switch_turns_all_of_it_off_and_changes_no_number(monkeypatch):
    """In float64, over both of SQUID's turns: the same losses, gradients' steps, running statistics and scores."""
    used = []
    spread = fast._Spread.apply
    monkeypatch.setattr(fast._Spread, "apply", lambda products: used.append(1) or spread(products))
    found = []
    for plain in (False, True):
        used.clear()
        monkeypatch.setattr(tuning, "plain", plain)
        method, loader = build("squid")
        method.double()
        encoded = []
        method.generator.encoder.register_forward_hook(lambda *_, encoded=encoded: encoded.append(1))
        images = images_of(loader).double()
        for step in range(2):
            torch.manual_seed(step)
            losses = method.training_step(Batch.of(images, step))
        assert bool(used) is not plain and len(encoded) == (3 if plain else 2)
        found.append((losses, method.score(images).image, method.state_dict()))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


def test_the_neighbours_gradient_is_the_same_on_several_threads():
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    attention = NeighbourAttention(2, 1024)
    query, memory, at_output = torch.randn(3, 1, 4, 1024)
    memory.requires_grad_()
    torch.set_num_threads(2)  # which share out what is read several times, and may add it up in any order
    try:
        found = [torch.autograd.grad(attention(query, memory), memory, at_output)[0] for _ in range(150)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(gradient, found[0]) for gradient in found)
