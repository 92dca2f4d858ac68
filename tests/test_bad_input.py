"""Runs that meet with something bad: what they say, and that nothing is lost. Wrong inputs: test_bad_inputs.py."""

import fcntl
import json
import resource

import pytest
import torch
from conftest import assert_same_run
from PIL import Image
from tiny import EVERY_STEP, command, train

from dataloader.digit import DigitAnatomy
from evaluation.scoring import Scored, selected
from methods.squid import Squid


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
    assert ".pt: could not be written" in error and "make room" in error
    assert (folder / "last.pt").read_bytes() == before and not list(folder.glob("*.part"))
    assert command("main", "--exp", "a", "--device", "cpu") == 0
    assert_same_run(folder, trained_once("squid"))


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
    original, taken = Squid.discriminator_loss, []

    def broken_at_the_third(self, x, x_hat):
        taken.append(x)
        return original(self, x, x_hat) * (torch.nan if len(taken) == 3 else 1)

    monkeypatch.setattr(Squid, "discriminator_loss", broken_at_the_third)
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

    for name in ("add_scalar", "add_histogram", "close"):
        monkeypatch.setattr(f"training.board.SummaryWriter.{name}", full)
    assert train("a", overrides=["epochs=1"]) == 0
    monkeypatch.setattr("system.files.os.fsync", full)
    assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 1
    assert "could not be written" in capsys.readouterr().err


def test_evaluating_on_other_data_is_said(workspace, trained, monkeypatch, capsys):
    trained("a", overrides=["epochs=1"])
    monkeypatch.setattr(DigitAnatomy, "fingerprint", lambda self: "mnist-0123")
    assert command("eval", "--exp", "a") == 0
    assert "note: trained on sklearn-" in capsys.readouterr().err
    assert json.loads((workspace / "checkpoints" / "a" / "results.json").read_text())["data"] == "mnist-0123"
