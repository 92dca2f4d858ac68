"""Paths, recorded numbers and tiny trained experiments that several test files use."""

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from tiny import FEW, train

from dataloader.cache import VARIABLE
from evaluation import plots

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
DEVICE = torch.device(os.environ.get("GOLDEN_DEVICE", "cpu"))  # where the golden tests compute
SHARED = ROOT.parent / "shared" / "data"
torch.set_num_threads(1)  # as forked runs have (forks.py), which are compared with those in this process
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real images in ../shared/data")


class Golden:
    """One recorded case: ``info`` is its json, ``case["name"]`` an array as a float64 (or integer) tensor on DEVICE."""

    def __init__(self, name: str):
        self.info = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = np.load(GOLDEN / f"{name}.npz")

    def __getitem__(self, key: str) -> torch.Tensor:
        value = torch.from_numpy(self.arrays[key]).to(DEVICE)
        return value.double() if value.is_floating_point() else value

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): self[k] for k in self.arrays.files if k.startswith(prefix)}

    def filled_state(self, part: str) -> dict[str, torch.Tensor]:
        """The released program's initial weights, by the fill rule of the case."""
        return {name: fill(name, shape) for name, shape in self.info["official_state"][part].items()}

    def batches(self, seed: int = 100) -> list[torch.Tensor]:
        size = self.info["config"]["img_size"]
        drawn = [np.random.RandomState(seed + b).random_sample((4, 1, size, size)) for b in range(6)]
        return [torch.from_numpy(images.astype(np.float32)).double().to(DEVICE) for images in drawn]


def fill(name: str, shape: list[int]) -> torch.Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape)
    a = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        a = 1 + np.float32(0.1) * np.abs(a)
    elif name.endswith(("running_mean", "bias")):
        a = np.float32(0.1) * a
    elif len(shape) == 1:
        a = 1 + np.float32(0.1) * a
    else:
        a = (a.astype(np.float64) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return torch.from_numpy(a)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    """Agreement relative to the array's largest value, as golden/README.md says."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    actual, expected = (each.detach().cpu().double() for each in (actual, expected))
    worst = (actual - expected).abs().max() / expected.abs().max().clamp_min(1e-300)
    assert worst <= tolerance, f"off by {worst:.2e} relative to the largest value"


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def golden_device():
    """New tensors and modules are made on DEVICE, and nothing is computed in TF32."""
    with DEVICE, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


DRAWN = ("roc_pr", "histograms", "curves", "samples", "maps")  # by every evaluation, which takes most of its time


@pytest.fixture(scope="session", autouse=True)
def drawing():
    """Evaluations draw no pictures, but in tests with the marker ``pictures``; a list that is empty then."""
    off = [True]
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWN:
            draw = getattr(plots, name)
            patch.setattr(plots, name, lambda *args, draw=draw, **more: None if off else draw(*args, **more))
        yield off


@pytest.fixture(scope="session", autouse=True)
def unflushed():
    """Nothing waits for the disk: what is lost with the power may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_kept():
    """No test finds or leaves decoded images in anybody's cache; those of the cache name a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "off")
        yield


@pytest.fixture(autouse=True)
def pictures(request, drawing):
    drawing[:] = [] if request.node.get_closest_marker("pictures") else [True]


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty folder in which the commands make their checkpoints/ and data/; small fixed digit sets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANOMALY_DATA_ROOT", raising=False)
    monkeypatch.setattr("dataloader.digit.COUNTS", FEW)
    monkeypatch.setattr("evaluation.metrics.RESAMPLES", 100)  # 2000 would take a tenth of the commands' time
    return tmp_path


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """(method, overrides) → the folder of a tiny experiment, trained when it is first asked for; not to be changed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # what one process has trained, the others take
        shared = shared.parent

    def folder(method, overrides=()):
        place = shared / "trained" / "_".join([method, *(pair.replace("/", "%") for pair in overrides)])
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):
            if not (place / "done").exists():
                with pytest.MonkeyPatch.context() as patch:
                    patch.chdir(place)
                    patch.setattr("dataloader.digit.COUNTS", FEW)
                    assert train("a", method=method, overrides=overrides) == 0
                (place / "done").touch()
        return place / "checkpoints" / "a"

    return folder


@pytest.fixture
def trained(workspace, trained_once):
    """Puts a tiny experiment into the workspace, as ``train`` with the same arguments would; returns its folder."""

    def put(exp, method="squid", overrides=()):
        return shutil.copytree(trained_once(method, overrides), workspace / "checkpoints" / exp)

    return put


def same(a, b):
    """Equal to the last bit, through dicts and lists."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_run(folder, other):
    checkpoints = sorted(path.name for path in other.glob("*.pt"))
    assert sorted(path.name for path in folder.glob("*.pt")) == checkpoints
    for name in checkpoints:
        a, b = (torch.load(f / name, weights_only=True) for f in (folder, other))
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:  # of the clock
            assert same(a[key], b[key]), f"{name}: {key} differs"
    scores = [path.name for path in other.glob("epochs/*.csv")]
    for name in ("metrics.jsonl", *(f"epochs/{score}" for score in scores)):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), f"{name} differs"
