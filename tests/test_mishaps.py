"""Runs that meet with something bad: what they say, and that nothing is lost. Wrong inputs: test_bad_inputs.py."""

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, assert_same_run
from forks import kill_in_training
from PIL import Image
from tiny import EVERY_STEP, command, train

from commands import cli
from dataloader.digit import DigitAnatomy
from evaluation.scoring import Scored, selected
from experiments.folder import Experiment, ExperimentError
from methods.squid import Squid
from tools import make_tables


def test_a_second_process_is_refused(workspace, capsys):
    folder = workspace / "checkpoints" / "a"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert train("a") == 1
    assert "another process is training this experiment" in capsys.readouterr().err
    assert train("a", overrides=["epochs=1"]) == 0


def test_a_full_disk_keeps_the_last_good_checkpoint(workspace, trained, trained_once, capsys):
    trained("a", overrides=["epochs=1"])
    folder = workspace / "checkpoints" / "a"
    before = (folder / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # writing beyond it fails as on a full disk
    try:
        assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err
    assert ".pt: could not be written" in error and "make room" in error and "MB are free on its disk" in error
    assert (folder / "last.pt").read_bytes() == before and not list(folder.glob("*.part"))
    assert command("main", "--exp", "a", "--device", "cpu") == 0
    assert_same_run(folder, trained_once("squid"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_log_that_cannot_be_written_ends_no_training(workspace, monkeypatch, number):
    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("experiments.log.tqdm.write", full)
    assert train("a", overrides=["epochs=1"]) == 0
    assert "epoch 1/1" in (workspace / "checkpoints" / "a" / "log.txt").read_text()


def test_an_overwriting_that_is_cut_short_leaves_no_experiment(workspace, trained, monkeypatch, capsys):
    folder = trained("a", overrides=["epochs=1"])
    removed = []

    def cut(path, *args, **kwargs):
        if path.suffix == ".pt":
            raise KeyboardInterrupt
        removed.append(path.name)

    unlink, iterdir = Path.unlink, Path.iterdir
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "iterdir", lambda path: sorted(iterdir(path), reverse=True))
        patched.setattr(Path, "unlink", lambda path, **given: (cut(path), unlink(path, **given)))
        patched.setattr(shutil, "rmtree", cut)
        Experiment("a").clear()
    left = [path.name for path in folder.iterdir() if path.is_file() and path.name != ".lock"]
    assert removed[0] == "config.json" and "metrics.jsonl" in removed and sorted(left) == ["best.pt", "last.pt"]
    assert train("a", overrides=["epochs=1"]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["predict", "eval"])
def test_where_nothing_can_be_written_nothing_is_scored(workspace, trained, monkeypatch, capsys, name):
    folder = trained("a", overrides=["epochs=1"])
    scored, original = [], Squid.scores_of

    def scores_of(self, images):
        scored.append(images)
        return original(self, images)

    monkeypatch.setattr(Squid, "scores_of", scores_of)

    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("system.files.TemporaryFile", refuse)
    given = ["x.png", "--csv", "x.csv"] if name == "predict" else []
    Image.new("L", (9, 9)).save("x.png")
    assert command(name, "--exp", "a", "--device", "cpu", *given) == 1
    where = "x.csv" if name == "predict" else str(Path("checkpoints") / "a" / "results.json")
    assert f"error: {where}: cannot be written ([Errno 30] Read-only file system); mend" in capsys.readouterr().err
    assert scored == [] and folder.exists()


def test_scores_that_are_not_finite_are_an_error(workspace, trained, monkeypatch, capsys):
    trained("a", overrides=["epochs=1"])
    original = Squid.scores_of

    def broken(self, images):
        scores = original(self, images)
        scores.image["reconstruction"][0] = torch.nan
        return scores

    monkeypatch.setattr(Squid, "scores_of", broken)
    assert command("eval", "--exp", "a") == 1
    assert "scores of the validation images are not finite" in capsys.readouterr().err


def test_a_test_set_of_one_class_has_scores_and_no_auc(workspace, trained, monkeypatch, capsys):
    folder = trained("a", overrides=["epochs=1"])
    original = DigitAnatomy.split

    def normals_only(self, name):
        split = original(self, name)
        return selected(split, Scored({}), split.labels.numpy() == 0)[0] if name == "test" else split

    monkeypatch.setattr(DigitAnatomy, "split", normals_only)
    assert command("eval", "--exp", "a") == 0
    assert "All images are normal: AUC, average precision and oracle threshold need" in capsys.readouterr().out
    results = json.loads((folder / "results.json").read_text())
    for found in results["scores"].values():
        assert found.keys() == {"at_val_threshold", "at_normals_threshold"}
        assert found["at_val_threshold"].keys() == {"threshold", "specificity"}
    assert len((folder / "scores.csv").read_text().splitlines()) == 1 + results["classes"]["normal"]


def test_predict_names_unreadable_files_and_scores_the_rest(workspace, trained, capsys):
    trained("a", overrides=["epochs=1"])
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


def test_overwrite_deletes_only_when_the_new_run_can_start(workspace, trained, capsys):
    trained("a", overrides=["epochs=1"])
    folder = workspace / "checkpoints" / "a"
    before = {p.name for p in folder.iterdir()}
    for arguments in (
        ["--config", "zhang_best", "--data-root", "absent"],
        ["--config", "digit_quick", "--set", "digit_source=mnist", "--data-root", "in"],
    ):
        (workspace / "in").mkdir(exist_ok=True)
        (workspace / "in" / "t10k-images-idx3-ubyte").write_bytes(b"damaged")
        assert command("main", "--exp", "a", "--overwrite", *arguments) == 1
        assert {p.name for p in folder.iterdir()} == before
    (folder / "config.json").write_text("damaged")
    assert train("a", overrides=["epochs=1"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert train("a", "--overwrite", overrides=["epochs=1"]) == 0


def test_other_settings_are_told_before_data_is_looked_for(workspace, trained, capsys):
    trained("a", overrides=["epochs=1"])
    assert command("main", "--exp", "a", "--config", "zhang_best") == 1
    assert 'dataset: "digit" → "zhang"' in capsys.readouterr().err
    (workspace / "checkpoints" / "a" / "config.json").unlink()
    assert train("a") == 1
    assert "has checkpoints but no config.json" in capsys.readouterr().err


def test_weights_that_diverged_do_not_replace_last_pt(workspace, monkeypatch, capsys):
    original = Squid.training_step

    def diverging(self, batch):
        losses = original(self, batch)
        if batch.step == 2:
            self.generator.student.output.weight.data.fill_(torch.inf)
        return losses

    monkeypatch.setattr(Squid, "training_step", diverging)
    assert train("a", overrides=[EVERY_STEP]) == 1
    assert "Training diverged: generator.student.output.weight" in capsys.readouterr().err
    saved = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)
    assert saved["position"]["batch"] == 2 and all(v.isfinite().all() for v in saved["method"].values())


@pytest.mark.parametrize("term", ["adversarial", "distillation"])
def test_a_generator_loss_that_is_not_finite_stops_before_its_update(workspace, monkeypatch, capsys, term):
    original, taken = Squid.generator_losses, []

    def broken_at_the_second(self, x, out):
        taken.append(out)
        losses = original(self, x, out)
        return losses | {term: losses[term] * torch.nan} if len(taken) == 2 else losses

    monkeypatch.setattr(Squid, "generator_losses", broken_at_the_second)
    assert train("a", overrides=[EVERY_STEP]) == 1
    assert f"{term} = nan, at epoch 1, batch 3" in capsys.readouterr().err
    saved = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)
    assert saved["position"]["batch"] == 2


def test_where_losses_are_not_looked_at_one_by_one_their_sum_stops_the_run(workspace, monkeypatch, capsys):
    original, taken = Squid.discriminator_losses, []

    def broken_at_the_third(self, x, x_hat):
        taken.append(x)
        losses = original(self, x, x_hat)
        return {name: loss * (torch.nan if len(taken) == 3 else 1) for name, loss in losses.items()}

    monkeypatch.setattr(Squid, "discriminator_losses", broken_at_the_third)
    monkeypatch.setattr(Squid, "require_finite", lambda self, **losses: None)  # as on a GPU
    assert train("a", overrides=[EVERY_STEP]) == 1
    error = capsys.readouterr().err
    assert "A loss is not finite: discriminator, " in error and "at epoch 1, in or before batch 3" in error
    saved = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)
    assert saved["position"]["batch"] == 2


def test_logs_that_cannot_be_written_do_not_hide_the_error(workspace, monkeypatch, capsys):
    folder = workspace / "checkpoints" / "a"
    folder.mkdir(parents=True)
    (folder / "log.txt").symlink_to("/dev/full")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("experiments.log.tqdm.write", full)
    for name in ("add_scalar", "add_histogram", "close"):
        monkeypatch.setattr(f"training.board.SummaryWriter.{name}", full)
    assert train("a", overrides=["epochs=1"]) == 0
    monkeypatch.setattr("system.files.os.fsync", full)
    assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 1
    assert "could not be written" in capsys.readouterr().err


def test_evaluating_on_other_data_is_said(workspace, trained, monkeypatch, capsys):
    folder = trained("a", overrides=["epochs=1"])
    monkeypatch.setattr(DigitAnatomy, "fingerprint", lambda self: "mnist-0123")
    assert command("eval", "--exp", "a") == 1  # as where MNIST was moved: digits there would be, and others
    assert "is not there, and without it there is mnist-0123" in capsys.readouterr().err
    assert not (folder / "results.json").exists()
    change_config(folder, data_root=str(workspace))
    assert command("eval", "--exp", "a") == 0
    assert "note: trained on sklearn-" in capsys.readouterr().err
    assert json.loads((folder / "results.json").read_text())["data"] == "mnist-0123"


def change_config(folder, **settings):
    saved = json.loads((folder / "config.json").read_text())
    saved["settings"] |= settings
    (folder / "config.json").write_text(json.dumps(saved))


def test_a_refused_run_changes_no_setting(workspace, trained, capsys):
    folder = trained("a", overrides=["epochs=1"])
    before, last = (folder / "config.json").read_bytes(), (folder / "last.pt").read_bytes()
    (folder / "last.pt").write_bytes(b"")
    assert command("main", "--exp", "a", "--device", "cpu", "--set", "epochs=9") == 1
    assert "truncated" in capsys.readouterr().err and (folder / "config.json").read_bytes() == before
    (folder / "last.pt").write_bytes(last)
    assert train("a", overrides=["epochs=1"]) == 0


def test_a_finished_run_stays_what_it_was_trained_in(workspace, trained):
    folder = trained("a", overrides=["epochs=1"])
    assert command("main", "--exp", "a", "--device", "cpu", "--set", "precision=bf16", "checkpoint=last") == 0
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert (settings["precision"], settings["checkpoint"]) == ("fp32", "last")


def test_a_configuration_that_is_not_here_any_more_is_told_by_its_settings(workspace, trained):
    config = trained("a", "ae") / "config.json"
    config.write_text(config.read_text().replace('"ae_brain"', '"of_a_colleague"'))
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    found = json.loads((config.parent / "results.json").read_text())
    assert found["config"] == "of_a_colleague" and "multiplier: 1.0 → 0.25" in found["settings"]
    assert command("make_tables", "a", module=make_tables) == 0
    assert command("main", "--exp", "a", "--device", "cpu", "--set", "epochs=3") == 0


def test_what_killed_runs_left_half_written_is_cleared(workspace, trained):
    folder = trained("a", overrides=["epochs=1"])
    for name in ("last.pt.7.part", "best_averaged.pt.8.part", "results.json.9.part"):
        (folder / name).write_bytes(b"x")
    assert train("a", overrides=["epochs=1"]) == 0
    assert [path.name for path in folder.glob("*.part")] == ["results.json.9.part"]  # of an evaluation that may be on


def test_a_cut_evaluation_is_none(workspace, trained, monkeypatch):
    folder = trained("a", overrides=["epochs=1"])
    assert command("eval", "--exp", "a", "--device", "cpu") == 0

    def cut(*args):
        raise KeyboardInterrupt

    (folder / "maps.npz").write_bytes(b"of another evaluation")
    monkeypatch.setattr("evaluation.page.write", cut)
    assert command("eval", "--exp", "a", "--device", "cpu", "--split", "val") == 130
    assert not (folder / "results.json").exists() and not (folder / "maps.npz").exists()


def test_what_is_not_trained_is_not_evaluated(workspace, capsys):
    kill_in_training(workspace, "methods.patchcore:PatchCore", "fit", 1, "patchcore", [])
    assert command("eval", "--exp", "killed", "--checkpoint", "last", "--device", "cpu") == 1
    assert "killed: nothing is trained yet. Train on: python main.py --exp killed" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["random", "imagenet"])
def test_frozen_parts_are_those_of_training_without_a_best_checkpoint_too(workspace, weights):
    settings = ["val_every=2", f"weights={weights}"]
    kill_in_training(workspace, "methods.rd4ad:Rd4ad", "training_step", 5, "rd4ad", [*settings, EVERY_STEP])
    folder = workspace / "checkpoints" / "killed"
    assert not (folder / "best.pt").exists()
    given = Namespace(exp="killed", checkpoint="last", precision=None, device="cpu")
    method = cli.load_trained(given).method
    before, (part,) = method.state_dict(), method.frozen
    assert train("killed", method="rd4ad", overrides=settings) == 0
    after = torch.load(folder / "best.pt", weights_only=True)["method"]
    frozen = [name for name in after if name.startswith(f"{part}.")]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    (folder / "best.pt").unlink()
    saved = json.loads((folder / "config.json").read_text())
    if weights == "imagenet":
        saved["pretrained"][part]["sha256"] = "0" * 64
        (folder / "config.json").write_text(json.dumps(saved))
        with pytest.raises(ExperimentError, match=f"weights of {part}"):
            cli.load_trained(given)


def test_a_root_that_is_named_in_the_environment_is_there(workspace, monkeypatch, capsys):
    monkeypatch.setenv("ANOMALY_DATA_ROOT", "absent")
    assert train("a") == 1
    assert "$ANOMALY_DATA_ROOT = absent: no such folder" in capsys.readouterr().err


def test_help_is_printed_where_output_is_no_utf_8():
    told = subprocess.run(
        [sys.executable, ROOT / "predict.py", "--help"], env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0 and "one line per image".lower() in told.stdout.lower() and not told.stderr


def test_run_sh_does_not_evaluate_what_it_has_not_trained():
    asked = [ROOT / "run.sh", "e", "ae_brain", "--seeds", "0,1"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert told.returncode == 1 and "main.py, then eval.py" in told.stderr
