"""Averaged weights: their arithmetic, what they leave alone, how they are chosen, saved and evaluated."""

import csv
import json

import pytest
import torch
from conftest import assert_same_run, same
from forks import kill_in_training
from PIL import Image
from tiny import EVERY_STEP, command, train

from experiments.folder import Experiment
from methods import METHODS
from models.features import BACKBONES
from tools.paper_table import finished
from training.averaging import Average

AVERAGED = ["average_decay=0.7", "record_scores=true"]


def load(folder, name="last.pt"):
    return torch.load(folder / name, weights_only=True)


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def steps_of(monkeypatch, method):
    """The state dicts after every step that the method takes from now on, by stage, the stage's start first."""
    cls, found = METHODS[method], {}
    start, step = cls.start_stage, cls.training_step

    def copied(self):
        return {name: value.clone() for name, value in self.state_dict().items()}

    def started(self, name):
        start(self, name)
        found[name] = [copied(self)]

    def stepped(self, batch):
        losses = step(self, batch)
        found[self.stage].append(copied(self))
        return losses

    monkeypatch.setattr(cls, "start_stage", started)
    monkeypatch.setattr(cls, "training_step", stepped)
    return found


@pytest.mark.parametrize(("method", "last_stage"), [("squid", "train"), ("ddad", "refine")])
def test_the_average_is_the_one_worked_out_by_hand(workspace, monkeypatch, method, last_stage):
    states = steps_of(monkeypatch, method)
    assert train("a", method=method, overrides=["average_decay=0.7"]) == 0
    saved = load(workspace / "checkpoints" / "a")
    start, *after = states[last_stage]
    assert saved["average_steps"] == len(after)
    averaged = [name for name in start if not name.endswith(("slots", "pointer", "mu", "sigma", "num_batches_tracked"))]
    averaged += [name for name in start if name.endswith("memory.slots") and "inpaint" not in name]
    assert len(averaged) > 50
    for name in averaged:
        expected = start[name].double()
        for t, state in enumerate(after):
            d = min(0.7, (1 + t) / (10 + t))  # 0.1, 0.18, … 0.7 from the 21st step on
            expected = d * expected + (1 - d) * state[name].double()
        assert torch.allclose(saved["average"][name].double(), expected, rtol=1e-4, atol=1e-6), name
        if last_stage == "train" and after[-1][name].is_floating_point():
            assert not name.endswith("weight") or not torch.equal(saved["average"][name], saved["method"][name]), name


def test_a_queue_is_not_averaged(trained):
    saved = load(trained("a", overrides=AVERAGED))
    slots = "generator.inpaint.memory.slots"
    assert torch.equal(saved["average"][slots], saved["method"][slots])


def test_within_an_epoch_the_average_has_the_queue_of_now(workspace):
    kill_in_training(workspace, "methods.squid.Squid", "training_step", 2, "squid", [*AVERAGED, EVERY_STEP])
    saved = load(workspace / "checkpoints" / "killed")
    queue = "generator.inpaint.memory"
    assert saved["average_steps"] == 1 and saved["method"][f"{queue}.pointer"] > 0
    assert torch.equal(saved["average"][f"{queue}.slots"], saved["method"][f"{queue}.slots"])


@pytest.mark.parametrize("method", ["squid", "ddad"])
def test_training_is_the_same_with_an_average_and_with_scores_recorded(trained_once, method):
    plain, followed = trained_once(method), trained_once(method, AVERAGED)
    for name in ("last.pt", "best.pt"):
        a, b = load(plain, name), load(followed, name)
        assert a.keys() <= b.keys() and all(same(a[key], b[key]) for key in a.keys() - {"seconds"})
    ours = [json.loads(line) for line in (followed / "metrics.jsonl").read_text().splitlines()]
    for row in ours:
        row.pop("val_auc_averaged", None)
    assert ours == [json.loads(line) for line in (plain / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["squid", "ae"])
def test_recorded_scores_are_those_that_the_checkpoints_give(trained, method, workspace):
    folder = trained("a", method, AVERAGED)
    files = sorted(path.name for path in (folder / "epochs").iterdir())
    last = rows(folder / "epochs" / files[-1])
    names = [name for name in last[0] if name not in ("split", "id", "label", "person")]
    plain = [name for name in names if not name.endswith("_averaged")]
    assert names == [*plain, *(f"{name}_averaged" for name in plain)]
    for weights, suffix, split in (("last", "", "val"), ("averaged", "_averaged", "test")):
        assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", weights, "--split", split) == 0
        scored, recorded = rows(folder / "scores.csv"), [row for row in last if row["split"] == split]
        assert [row["id"] for row in scored] == [row["id"] for row in recorded]
        assert [row["label"] for row in scored] == [row["label"] for row in recorded]
        for name in plain:
            assert [float(row[name]) for row in scored] == [float(row[name + suffix]) for row in recorded]
    different = [row for row in last if any(row[name] != row[f"{name}_averaged"] for name in plain)]
    assert len(different) > len(last) / 2
    results = json.loads((folder / "results.json").read_text())
    assert results["checkpoint"] == "averaged" and results["epoch"] == int(files[-1][:4])


def test_the_best_average_is_chosen_by_its_own_validation(trained, capsys):
    folder = trained("a", overrides=[*AVERAGED, "epochs=4", "best_rule=strict"])
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for name, key in (("best.pt", "val_auc"), ("best_averaged.pt", "val_auc_averaged")):
        aucs = [row[key]["reconstruction"] for row in found]
        best = load(folder, name)
        assert best["epoch"] == 1 + aucs.index(max(aucs))
        assert best["val_auc"] == found[best["epoch"] - 1][key]
    assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", "best_averaged") == 0
    assert f"best_averaged checkpoint of epoch {best['epoch']}" in capsys.readouterr().out


def test_an_average_starts_as_the_pretrained_weights_are(workspace, monkeypatch):
    torch.manual_seed(1)
    torch.save(BACKBONES["resnet18"].build().state_dict(), "w.pth")
    apart = []

    def update(average):
        state = average.method.state_dict()
        apart.extend(float((average.weights[name] - state[name]).abs().max()) for name in average.names)
        raise KeyboardInterrupt

    monkeypatch.setattr(Average, "update", update)
    train("a", method="panda", overrides=["average_decay=0.7", "weights=w.pth"])
    assert 0 < max(apart) < 1e-3  # one small step


def test_what_is_evaluated_is_a_setting(trained, capsys):
    folder = trained("a", overrides=[*AVERAGED, "checkpoint=averaged"])
    evaluate = ("eval", "--exp", "a", "--device", "cpu")
    assert command(*evaluate) == 0
    assert "averaged checkpoint of epoch 2" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text())["checkpoint"] == "averaged"
    assert finished(Experiment("a"), Experiment("a").load_config()[1])
    assert command(*evaluate, "--checkpoint", "best") == 0
    assert json.loads((folder / "results.json").read_text())["checkpoint"] == "best"
    assert not finished(Experiment("a"), Experiment("a").load_config()[1])
    assert train("a", overrides=[*AVERAGED, "checkpoint=best"]) == 0  # training has nothing to do with it


@pytest.mark.slow  # test_remedies.py kills one that has an average
def test_a_killed_run_keeps_its_average(workspace, trained_once):
    whole = trained_once("squid", AVERAGED)
    kill_in_training(workspace, "methods.squid.Squid", "training_step", 9, "squid", [*AVERAGED, EVERY_STEP])
    assert train("killed", overrides=AVERAGED) == 0
    assert_same_run(workspace / "checkpoints" / "killed", whole)


def test_an_average_goes_on_where_it_was(trained, trained_once):
    folder = trained("a", overrides=[*AVERAGED, "epochs=1"])
    assert train("a", overrides=AVERAGED) == 0
    assert_same_run(folder, trained_once("squid", AVERAGED))


def test_scores_may_be_recorded_from_any_epoch_on_but_an_average_may_not(trained, capsys):
    folder = trained("a")
    assert train("a", overrides=["epochs=3", "record_scores=true"]) == 0
    assert [path.name for path in (folder / "epochs").iterdir()] == ["0003.csv"]
    assert train("a", overrides=["epochs=4", "average_decay=0.9"]) == 1
    assert "average_decay: 0.0 → 0.9" in capsys.readouterr().err


def test_no_averaged_weights_is_an_error_that_says_how_to_get_them(trained, capsys):
    trained("a")
    assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", "averaged") == 1
    error = capsys.readouterr().err
    assert "last.pt has no averaged weights" in error and "--set average_decay=0.999" in error
    assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", "best_averaged") == 1
    assert "no such checkpoint" in capsys.readouterr().err


def test_a_decay_of_one_is_refused(workspace, capsys):
    assert train("a", overrides=["average_decay=1"]) == 1
    assert "average_decay = 1.0: must lie in [0, 1)" in capsys.readouterr().err
    assert train("a", overrides=["checkpoint=averaged"]) == 1
    assert "checkpoint = averaged: no weights are averaged" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["last", "averaged"])
def test_within_an_epoch_what_is_fitted_is_fitted_to_the_weights_that_are_scored(workspace, capsys, weights):
    settings = [*AVERAGED, EVERY_STEP, "reestimate_batch_norm=true"]
    kill_in_training(workspace, "methods.squid.Squid", "training_step", 9, "squid", settings)
    folder = workspace / "checkpoints" / "killed"
    scores = []
    for more in ([], ["--reestimate-batch-norm"]):
        assert command("eval", "--exp", "killed", "--checkpoint", weights, "--device", "cpu", *more) == 0
        scores.append((folder / "scores.csv").read_text())
        assert not (folder / "normals.json").exists()  # predict.py, without the training images, cannot
    assert scores[0] == scores[1]
    image = workspace / "a.png"
    Image.new("L", (48, 48), 128).save(image)
    capsys.readouterr()
    assert command("predict", "--exp", "killed", image, "--checkpoint", weights, "--device", "cpu") == 0
    assert f"note: the {weights} weights are of within an epoch" in capsys.readouterr().err
