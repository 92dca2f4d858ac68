"""The commands end to end, in folders of their own."""

import csv
import json
import os
import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, assert_same_run, needs_shared
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_page import check_page
from tiny import TINY, command, train

import configs
from commands import cli
from dataloader import build_dataset
from evaluation import plots
from methods import METHODS
from system import provenance


def rows_of(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def auc_by_hand(scores, labels):
    """The share of pairs of an anomalous and a normal image that are in order; of a tie, half."""
    anomalous, normal = ([s for s, found in zip(scores, labels, strict=True) if found == label] for label in (1, 0))
    return np.mean([(a > n) + (a == n) / 2 for a in anomalous for n in normal])


@pytest.mark.pictures
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
    table = rows_of(folder / "scores.csv")
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
    assert "at_oracle_threshold" in main and "at_val_threshold" not in main  # which would be the same, by its labels

    pictures = workspace / "in" / "deep"
    pictures.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (60, 50), np.uint8)).save(pictures / f"{i}.png")
    assert command("predict", "--exp", "a", workspace / "in", pictures / "0.png", "--csv", workspace / "out.csv",
                   "--images", workspace / "out") == 0  # fmt: skip
    table = rows_of(workspace / "out.csv")
    assert list(table[0])[:3] == ["path", "logit", "score"] and "anomalous_at_val_threshold" in table[0]
    assert [row["path"] for row in table] == [str(pictures / f"{i}.png") for i in range(3)]
    assert Image.open(workspace / "out" / "deep" / "1.png").size[0] > 900  # four panels


@pytest.mark.parametrize("method", METHODS)
def test_results_and_predictions_are_those_of_scores_csv(workspace, trained, method):
    folder = trained("a", method)
    last = torch.load(folder / "last.pt", weights_only=True)
    for value in last["method"].values():  # not those of best.pt, which may be the last epoch's
        if value.is_floating_point():
            value *= 1.01
    torch.save(last, folder / "last.pt")
    split = build_dataset(configs.build(*TINY[method])).split("test")
    files = [workspace / "in" / f"{name}.png" for name in split.ids]
    files[0].parent.mkdir(parents=True)
    for file, image in zip(files, split.images.numpy(), strict=True):
        Image.fromarray(image).save(file)

    scores = {}
    for checkpoint in ("best", "last"):
        which = ["--exp", "a", "--device", "cpu", "--checkpoint", checkpoint]
        assert command("eval", *which) == 0
        results = json.loads((folder / "results.json").read_text())
        check_page(folder)
        table = rows_of(folder / "scores.csv")
        labels = [int(row["label"]) for row in table]
        assert results["checkpoint"] == checkpoint and labels == split.labels.tolist()
        for name, found in results["scores"].items():
            assert found["auc"] == pytest.approx(auc_by_hand([float(row[name]) for row in table], labels)), name
        scores[checkpoint] = [row["score"] for row in table]
        if checkpoint == "last" and method not in ("squid", "panda"):  # of frozen parts too
            continue
        assert command("predict", *which, *files, "--csv", "out.csv") == 0
        predicted = rows_of("out.csv")
        for row, again in zip(table, predicted, strict=True):
            columns = row.keys() - {"id", "label", "kind"}
            assert {key: again[key] for key in columns} == {key: row[key] for key in columns}, row["id"]
        if checkpoint == "best":
            flagged = [int(row["anomalous_at_val_threshold"]) for row in predicted]
            found = results["scores"][results["main_score"]]["at_val_threshold"]
            assert found["recall"] == pytest.approx(
                np.mean([f for f, label in zip(flagged, labels, strict=True) if label])
            )
    assert scores["best"] != scores["last"]


@pytest.mark.pictures
@pytest.mark.parametrize(
    ("method", "also"), [("ddad", {"maps", "samples", "curves"}), ("patchcore", {"maps"}), ("ganomaly", {"samples"})]
)
def test_pictures_are_of_what_the_method_gives(workspace, trained, method, also):
    folder = trained("a", method)
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn == {"roc_pr", "histograms"} | also | {"maps"} | ({"curves"} if method != "patchcore" else set())
    for name in drawn:
        assert Image.open(folder / "figures" / f"{name}.png").size[0] > 300
    Image.new("L", (60, 60), 90).save("x.png")
    assert command("predict", "--exp", "a", "x.png", "--images", "out", "--device", "cpu") == 0
    panels = 2 if method == "patchcore" else 4  # without a reconstruction: the image and its map
    assert Image.open("out/x.png").size[0] // (plots.DPI * plots.PANEL) == panels


def test_the_same_command_again_says_it_is_finished_and_more_epochs_go_on(workspace, trained, trained_once, capsys):
    trained("a", overrides=["epochs=1"])
    assert train("a", overrides=["epochs=1"]) == 0
    assert "is finished: 1 epochs" in capsys.readouterr().out
    assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 0
    assert_same_run(workspace / "checkpoints" / "a", trained_once("squid"))


def test_other_settings_are_refused_with_the_difference(workspace, trained, capsys):
    trained("a", overrides=["epochs=1"])
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


@needs_shared
def test_digit_best_with_mnist_trains_and_evaluates(workspace):
    root = SHARED / "mnist"
    assert command("main", "--exp", "m", "--config", "digit_best", "--data-root", root, "--device", "cpu", "--set",
                   "epochs=1", "digits_per_epoch=16", "base_channels=8", "matrix_slots=20") == 0  # fmt: skip
    assert command("eval", "--exp", "m") == 0
    assert json.loads((workspace / "checkpoints" / "m" / "results.json").read_text())["data"].startswith("mnist-")


def test_a_reader_that_leaves_ends_a_command_quietly(monkeypatch):
    """As `main.py … | head` does; another pipe's end is still an error."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert cli.outcome(lambda: print("said")) == 141
        print("nothing is left that could complain", flush=True)
    monkeypatch.undo()

    def other():
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        cli.outcome(other)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux alone names its processor there")
def test_results_name_the_processor():
    said = provenance.provenance(torch.device("cpu"))["device"]
    told = re.search("^model name.*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = told[1] if told else platform.processor() or platform.machine()
    assert said == f"cpu ({name}, {torch.get_num_threads()} threads)"


def test_the_commit_is_that_of_the_code_and_not_of_the_tables(tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True,
            capture_output=True,
        )  # fmt: skip

    assert provenance.commit(tmp_path) == "unknown"
    git("init")
    (tmp_path / "results").mkdir()
    for name in ("main.py", "results/t.md"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "one")
    at = provenance.commit(tmp_path)
    assert len(at) == 12
    (tmp_path / "results" / "t.md").write_text("2")
    (tmp_path / "new").write_text("not the program's")
    assert provenance.commit(tmp_path) == at
    (tmp_path / "main.py").write_text("2")
    assert provenance.commit(tmp_path) == f"{at}-dirty"
