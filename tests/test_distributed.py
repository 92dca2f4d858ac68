"""Two processes are one: the same gradients, memories and scores; one set of files; and what ends one ends both."""

import json
import os
import signal
import subprocess
import sys

import processes
import pytest
import torch
from conftest import ROOT, assert_same_run
from forks import launch
from tiny import command, train

from experiments.folder import Experiment
from experiments.log import run_parts

TRAIN = "from tiny import command, train\n"
# a signal to the second process, before its n-th step
SIGNALLED = """
import os, signal
from methods.squid import Squid
from tiny import EVERY_STEP, train
original, taken = Squid.training_step, []
def step(self, batch):
    taken.append(batch.step)
    if rank == 1 and len(taken) == {at}:
        os.kill(os.getpid(), signal.{name})
    return original(self, batch)
Squid.training_step = step
code = train("killed", overrides=[EVERY_STEP])
"""
PHASES = {
    "results": """
import torch
from system import distributed
from processes import results
with distributed.joined():
    found = results()
torch.save(found, f"results_{rank}.pt")
code = 0
""",
    "whole": TRAIN + 'code = train("whole")',
    "eval": TRAIN + 'code = command("eval", "--exp", "whole", "--device", "cpu", "--save-maps")',
    "taken": TRAIN
    + """
if rank == 0:
    import filelock, os
    os.makedirs("checkpoints/taken")
    lock = filelock.FileLock("checkpoints/taken/.lock")
    lock.acquire()
code = train("taken")
""",
    "killed": SIGNALLED.format(at=4, name="SIGKILL"),
    "copied": """
import shutil
if rank == 0:
    shutil.copytree("checkpoints/killed", "checkpoints/alone")
code = 0
""",
    "stopped": SIGNALLED.format(at=3, name="SIGTERM"),
    "resumed": TRAIN + 'code = train("killed")',
}
LAUNCHED = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import dataloader.digit
from tiny import train
dataloader.digit.COUNTS = {{"val": 16, "test": 16}}
sys.exit(train("launched"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def ended(folder):
    """How the phases ended."""
    return launch(folder, PHASES)


@pytest.fixture(scope="module")
def computed(folder, ended):
    """results() of one process, and of each of two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the two have: another number may change the last bits
    one = processes.results()
    torch.set_num_threads(threads)
    assert [code for code, _, _ in ended["results"]] == [0, 0], ended["results"]
    return one, *(torch.load(folder / f"results_{rank}.pt") for rank in range(2))


@pytest.mark.parametrize("norms", ["frozen", "synchronised", "differentiated twice"])
def test_gradients_and_queues_are_those_of_one_process(computed, norms):
    one, *both = (of[norms] for of in computed)
    for two in both:
        assert two.keys() == one.keys() and "squid state" in two
        for key, of_one in one.items():
            assert two[key].keys() == of_one.keys()
            # a Wasserstein critic's last biases have none
            weights = [gradient for gradient in of_one.values() if gradient.dim() > 1]
            assert key.endswith("state") or all(gradient.abs().max() > 0 for gradient in weights)
            for name, expected in of_one.items():
                torch.testing.assert_close(two[key][name], expected, rtol=1e-9, atol=1e-12, msg=f"{key}: {name}")


def test_both_processes_hold_the_same_queue_and_it_is_full(computed):
    one, a, b = (of["frozen"]["squid state"] for of in computed)
    slots, pointer = "generator.inpaint.memory.slots", "generator.inpaint.memory.pointer"
    assert torch.equal(a[slots], b[slots])
    assert one[pointer] == a[pointer] == b[pointer] == sum(processes.BATCHES) % 16


def test_without_synchronisation_batch_norm_sees_each_process_alone(computed):
    """That the comparison above can fail: an unsynchronised run differs."""
    frozen, synchronised = computed[1]["frozen"]["squid train"], computed[1]["synchronised"]["squid train"]
    assert any((frozen[name] - synchronised[name]).abs().max() > 1e-6 for name in frozen)


def test_scores_are_in_order_and_counted_once(computed):
    for count, expected in computed[0]["scores"].items():
        for two in computed[1:]:
            assert two["scores"][count].keys() == expected.keys()
            for name, values in expected.items():
                assert len(values) == count and torch.equal(two["scores"][count][name], values), name


def test_a_loss_that_is_not_finite_stops_all_processes_before_the_update(computed):
    one, *both = (of["not finite"] for of in computed)
    assert one == "discriminator = nan" and both == [one, one]


def test_batches_too_small_to_share_are_refused_before_training(computed):
    one, *both = (of["too small"] for of in computed)
    assert one == [None] * 5
    for found in both:
        assert "has 1 images, and each of the 2 processes needs at least 1" in found[0]
        assert "has 1 images" in found[1]  # the last batch of 40 in threes
        assert found[2] is None
        assert "has 3 images, and each of the 2 processes needs at least 2" in found[3]
        assert "stage refine has 2 images" in found[4] and "Start fewer processes" in found[4]


def test_two_processes_write_one_experiment_and_one_speaks(folder, ended, monkeypatch):
    monkeypatch.chdir(folder)
    assert [code for code, _, _ in ended["whole"] + ended["eval"]] == [0] * 4, ended
    whole = folder / "checkpoints" / "whole"
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and all(row["val_auc"] for row in rows)
    assert (whole / "log.txt").read_text().count("epoch 2/2") == 1
    assert len(list((whole / "tensorboard").iterdir())) == 1 and not list(whole.rglob("*.part"))
    assert run_parts(Experiment("whole"))[0]["device"].startswith("2 × cpu")
    results = json.loads((whole / "results.json").read_text())
    assert results["device"].startswith("2 × cpu") and len((whole / "scores.csv").read_text().splitlines()) == 33
    (_, first, _), (_, second, _) = ended["whole"]
    assert first.count("epoch 2/2") == 1 and second == ""
    assert "Written: results.json" in ended["eval"][0][1] and ended["eval"][1][1:] == ["", ""]


def test_an_error_of_the_first_process_ends_all_and_is_said_once(ended):
    assert [code for code, _, _ in ended["taken"]] == [1, 1]
    said = "".join(err for _, _, err in ended["taken"])
    assert said.count("error:") == 1 and "another process is training this experiment" in said
    assert "Traceback" not in said


def test_a_killed_process_ends_the_other_with_one_line(folder, ended):
    assert [code for code, _, _ in ended["killed"]] == [1, -signal.SIGKILL]
    said = ended["killed"][0][2]
    lines = [line for line in said.splitlines() if "error" in line]
    assert len(lines) == 1 and lines[0].startswith("error: A process of this run is gone")
    assert "Run the same command" in lines[0] and "Traceback" not in said
    saved = torch.load(folder / "checkpoints" / "alone" / "last.pt", weights_only=True)
    assert saved["position"] == {"epoch": 0, "batch": 3, "global_step": 3}


def test_it_resumes_and_a_signal_to_one_process_stops_both_with_the_state_saved(folder, ended):
    assert [code for code, _, _ in ended["stopped"]] == [128 + signal.SIGTERM] * 2
    said = "".join(err for _, _, err in ended["stopped"])
    assert said.count("Stopped and saved at epoch 2, batch 2") == 1
    assert [code for code, _, _ in ended["resumed"]] == [0, 0], ended["resumed"]
    assert_same_run(folder / "checkpoints" / "killed", folder / "checkpoints" / "whole")


@pytest.mark.slow
def test_torchrun_starts_them(folder, ended):
    (folder / "launched.py").write_text(LAUNCHED.format(root=str(ROOT), tests=str(ROOT / "tests")))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    place = os.environ | {"OMP_NUM_THREADS": "1"}  # as launch does: torchrun obeys one that is set
    made = subprocess.run([*torchrun, "launched.py"], cwd=folder, env=place, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert_same_run(folder / "checkpoints" / "launched", folder / "checkpoints" / "whole")


def test_one_process_goes_on_where_two_were(folder, ended, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("dataloader.digit.COUNTS", {"val": 16, "test": 16})
    assert command("main", "--exp", "alone", "--device", "cpu") == 0
    alone, whole = (folder / "checkpoints" / name for name in ("alone", "whole"))
    ends = [torch.load(run / "last.pt", weights_only=True)["position"] for run in (alone, whole)]
    assert ends[0] == ends[1]
    rows, expected = (json.loads((run / "metrics.jsonl").read_text().splitlines()[0]) for run in (alone, whole))
    for name, value in expected["losses"].items():  # masks and batch norm differ in the last two of five batches
        assert rows["losses"][name] == pytest.approx(value, rel=0.2)


def test_one_process_under_torchrun_is_one_process(workspace, monkeypatch):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(name, str(value))
    assert train("a", overrides=["epochs=1"]) == 0
    assert torch.load(workspace / "checkpoints" / "a" / "best.pt", weights_only=True)["epoch"] == 1
