"""bf16 changes how networks compute, not what is kept, nor what decides which slots are read."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from test_methods import build, images_of, start, stepping
from tiny import command, train
from torch.overrides import TorchFunctionMode

import configs
from dataloader.loader import Batch
from experiments.folder import Experiment
from experiments.log import run_parts
from methods import METHODS
from models.autoencoder import LatentMemory
from models.bank import Bank, greedy_coreset
from models.density import Density
from models.gaussians import Gaussians
from models.memory import gumbel_shrinkage
from models.ssim import similarity
from system.tuning import cpu_quota


def in_bf16(method):
    method.config.precision = "bf16"
    return method


@pytest.mark.parametrize("name", METHODS)
def test_a_bf16_step_is_finite_and_leaves_weights_and_losses_in_float32(name):
    method, loader = build(name)
    in_bf16(method)
    for stage in stepping(method):
        start(method, loader, stage)
        losses = method.training_step(Batch.of(images_of(loader, stage)))
        assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    for entry, value in method.state_dict().items():
        assert value.dtype in (torch.float32, torch.long) and value.isfinite().all(), entry


@pytest.mark.parametrize("name", METHODS)
def test_bf16_scores_are_near_those_of_float32(name):
    method, loader = build(name)
    method.fit(loader)
    images = images_of(loader)
    exact, rounded = method.score(images), in_bf16(method).score(images, all_maps=True)
    assert all(pixels.dtype == torch.float32 for pixels in rounded.maps.values())
    if exact.reconstruction is not None:
        assert rounded.reconstruction.dtype == torch.float32
        assert (exact.reconstruction - rounded.reconstruction).abs().max() < 0.03
    for score, values in exact.image.items():
        assert rounded.image[score].dtype == torch.float64
        if score == "discriminator":  # it is divided by the logits' spread, before training no more than rounding
            assert (exact.columns["logit"] - rounded.columns["logit"]).abs().max() < 0.003
            continue
        # CutPaste's features have length 1, so that before training all distances are nearly the same
        bound = 0.02 if name == "cutpaste" else 0.01
        alike = torch.corrcoef(torch.stack([values, rounded.image[score]]))[0, 1] > 0.95
        assert alike or (values - rounded.image[score]).abs().max() < bound * values.abs().mean(), score


def test_bf16_is_in_use_where_it_is_asked_for():
    method, loader = build("squid")
    images = images_of(loader)
    seen = []
    method.generator.encoder.input_block.refine[0].register_forward_hook(lambda *args: seen.append(args[2].dtype))
    method.generate(images)
    in_bf16(method).generate(images)
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("aeu", "network.decoder.9"),
        ("vae", "network.decoder.9"),
        ("ganomaly", "generator.encoder.last"),
        ("ganomaly", "generator.second_encoder.last"),
    ],
)
def test_a_last_layer_whose_differences_score_stays_in_float32(name, last):
    method, loader = build(name)
    seen = []
    method.get_submodule(last).register_forward_hook(lambda *args: seen.append(args[2].dtype))
    in_bf16(method).score(images_of(loader))
    assert set(seen) == {torch.float32}


def test_similarities_and_the_choice_of_slots_stay_in_float32():
    method, loader = build("squid")
    seen = []

    class Recorded:
        shrinks = True

        def __call__(self, query, slots):
            similarity = query @ slots.transpose(1, 2)
            seen.append(similarity.dtype)
            return gumbel_shrinkage(similarity, 5)

    memories = [m for m in method.generator.modules() if hasattr(m, "addressing")]
    for memory in memories:
        memory.addressing = Recorded()
    in_bf16(method).generate(images_of(loader))
    assert len(seen) == len(memories) and set(seen) == {torch.float32}

    latent = LatentMemory(25, 16, 0.0)
    query = torch.randn(8, 1, 16)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = latent.weights(query)
    assert torch.equal(rounded, latent.weights(query))


def test_a_run_may_go_on_in_another_precision_and_the_log_tells(workspace, trained):
    trained("exp")
    assert train("exp", overrides=["epochs=3", "precision=bf16"]) == 0
    log = (workspace / "checkpoints/exp/log.txt").read_text()
    first, second = (line for line in log.splitlines() if "precision" in line)
    assert "precision fp32" in first and "precision bf16" in second
    assert [made["precision"] for made in run_parts(Experiment("exp"))] == ["fp32", "bf16"]


def test_the_precision_of_an_evaluation_is_not_one_of_training(workspace, trained):
    trained("exp", overrides=["epochs=1"])
    found = []
    for precision in ("fp32", "bf16"):
        assert command("eval", "--exp", "exp", "--precision", precision) == 0
        found.append(json.loads((workspace / "checkpoints/exp/results.json").read_text()))
    assert [results["precision"] for results in found] == ["fp32", "bf16"]
    assert found[0]["settings"] == found[1]["settings"] and "precision" not in str(found[1]["settings"])


def test_an_unknown_precision_is_an_error():
    with pytest.raises(configs.ConfigError, match="precision = 'fp16'.*bf16"):
        configs.build("zhang_best", ["precision=fp16"])


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({}, None),
    ],
)
def test_a_containers_cpu_quota_is_read(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert cpu_quota(tmp_path) == cores


THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(not THP.exists() or platform.libc_ver()[0] != "glibc", reason="needs Linux's huge pages and glibc")
def test_the_heap_asks_for_huge_pages_and_keeps_what_it_was_given():
    code = """
import ctypes, re
from system.tuning import keep_memory
keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(ctypes.c_size_t(64 * 2**20))
entries = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read(), flags=re.MULTILINE)[1:]
for entry in entries:
    first, last = (int(end, 16) for end in entry.split()[0].split("-"))
    if first <= block + 2**22 < last:
        print(re.search("VmFlags: (.*)", entry)[1].split())
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "'hg'" in found.stdout  # madvise(MADV_HUGEPAGE)


PRODUCTS = (
    torch.Tensor.matmul, torch.Tensor.__matmul__, torch.matmul, torch.cdist, torch.linalg.solve_triangular
)  # fmt: skip


class Products(TorchFunctionMode):
    """Notes of every product of matrices whether TF32 may compute it."""

    def __init__(self):
        super().__init__()
        self.shortened = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in PRODUCTS:
            self.shortened.append(torch.backends.cuda.matmul.allow_tf32)
        return function(*args, **(kwargs or {}))


@pytest.fixture
def tf32():
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("what", ["similarity", "nearest", "coreset", "mahalanobis", "positions"])
def test_differences_of_products_are_never_of_tf32(what, tf32):
    rows, bank, density, gaussians = torch.rand(20, 4), Bank(), Density(), Gaussians()
    features = torch.rand(20, 4, 3)
    gaussians.fit([features], ridge=0.1)
    bank.rows = rows
    density.fit(rows)
    work = {
        "similarity": lambda: similarity(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)),
        "nearest": lambda: bank.nearest(rows),
        "coreset": lambda: greedy_coreset(rows, 3, torch.Generator()),
        "mahalanobis": lambda: density.mahalanobis(rows),
        "positions": lambda: gaussians.distances(features),
    }[what]
    with Products() as products:
        work()
    assert products.shortened and not any(products.shortened)
    assert torch.backends.cuda.matmul.allow_tf32
