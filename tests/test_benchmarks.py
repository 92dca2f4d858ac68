"""benchmarks/: the plain arrangement computes what ours does, and the commands run; how fast is not looked at."""

import math

import pytest
import torch
from tiny import TINY as TINY_SETTINGS
from tiny import command

from benchmarks import agreement, cost, peers, reading, speed
from benchmarks.beside_anomalib.shared import Row, blurred_as_theirs, copy_weights
from benchmarks.measure import Measured, Worker, count_flops, timed
from benchmarks.workloads import Counts, RandomImages, arrange, epoch, machine_limit, training
from dataloader import cache
from dataloader.loader import TrainLoader
from methods.maps import gaussian_blur
from system.tuning import choose_tf32

CPU = torch.device("cpu")
TINY = ["image_size=64", "base_channels=4", "queue_slots=16", "matrix_slots=8", "batch_size=4"]
SETTINGS = ("zhang_best", TINY)


class InProcess:
    """In place of a Worker: the same work in this process."""

    def __init__(self, device, build, *arguments):
        self.work = build(*arguments)

    def seconds(self):
        return timed(self.work.run, CPU)

    def finish(self, flops=False):
        return Measured(2**20, count_flops(self.work) if flops else 0)


@pytest.mark.parametrize(
    "overrides",
    [[], ["gumbel_top_k=0", "shrink_threshold=0.0005", "n_critic=1"], ["decoder_memory=V3,V1,none,none"]],
)
def test_both_arrangements_give_the_same_numbers(overrides):
    found = agreement.differences(("zhang_best", [*TINY, *overrides]), CPU)
    assert {(d.precision, d.what) for d in found} >= {
        ("float64", "weights and queues after them"), ("float64", "logits after them"),
        ("float64", "metrics of the same scores"), ("float32", "losses before the first update"),
    }  # fmt: skip
    for difference in found:
        assert not difference.too_large, difference


def test_a_difference_is_found():
    ours, plain = (arrange(name, SETTINGS, CPU) for name in ("ours", "plain"))
    assert agreement.weights_apart(ours, plain) == 0
    with torch.no_grad():
        ours.generator.inpaint.memory.slots[1, 2, 3] += 1
    assert agreement.weights_apart(ours, plain) > 0.5
    assert agreement.Difference("float32", "anything", math.nan, 1e-4).too_large


@pytest.mark.parametrize(
    "build",
    [lambda: arrange("ours", SETTINGS, CPU), lambda: arrange("plain", SETTINGS, CPU),
     lambda: machine_limit("convolution fp32", CPU)],
)  # fmt: skip
def test_float32_is_no_tf32_on_a_gpu(build):
    choose_tf32("tf32")  # cuDNN's default
    try:
        build()
        assert not (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)
    finally:
        choose_tf32("fp32")


def test_an_epoch_of_both_gives_the_same_metrics(monkeypatch):
    """In float64, images too: Adam makes steps of float32's rounding, which differs from machine to machine."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    settings = ("zhang_best", [*TINY, "mask_ratio=1.0", "augment=false"])
    ours, plain = (arrange(name, settings, CPU).double() for name in ("ours", "plain"))
    dataset = RandomImages(ours.config, Counts(8, 4, 4))
    found = [epoch(each, TrainLoader(dataset, ours.config, CPU), dataset.split("val")) for each in (plain, ours)]
    assert found[0].keys() == found[1].keys()
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert agreement.weights_apart(ours, plain) < 1e-6


def test_counts_keep_zhanglabs_proportions():
    assert Counts.like_zhang(1249) == (1249, 200, 201)
    assert Counts.like_zhang(16) == (16, 2, 3)


def test_a_worker_answers_with_time_memory_and_arithmetic():
    worker = Worker(CPU, training, "plain", SETTINGS, CPU)
    assert worker.seconds() > 0
    measured = worker.finish(flops=True)
    assert measured.peak > 0 and measured.flops > 1e8


@pytest.mark.slow
def test_the_command_writes_its_tables(workspace, monkeypatch, capsys):
    monkeypatch.setattr(speed, "Worker", InProcess)
    monkeypatch.setattr(agreement, "ITERATIONS", 2)
    arguments = ["--device", "cpu", "--repeats", 1, "--score-images", 2, "--epoch-images", 8, "--set", *TINY]
    assert command("speed", *arguments, "--out", "out/speed.md", module=speed) == 0
    text = (workspace / "out" / "speed.md").read_text()
    assert text.count("| ours bf16 |") == 5  # three works, and the arithmetic of two
    assert "**too large**" not in text and text.strip() in capsys.readouterr().out
    assert command("speed", "--config", "ddad_brain_ae", "--device", "cpu", module=speed) == 1


def test_a_disagreement_ends_the_command(workspace, monkeypatch, capsys):
    wrong = agreement.Difference("float64", "anything", 1.0, 1e-6)
    monkeypatch.setattr(agreement, "differences", lambda settings, device: [wrong])
    assert command("speed", "--device", "cpu", module=speed) == 1
    assert "do not give the same numbers" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["squid", "ddad", "patchcore", "ganomaly"])
def test_what_a_method_costs(name, workspace, monkeypatch):
    monkeypatch.setattr(cost, "Worker", InProcess)
    config, settings = TINY_SETTINGS[name]
    case = " ".join([config, *settings])
    few = ["--device", "cpu", "--batches", 1, "--fit-images", 4, "--score-images", 2, "--repeats", 1]
    assert command("cost", case, *few, "--vary", "batch_size=2,4", "--out", "cost.md", module=cost) == 0
    text = (workspace / "cost.md").read_text()
    works = {"patchcore": ["fitting"], "ddad": ["training, udm", "training, ndm", "training, refine"]}
    for what in [*works.get(name, ["training"]), "scoring"]:
        assert text.count(f"| {what} |") == 4  # of both sizes, and the exponents of time and memory
    assert "## batch_size=2,4" in text and "| 2 → 4 |" in text


def test_anomalibs_works_take_turns_with_ours(workspace, monkeypatch):
    pytest.importorskip("anomalib")
    monkeypatch.setattr(cost, "Worker", InProcess)
    few = ["--device", "cpu", "--fit-images", 4, "--score-images", 2, "--repeats", 1, "--beside-anomalib"]
    cases = ["padim image_size=64", "patchcore image_size=64 backbone=resnet18"]
    assert command("cost", *cases, *few, "--out", "cost.md", module=cost) == 0
    text = (workspace / "cost.md").read_text()
    assert all(text.count(f"| {what} |") == 2 for what in ("fitting", "fitting, anomalib", "scoring, anomalib"))


def test_anomalib_is_asked_for_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(cost, "find_spec", lambda name: None)
    assert command("cost", "padim", "--beside-anomalib", module=cost) == 2
    assert "anomalib is not installed here: pip install anomalib" in capsys.readouterr().err


def test_what_reading_takes(workspace, monkeypatch):
    def in_process(work, *arguments):
        return reading._cost(work, *arguments, threads=1)

    monkeypatch.setattr(reading, "measured", in_process)
    monkeypatch.setattr(cache, "LEAST", 1)
    monkeypatch.setenv(cache.VARIABLE, "off")  # the benchmark sets it
    assert command("reading", "--files", 120, "--side", 64, "--out", "reading.md", module=reading) == 0
    rows = [
        line.strip("| ").split(" | ") for line in (workspace / "reading.md").read_text().splitlines() if "start" in line
    ]
    starts = {row[0]: row[1] for row in rows if len(row) == 5}
    assert starts.keys() == {
        "start without a cache", "first start", "second start", "start after 4 files changed",
    }  # fmt: skip
    (count,) = set(starts.values())  # but the abnormal training images, and what patients have beyond their share
    assert 108 <= int(count) < 120
    assert command("reading", "--files", 10, module=reading) == 2


def test_exponents_are_slopes_of_logarithms():
    found = [{"scoring": cost.Cost(1, [1 / k**2], 3 * k)} for k in (2, 4, 8)]
    rows = [line for line in cost.exponents("k=2,4,8", [found], ["m"]) if line.startswith("| m")]
    assert rows == ["| m | scoring | time an image | 2.00 | 2.00 |", "| m | scoring | memory | 1.00 | 1.00 |"]


def test_peers_are_apart_by_the_largest_difference_and_wrong_where_they_must_be_equal():
    ours, theirs = torch.tensor([1.0, -4.0]), torch.tensor([1.5, -3.0])
    assert Row("= score", ours, theirs).apart == 0.25
    assert Row("= score", ours, theirs).wrong and not Row("score", ours, theirs).wrong
    assert not Row("= score", ours, ours + 1e-5).wrong
    assert Row("= score", ours, ours * math.nan).wrong


def test_only_the_border_of_a_blurred_map_depends_on_what_is_beyond_it():
    maps = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    ours, theirs = gaussian_blur(maps, 4), blurred_as_theirs(maps)
    inside = (..., slice(16, -16), slice(16, -16))
    torch.testing.assert_close(ours[inside], theirs[inside])
    assert (ours - theirs).abs().max() > 1e-3
    assert blurred_as_theirs(torch.full_like(maps, 3)).sub(3).abs().max() < 1e-5


def test_weights_are_copied_with_the_statistics_of_batch_norms():
    ours, theirs = (torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)) for _ in range(2))
    ours(torch.rand(8, 2))
    with torch.no_grad():
        copy_weights([ours[0], ours[1]], theirs)
    x = torch.rand(4, 2)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    with pytest.raises(ValueError, match="zip"):
        copy_weights(ours[0], theirs)


@pytest.mark.parametrize(("what", "code"), [("= score", 1), ("score", 0)])
def test_peers_that_must_be_equal_end_the_command_where_they_are_not(what, code, workspace, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: True)
    monkeypatch.setattr(peers, "version", lambda name: "1.0")
    for method in (peers.padim, peers.patchcore, peers.rd4ad):
        monkeypatch.setattr(method, "rows", lambda settings: iter([Row("= map", 1.0, 1.0)]))
    monkeypatch.setattr(peers.ganomaly, "rows", lambda: iter([Row(what, 1.0, 2.0)]))
    assert command("peers", "--out", "peers.md", module=peers) == code
    assert f"| {what} | 1 | 2 | 1.0e+00 |" in (workspace / "peers.md").read_text()


def test_peers_say_what_is_missing(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert "pip install anomalib" in command("peers", module=peers)
