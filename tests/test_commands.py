"""The commands end to end, in folders of their own."""

import csv
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, Golden, assert_close
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import command, train

from dataloader.digit import DigitAnatomy
from engine.experiment import Experiment
from methods import METHODS
from methods.squid import Squid
from tools import import_official


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
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(f / name, weights_only=True) for f in (folder, other))
        assert a.keys() == b.keys()
        for key in a.keys() - {"seconds"}:  # of the clock
            assert same(a[key], b[key]), f"{name}: {key} differs"
    assert (folder / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


# -- one run, from training to pictures -------------------------------------------------------------------------------


def test_train_evaluate_and_predict(workspace, capsys):
    assert train("a") == 0
    folder = workspace / "checkpoints" / "a"
    assert {"config.json", "last.pt", "best.pt", "metrics.jsonl", "log.txt"} <= {p.name for p in folder.iterdir()}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2] and set(rows[0]["val_auc"]) == {"discriminator", "reconstruction"}
    assert "epoch 2/2" in (folder / "log.txt").read_text()
    events = EventAccumulator(str(folder / "tensorboard"), {"images": 0, "histograms": 0, "scalars": 0}).Reload()
    assert {"loss/generator", "lr", "val_auc/reconstruction", "time/epoch_seconds"} <= set(events.Tags()["scalars"])
    assert "scores/discriminator/anomalous" in events.Tags()["histograms"]
    assert [e.step for e in events.Scalars("val_auc/reconstruction")] == [5, 10]
    assert len(events.Tags()["images"]) == 1

    assert command("eval", "--exp", "a") == 0
    out = capsys.readouterr().out
    assert "test AUC" in out and "95 % interval" in out and "AUC per kind" in out
    results = json.loads((folder / "results.json").read_text())
    for found in results["scores"].values():
        low, high = found["auc_ci95"]
        assert low <= found["auc"] <= high
        assert set(found["per_kind"]) == {"missing", "misordered", "flipped", "zero"}
        assert found["at_oracle_threshold"]["accuracy"] >= found["at_val_threshold"]["accuracy"]
    with open(folder / "scores.csv") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 32 and list(table[0])[:3] == ["id", "label", "kind"]
    ranks = np.argsort([float(row["reconstruction"]) for row in table])
    assert np.array_equal(ranks, np.argsort([float(row["score"]) for row in table]))  # the main score is shown
    for name in ("roc_pr", "histograms", "samples", "curves"):
        assert Image.open(folder / "figures" / f"{name}.png").size[0] > 300

    assert command("eval", "--exp", "a", "--split", "val", "--checkpoint", "last") == 0
    results = json.loads((folder / "results.json").read_text())
    assert (results["split"], results["checkpoint"], results["epoch"]) == ("val", "last", 2)
    main = results["scores"][results["main_score"]]
    assert main["auc"] == rows[1]["val_auc"]["reconstruction"]
    assert main["at_val_threshold"] == main["at_oracle_threshold"]

    pictures = workspace / "in" / "deep"
    pictures.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (60, 50), np.uint8)).save(pictures / f"{i}.png")
    assert command("predict", "--exp", "a", workspace / "in", pictures / "0.png", "--csv", workspace / "out.csv",
                   "--images", workspace / "out") == 0  # fmt: skip
    with open(workspace / "out.csv") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:3] == ["path", "logit", "score"] and "anomalous_at_val_threshold" in table[0]
    assert [row["path"] for row in table] == [str(pictures / f"{i}.png") for i in range(3)]
    assert Image.open(workspace / "out" / "deep" / "1.png").size == (3 * 48, 48)


def test_the_same_command_again_says_it_is_finished_and_more_epochs_go_on(workspace, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    assert train("a", overrides=["epochs=1"]) == 0
    assert "is finished: 1 epochs" in capsys.readouterr().out
    assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 0
    assert train("whole") == 0
    assert_same_run(workspace / "checkpoints" / "a", workspace / "checkpoints" / "whole")


def test_other_settings_are_refused_with_the_difference(workspace, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    before = (workspace / "checkpoints" / "a" / "last.pt").read_bytes()
    assert train("a", "--seed", "5", overrides=["learning_rate=0.5", "epochs=2"]) == 1
    error = capsys.readouterr().err
    assert "seed: 0 → 5" in error and "learning_rate: 0.0002 → 0.5" in error and "epochs" not in error
    assert train("a", overrides=["digits_per_epoch=8"]) == 1
    assert (workspace / "checkpoints" / "a" / "last.pt").read_bytes() == before
    assert train("a", "--overwrite", overrides=["learning_rate=0.001", "epochs=1"]) == 0


def test_seeds_differ_and_repeat(workspace):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert train(name, "--seed", seed, overrides=["epochs=1"]) == 0
    folders = [workspace / "checkpoints" / name for name in "abc"]
    assert_same_run(*folders[:2])
    with pytest.raises(AssertionError):
        assert_same_run(folders[0], folders[2])


# -- interruption -----------------------------------------------------------------------------------------------------

KILL = """
import os, signal, sys
sys.path[:0] = [{root!r}, {tests!r}]
import dataloader.digit, engine.experiment, engine.loop, methods.ddad, methods.squid
dataloader.digit.COUNTS = {{"val": 16, "test": 16}}
def after(owner, name, calls):
    original, count = getattr(owner, name), 0
    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, counted)
after({owner}, {name!r}, {calls})
from tiny import train
train("killed", method={method!r}, overrides={overrides!r})
"""

KILLS = {  # 5 iterations an epoch; the generator steps at 0, 2, 4 of each
    "before an iteration of both": ("methods.squid.Squid", "training_step", 3),
    "before an iteration of the discriminator alone": ("methods.squid.Squid", "training_step", 4),
    "between the discriminator's step and the generator's": ("methods.squid.Squid", "_step", 5),
    "in the second epoch": ("methods.squid.Squid", "training_step", 9),
    "while last.pt is put in place": ("engine.experiment.os", "replace", 6),
    "after validation, before metrics.jsonl": ("engine.experiment.Experiment", "write_metrics", 1),
}


def kill_in_training(workspace, owner, name, calls, method, overrides):
    """Train the experiment ``killed`` in a process of its own, killed at the n-th call of owner.name."""
    script = KILL.format(
        root=str(ROOT), tests=str(ROOT / "tests"), owner=owner, name=name, calls=calls, method=method,
        overrides=overrides,
    )  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", script], cwd=workspace, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The run never stopped, that every killed one must equal."""
    folder = tmp_path_factory.mktemp("whole")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr("dataloader.digit.COUNTS", {"val": 16, "test": 16})
    assert train("whole") == 0
    patch.undo()
    return folder / "checkpoints" / "whole"


# 0 saves after every iteration; 1000 at the end only, so that a resume starts over
@pytest.mark.parametrize(("moment", "save_seconds"), [*((m, 0) for m in KILLS), ("in the second epoch", 1000)])
def test_a_killed_run_ends_as_the_run_never_stopped(workspace, uninterrupted, moment, save_seconds):
    overrides = [f"save_seconds={save_seconds}"]
    kill_in_training(workspace, *KILLS[moment], "squid", overrides)
    assert train("killed", overrides=overrides) == 0
    assert_same_run(workspace / "checkpoints" / "killed", uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(
    workspace, uninterrupted, monkeypatch, capsys, number, step
):
    original, taken = Squid.training_step, []

    def signalled(self, images, index):
        taken.append(index)
        if len(taken) == step:
            os.kill(os.getpid(), number)
        return original(self, images, index)

    monkeypatch.setattr(Squid, "training_step", signalled)
    handler = signal.getsignal(number)
    assert train("a", overrides=["save_seconds=1000"]) == 128 + number
    assert "goes on from there: python main.py --exp a" in capsys.readouterr().err
    assert len(taken) == step and signal.getsignal(number) is handler
    assert command("main", "--exp", "a", "--device", "cpu") == 0
    assert len(taken) == 10
    assert_same_run(workspace / "checkpoints" / "a", uninterrupted)


def test_a_loss_that_is_not_finite_stops_with_the_batch_named(workspace, monkeypatch, capsys):
    original = Squid.training_step

    def poisoned(self, images, step):
        if step == 3:
            images[0] = torch.nan
        return original(self, images, step)

    monkeypatch.setattr(Squid, "training_step", poisoned)
    assert train("a") == 1
    assert "epoch 1, batch 4 (training images [" in capsys.readouterr().err
    saved = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)
    assert saved["position"]["batch"] == 3 and all(v.isfinite().all() for v in saved["method"].values())


# -- bad input --------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused(workspace, capsys):
    folder = workspace / "checkpoints" / "a"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert train("a") == 1
    assert "another process is training this experiment" in capsys.readouterr().err
    assert train("a", overrides=["epochs=1"]) == 0


def test_a_full_disk_keeps_the_last_good_checkpoint(workspace, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    folder = workspace / "checkpoints" / "a"
    before = (folder / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # writing beyond it fails as on a full disk
    try:
        assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert ".pt: could not be written" in error and "make room" in error
    assert (folder / "last.pt").read_bytes() == before and not list(folder.glob("*.part"))
    assert train("whole") == 0 and command("main", "--exp", "a", "--device", "cpu") == 0
    assert_same_run(folder, workspace / "checkpoints" / "whole")


def test_experiments_that_cannot_be_read(workspace, capsys):
    assert command("eval", "--exp", "none") == 1
    assert "Train it first: python main.py --exp none" in capsys.readouterr().err
    assert command("main", "--exp", "new") == 1
    assert "is new: give --config" in capsys.readouterr().err
    assert command("main", "--exp", "../evil", "--config", "digit_quick") == 1
    assert train("a", overrides=["epochs=1"]) == 0
    folder = workspace / "checkpoints" / "a"
    capsys.readouterr()

    whole = (folder / "best.pt").read_bytes()
    (folder / "best.pt").write_bytes(whole[: len(whole) // 2])
    assert command("eval", "--exp", "a") == 1
    assert "best.pt: truncated, or not a checkpoint of this program" in capsys.readouterr().err
    for foreign in ({"state_dict": {}}, {"format": 99}, [1, 2]):
        torch.save(foreign, folder / "best.pt")
        assert command("eval", "--exp", "a") == 1
        assert "not a checkpoint of this program" in capsys.readouterr().err
    torch.save({"format": 1, "method": {"a": torch.ones(1)}, "epoch": 1}, folder / "best.pt")
    assert command("predict", "--exp", "a", workspace) == 1
    assert "the weights do not fit the settings" in capsys.readouterr().err

    content = torch.load(folder / "last.pt", weights_only=True)
    content["method"]["generator.student.output.weight"][0] = torch.nan
    torch.save(content, folder / "best.pt")
    assert command("eval", "--exp", "a") == 1
    assert "generator.student.output.weight holds values that are not finite" in capsys.readouterr().err

    (folder / "best.pt").unlink()
    assert command("eval", "--exp", "a") == 1
    assert "there is last.pt" in capsys.readouterr().err
    (folder / "config.json").write_text("{}")
    assert command("eval", "--exp", "a") == 1
    assert "config.json: not a configuration" in capsys.readouterr().err


def test_a_checkpoint_runs_no_code(workspace, capsys):
    assert train("a", overrides=["epochs=1"]) == 0

    class Evil:
        def __reduce__(self):
            return os.system, ("touch evil",)

    torch.save({"format": 1, "method": Evil()}, workspace / "checkpoints" / "a" / "best.pt")
    assert command("eval", "--exp", "a") == 1
    assert not (workspace / "evil").exists()


def test_scores_that_are_not_finite_are_an_error(workspace, monkeypatch, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    original = Squid.score

    def broken(self, images):
        scores = original(self, images)
        scores.image["reconstruction"][0] = torch.nan
        return scores

    monkeypatch.setattr(Squid, "score", broken)
    assert command("eval", "--exp", "a") == 1
    assert "scores of the validation images are not finite" in capsys.readouterr().err


def test_a_test_set_of_one_class_is_an_error(workspace, monkeypatch, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    original = DigitAnatomy.split

    def normals_only(self, name):
        split = original(self, name)
        if name == "test":
            keep = split.labels == 0
            split.images, split.labels, split.masks = split.images[keep], split.labels[keep], None
        return split

    monkeypatch.setattr(DigitAnatomy, "split", normals_only)
    assert command("eval", "--exp", "a") == 1
    assert "are normal: AUC and thresholds need normal and anomalous images" in capsys.readouterr().err


def test_missing_data_leaves_no_folder(workspace, capsys):
    assert command("main", "--exp", "z", "--config", "zhang_best", "--data-root", "absent") == 1
    assert "absent: no such folder. Get 'Chest X-Ray Images" in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "z").exists()


def test_other_training_data_is_refused_on_resume(workspace, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    config = json.loads((workspace / "checkpoints" / "a" / "config.json").read_text())
    config["data"] = "mnist-0123"
    (workspace / "checkpoints" / "a" / "config.json").write_text(json.dumps(config))
    assert train("a") == 1
    assert "training data: mnist-0123 → sklearn-" in capsys.readouterr().err


def test_predict_names_unreadable_files_and_scores_the_rest(workspace, capsys):
    assert train("a", overrides=["epochs=1"]) == 0
    good, bad = workspace / "in" / "good.png", workspace / "in" / "bad.png"
    good.parent.mkdir()
    Image.new("L", (48, 48), 90).save(good)
    bad.write_bytes(good.read_bytes()[:60])
    capsys.readouterr()
    assert command("predict", "--exp", "a", workspace / "in") == 1
    out, err = capsys.readouterr()
    assert str(good) in out and str(bad) not in out and f"{bad}: not a readable image" in err
    assert "1 of 2 files have no scores" in err
    assert command("predict", "--exp", "a", workspace / "absent") == 1
    (workspace / "empty").mkdir()
    assert command("predict", "--exp", "a", workspace / "empty") == 1
    assert "holds no PNG" in capsys.readouterr().err


def test_a_device_that_is_not_there(workspace, capsys):
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    assert command("main", "--exp", "a", "--config", "digit_quick", "--device", missing) == 1
    assert f"--device {missing} is not available here" in capsys.readouterr().err


# -- released weights -------------------------------------------------------------------------------------------------


def write_official(folder, case):
    for part, name in (("model", "model.pth"), ("disc", "discriminator.pth")):
        torch.save(case.filled_state(part), folder / name)


GOLDEN_SETTINGS = [
    "image_size=48", "base_channels=4", "queue_slots=15", "matrix_slots=12", "decoder_memory=none,none,none",
    "ops=concat,concat,none", "statistics_images=8", "digits_per_epoch=16",
]  # fmt: skip


def run_import(workspace, exp):
    return command("import_official", "--config", "digit_quick", "--set", *GOLDEN_SETTINGS, "--exp", exp,
                   "--model", workspace / "model.pth", "--discriminator", workspace / "discriminator.pth",
                   module=import_official)  # fmt: skip


def test_released_weights_become_an_experiment(workspace, capsys):
    case = Golden("squid/squid_9patch")
    write_official(workspace, case)
    assert run_import(workspace, "released") == 0
    assert command("eval", "--exp", "released") == 0
    experiment = Experiment("released")
    _, config, _ = experiment.load_config()
    method = METHODS[config.method](config)
    experiment.load_weights("best.pt", method)
    logits = method.score(case.batches()[0].float()).columns["logit"]
    assert_close(logits, case["score_before"].squeeze(1), 1e-4)
    assert method.sigma > 0 and method.sigma != 1

    Image.new("L", (48, 48), 90).save(workspace / "x.png")
    assert command("predict", "--exp", "released", workspace / "x.png") == 0
    assert run_import(workspace, "released") == 1
    assert "exists already" in capsys.readouterr().err


def test_weights_with_other_entries_are_refused_with_the_list(workspace, capsys):
    case = Golden("squid/squid_9patch")
    write_official(workspace, case)
    state = case.filled_state("model")
    state["extra.weight"] = torch.ones(2)
    state["out_conv.conv.bias"] = torch.ones(3)
    del state["in_conv.conv.conv1.0.weight"]
    torch.save(state, workspace / "model.pth")
    assert run_import(workspace, "released") == 1
    error = capsys.readouterr().err
    for line in ("missing: in_conv.conv.conv1.0.weight [4, 1, 3, 3]", "extra: extra.weight [2]",
                 "wrong shape: out_conv.conv.bias is [3], not [1]"):  # fmt: skip
        assert line in error
    (workspace / "model.pth").write_text("no weights")
    assert run_import(workspace, "released") == 1
    assert "model.pth: not a weight file" in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "released").exists()


def test_an_imported_experiment_is_not_trained_over(workspace, capsys):
    write_official(workspace, Golden("squid/squid_9patch"))
    assert run_import(workspace, "released") == 0
    before = (workspace / "checkpoints" / "released" / "best.pt").read_bytes()
    assert command("main", "--exp", "released") == 1
    assert "training data: imported → sklearn-" in capsys.readouterr().err
    assert (workspace / "checkpoints" / "released" / "best.pt").read_bytes() == before
