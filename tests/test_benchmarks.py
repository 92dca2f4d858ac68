"""benchmarks/: the plain arrangement computes what ours does, and the command runs; how fast is not looked at."""

import math

import pytest
import torch
from tiny import command

from benchmarks import agreement, ddad, growth, speed
from benchmarks.measure import Measured, Worker, count_flops, timed
from benchmarks.plain_squid import PlainSquid
from benchmarks.workloads import Counts, Ours, RandomImages, arrange, epoch, training
from dataloader.loader import TrainLoader

CPU = torch.device("cpu")
TINY = ["image_size=64", "base_channels=4", "queue_slots=16", "matrix_slots=8", "batch_size=4"]
SETTINGS = ("zhang_best", TINY)
SMALL_DDAD = ["multiplier=0.25", "image_size=32", "batch_size=8", "refine_batch_size=8"]


class InProcess:
    """In place of a Worker: the same work in this process."""

    def __init__(self, device, build, *arguments):
        self.work = build(*arguments)

    def seconds(self):
        return timed(self.work.run, CPU)

    def finish(self, flops=False):
        return Measured(2**20, count_flops(self.work) if flops else 0)


@pytest.mark.parametrize("overrides", [[], ["gumbel_top_k=0", "shrink_threshold=0.0005", "n_critic=1"]])
def test_both_arrangements_give_the_same_numbers(overrides):
    found = agreement.differences(("zhang_best", [*TINY, *overrides]), CPU)
    assert {(d.precision, d.what) for d in found} >= {
        ("float64", "weights and queues after them"), ("float64", "logits after them"),
        ("float64", "metrics of the same scores"), ("float32", "losses before the first update"),
    }  # fmt: skip
    for difference in found:
        assert not difference.too_large, difference


def test_a_difference_is_found():
    ours = arrange("ours", SETTINGS, CPU)
    plain = agreement.PlainSquid(ours.method)
    assert agreement.weights_apart(ours, plain) == 0
    with torch.no_grad():
        ours.method.generator.inpaint.memory.slots[1, 2, 3] += 1
    assert agreement.weights_apart(ours, plain) > 0.5
    assert agreement.Difference("float32", "anything", math.nan, 1e-4).too_large


def test_an_epoch_of_both_gives_the_same_metrics(monkeypatch):
    """In float64, images too: Adam makes steps of float32's rounding, which differs from machine to machine."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    ours = arrange("ours", ("zhang_best", [*TINY, "mask_ratio=1.0", "augment=false"]), CPU)
    ours.method.double()
    config, plain = ours.method.config, PlainSquid(ours.method)
    dataset = RandomImages(config, Counts(8, 4, 4))
    found = [epoch(each, TrainLoader(dataset, config, CPU), dataset.split("val")) for each in (plain, ours)]
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


def test_the_command_writes_its_tables(workspace, monkeypatch, capsys):
    for module in (speed, growth):
        monkeypatch.setattr(module, "Worker", InProcess)
    monkeypatch.setattr(agreement, "ITERATIONS", 2)
    arguments = ["--device", "cpu", "--repeats", 1, "--score-images", 2, "--epoch-images", 8, "--set", *TINY]
    assert command("speed", *arguments, "--only", "ratios", "--out", "out/speed.md", module=speed) == 0
    text = (workspace / "out" / "speed.md").read_text()
    assert text.count("| ours bf16 |") == 5  # three works, and the arithmetic of two
    assert "**too large**" not in text and text.strip() in capsys.readouterr().out
    assert command("speed", "--config", "ddad_brain_ae", "--device", "cpu", module=speed) == 1


def test_ddads_command_writes_its_table(workspace):
    arguments = ["--device", "cpu", "--repeats", 2, "--images", 9, "--out", "ddad.md", "--set", *SMALL_DDAD]
    assert command("ddad", *arguments, module=ddad) == 0
    text = (workspace / "ddad.md").read_text()
    assert [text.count(f"| {what} |") for what in ("an epoch of udm", "an epoch of refine", "scoring")] == [1] * 3
    assert command("ddad", "--config", "zhang_best", module=ddad) == 1


def test_a_disagreement_ends_the_command(workspace, monkeypatch, capsys):
    wrong = agreement.Difference("float64", "anything", 1.0, 1e-6)
    monkeypatch.setattr(agreement, "differences", lambda settings, device: [wrong])
    assert command("speed", "--device", "cpu", module=speed) == 1
    assert "do not give the same numbers" in capsys.readouterr().err


def test_growth_tables(workspace, monkeypatch):
    monkeypatch.setattr(growth, "Worker", InProcess)
    case = growth.Case("Slots", "slots", (8, 16), lambda s: [*TINY, f"queue_slots={s}"], float, "Why.")
    monkeypatch.setattr(growth, "SCORED", 2)
    assert "**exponent**" in "\n".join(growth.squid_table(case, CPU, 1))
    assert "fingerprint" in "\n".join(growth.data_set_table(CPU, 1, (16, 32)))
    monkeypatch.setattr(growth, "DDAD_IMAGES", 8)
    assert "members" in "\n".join(growth.members_table(CPU, 1, (2,), SMALL_DDAD))


def test_exponents_and_their_sentence():
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    lines = growth.table("T", "n", (1, 2), {"flat": [1, 1], "steep": [1, 4]}, [1, 2], "Because.")
    assert "Worse than linear: steep. Because." in lines
    assert "Nothing here is worse than linear." in growth.table("T", "n", (1, 2), {"flat": [1, 1]}, [1, 2], "Because.")


def test_ours_is_the_method_as_the_loop_uses_it():
    ours = arrange("ours bf16", SETTINGS, CPU)
    assert isinstance(ours, Ours) and ours.method.config.precision == "bf16"
