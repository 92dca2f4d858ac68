"""DDAD beyond the recorded numbers: stages, ensembles, synthetic anomalies."""

import csv
import json
import signal

import numpy as np
import pytest
import torch
from conftest import assert_same_run, same
from forks import kill_in_training
from PIL import Image
from tiny import EVERY_STEP, TINY, command, train

import configs
from configs import ConfigError
from configs.stages import stage_epochs, stage_of
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from evaluation.metrics import chi2_distance
from methods.autoencoder import SingleAutoEncoder
from methods.ddad import Ddad, focal_loss
from methods.synthetic import Squares, blend, draw_partners, draw_squares, masks
from system.files import FileError
from training.repeat import shared_until

CPU = torch.device("cpu")


def build(*overrides, method="ddad"):
    config = configs.build(TINY[method][0], [*TINY[method][1], *overrides])
    method = (Ddad if method == "ddad" else SingleAutoEncoder)(config)
    return method, TrainLoader(build_dataset(config), config, CPU)


def test_every_dataset_has_every_backbone():
    for dataset in ("rsna", "vindr", "brain", "lag"):
        for backbone in ("ae", "aeu", "memae"):
            assert configs.build(f"configs/ddad_{dataset}_{backbone}.py").backbone == backbone
            assert configs.build(f"{backbone}_{dataset}").method == backbone


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("members=1", "members = 1: the intra-discrepancy is a deviation among at least 2.*ae, aeu or memae"),
        ("extra_data=0", "extra_data = 0: the unknown distribution module needs unlabeled images"),
        ("extra_data=-1", "extra_data = -1: must be at least 0"),
        ("anomaly_rate=1.5", r"anomaly_rate = 1.5: must lie in \[0, 1\]"),
        ("refine_batch_size=1", "refine_batch_size = 1: at least 2, one image is put in another"),
        ("refine_epochs=-1", "refine_epochs = -1: must be at least 0"),
        ("refine_epochs=0 main_score=r_dual", "main_score = r_dual: there is none without refinement"),
        ("batch_size=1", "batch_size = 1: must be at least 2"),
        ("image_size=60", "image_size = 60 is not divisible by 16; take 48 or 64"),
        ("multiplier=0.01", "multiplier = 0.01: must be at least"),
        ("num_slots=0", "num_slots = 0"),
        ("entropy_weight=-1.0", "entropy_weight = -1.0"),
        ("backbone=vae", "must be one of ae, aeu, memae. Did you mean ae"),
    ],
)
def test_bad_values_name_the_key(override, message):
    with pytest.raises(ConfigError, match=message):
        configs.build("ddad_brain_ae", override.split())


# -- the ensembles ----------------------------------------------------------------------------------------------------


def trained_udm(members: int) -> dict[str, torch.Tensor]:
    method, loader = build(f"members={members}")
    method.start_stage("udm")
    for batch in loader.epoch(0, method.stages[1]).batches():
        method.training_step(batch)
    return {k: v for k, v in method.members.state_dict().items() if k.startswith(("udm_0.", "udm_1."))}


def test_a_member_is_the_same_network_beside_however_many_others():
    two, three = trained_udm(2), trained_udm(3)
    assert two.keys() == three.keys() and all(torch.equal(two[k], three[k]) for k in two)
    assert not torch.equal(two["udm_0.encoder.0.weight"], two["udm_1.encoder.0.weight"])


def test_every_member_has_an_order_of_its_own():
    method, loader = build("members=3")
    ndm, udm, refine = method.stages
    epoch = loader.epoch(0, udm)
    assert len(epoch) == 4 and all(len(index) == 24 for index in epoch.indices)
    own = [torch.cat([index.chunk(3)[k] for index in epoch.indices]) for k in range(3)]
    for order in own:
        assert sorted(order.tolist()) == list(range(32))  # 24 normal and 8 unlabeled images
    assert not torch.equal(own[0], own[1]) and not torch.equal(own[1], own[2])
    assert len(loader.epoch(0, ndm)) == 3 and sorted(torch.cat(loader.epoch(0, refine).indices)) == list(range(24))


def test_the_unlabeled_images_are_as_many_as_asked_for():
    for rate, anomalous in ((0, 0), (0.6, 4), (1, 8)):
        dataset = build(f"anomaly_rate={rate}")[1].dataset
        assert dataset.unlabeled_images().shape == (8, 32, 32)
        assert dataset.training_in_words().endswith(f"unlabeled: {8 - anomalous} normal, {anomalous} anomalous")


def test_a_partial_batch_is_left_out_and_too_few_images_are_an_error(workspace, capsys):
    method, loader = build("digits_per_epoch=23")
    assert [len(loader.epoch(0, stage)) for stage in method.stages] == [2, 3, 2]
    # enough for the first stages, not for the last: said before the first is trained
    assert train("a", method="ddad", overrides=["refine_batch_size=25"]) == 1
    assert (
        "the stage refine trains on 24 images, fewer than its batch of 25. Give --set refine_batch_size=24, or add"
        in capsys.readouterr().err
    )
    assert not (workspace / "checkpoints" / "a" / "last.pt").exists()


def test_a_dataset_without_unlabeled_images_is_an_error(workspace, capsys):
    folder = workspace / "zhang"
    for split in ("train", "val", "test"):
        for name in ("normal_256", "pneumonia_256"):
            (folder / split / name).mkdir(parents=True)
            for i in range(9):
                pixels = np.random.RandomState(i).randint(0, 256, (50, 50), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    assert train("a", "--data-root", folder, method="ddad", overrides=["dataset=zhang"]) == 1
    assert "ZhangLab has no unlabeled images, which ddad trains on too" in capsys.readouterr().err
    assert train("b", "--data-root", folder, method="memae", overrides=["dataset=zhang"]) == 0


def test_a_members_scores_are_the_single_networks():
    method, loader = build("backbone=aeu")
    images = next(loader.epoch(0).batches()).images
    scores = method.score(images)
    alone, _ = build(method="aeu")
    for name in ("udm_1", "ndm_0"):
        alone.network.load_state_dict(method.members[name].state_dict())
        assert torch.equal(alone.score(images).image["reconstruction"], scores.columns[name])
    assert set(scores.maps) == set(scores.image) == set(method.score_names)


# -- stages -----------------------------------------------------------------------------------------------------------


def test_epochs_count_through_the_stages():
    stages = configs.build("ddad_brain_ae", ["epochs=2", "refine_epochs=3"]).stages()
    assert [stage_of(stages, epoch).name for epoch in range(8)] == ["ndm"] * 2 + ["udm"] * 2 + ["refine"] * 4
    assert stage_epochs(stages, 3) == {"ndm": 2, "udm": 1, "refine": 0}
    assert stage_epochs(stages, 7) == {"ndm": 2, "udm": 2, "refine": 3}


@pytest.fixture
def uninterrupted(trained_once):
    return trained_once("ddad")


KILLS = {  # 3 iterations of ndm, 4 of udm, 2 · 3 of refine; test_resume.py has those in and between the stages
    "between ndm and udm, before last.pt": ("training.loop.Trainer", "save_last", 4, [EVERY_STEP]),
    "before best.pt": ("training.loop.Trainer", "save_best", 1, [EVERY_STEP]),
    "in the last epoch, with what was saved as the stage began": ("methods.ddad.Ddad", "training_step", 12, []),
}


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_run_ends_as_the_run_never_stopped(workspace, uninterrupted, moment):
    *call, overrides = KILLS[moment]
    kill_in_training(workspace, *call, "ddad", overrides)
    assert train("killed", method="ddad") == 0
    assert_same_run(workspace / "checkpoints" / "killed", uninterrupted)


def test_stages_leave_the_other_stages_networks_alone(workspace, uninterrupted, monkeypatch):
    seen = {}
    original = Ddad.start_stage

    def watched(self, name):
        seen[name] = {k: v.clone() for k, v in self.state_dict().items()}
        original(self, name)

    monkeypatch.setattr(Ddad, "start_stage", watched)
    assert train("a", method="ddad") == 0
    final = torch.load(workspace / "checkpoints" / "a" / "last.pt", weights_only=True)["method"]
    for entry, value in final.items():
        kept = {"members.ndm": "udm", "members.udm": "refine"}.get(entry[:11])
        if kept:  # batch-norm statistics included
            assert torch.equal(value, seen[kept][entry]), entry
        assert "num_batches" in entry or not torch.equal(value, seen["ndm"][entry]), entry


def test_a_re_run_never_grows_an_ensemble_and_other_members_are_refused(workspace, trained, capsys):
    trained("a", "ddad")
    folder = workspace / "checkpoints" / "a"
    before = (folder / "last.pt").read_bytes()
    assert train("a", method="ddad") == 0
    assert "is finished: 4 epochs" in capsys.readouterr().out and (folder / "last.pt").read_bytes() == before
    assert train("a", method="ddad", overrides=["members=3"]) == 1
    assert "members: 2 → 3" in capsys.readouterr().err
    saved = torch.load(folder / "best.pt", weights_only=True)
    for change, message in (
        (lambda s: {k: v for k, v in s.items() if not k.startswith("members.ndm_1.")}, "missing: ndm_1; extra: none"),
        (lambda s: {**s, "members.udm_2.x": torch.ones(1)}, "missing: none; extra: udm_2"),
    ):
        torch.save({**saved, "method": change(saved["method"])}, folder / "best.pt")
        assert command("eval", "--exp", "a", "--device", "cpu") == 1
        assert message in capsys.readouterr().err


def test_only_the_last_stage_can_be_made_longer(workspace, uninterrupted, capsys):
    assert train("a", method="ddad", overrides=["refine_epochs=1"]) == 0
    assert train("a", method="ddad", overrides=["refine_epochs=1", "epochs=2"]) == 1
    assert "epochs: 1 → 2" in capsys.readouterr().err
    assert train("a", method="ddad", overrides=["refine_epochs=1"]) == 0
    assert "--set refine_epochs=N" in capsys.readouterr().out
    assert train("a", method="ddad") == 0
    assert_same_run(workspace / "checkpoints" / "a", uninterrupted)


def test_a_deleted_checkpoint_is_an_error_not_a_new_start(workspace, trained, capsys):
    trained("a", "ddad")
    folder = workspace / "checkpoints" / "a"
    (folder / "last.pt").unlink()
    assert train("a", method="ddad") == 1
    error = capsys.readouterr().err
    assert "last.pt is gone, although 4 of 4 epochs were trained" in error and "--overwrite" in error
    (folder / "best.pt").unlink()
    assert command("eval", "--exp", "a") == 1
    assert "best.pt: no such checkpoint; train first" in capsys.readouterr().err


def stopped_at(call):
    """Ddad's training step, with a SIGTERM at its n-th call."""
    original, taken = Ddad.training_step, []

    def signalled(self, batch):
        taken.append(batch.step)
        if len(taken) == call:
            signal.raise_signal(signal.SIGTERM)
        return original(self, batch)

    return signalled


def test_an_unfinished_experiment_is_evaluated_at_its_epoch(workspace, monkeypatch):
    monkeypatch.setattr(Ddad, "training_step", stopped_at(9))
    assert train("a", method="ddad") == 128 + signal.SIGTERM
    assert command("eval", "--exp", "a", "--checkpoint", "last", "--device", "cpu") == 0
    results = json.loads((workspace / "checkpoints" / "a" / "results.json").read_text())
    assert results["epoch"] == 2 and results["stages"] == {"ndm": 1, "udm": 1, "refine": 0}


# -- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ddad", "aeu"])
def test_evaluation_gives_every_score(workspace, capsys, method):
    assert train("a", method=method) == 0
    assert command("eval", "--exp", "a", "--save-maps", "--device", "cpu") == 0
    folder = workspace / "checkpoints" / "a"
    results = json.loads((folder / "results.json").read_text())
    with open(folder / "scores.csv") as file:
        table = list(csv.DictReader(file))
    with np.load(folder / "maps.npz") as maps:
        assert maps["id"].tolist() == [row["id"] for row in table]
        if method == "aeu":
            assert maps["reconstruction"].shape == (32, 32, 32)
            return
        for name in ("r_dual", "r_intra", "inter", "intra", "rec"):
            assert set(results["scores"][name]) >= {"auc", "average_precision", "chi2_distance"}
            scores = [float(row[name]) for row in table]
            np.testing.assert_allclose(maps[name].mean((1, 2)), scores, rtol=1e-5)
    assert set(results["localisation"]) == set(results["scores"])
    for module in ("udm", "ndm"):
        found = results["networks"][module]
        assert len(found["auc"]) == 2 and found["auc_mean"] == pytest.approx(sum(found["auc"]) / 2)
        assert found["auc_std"] == pytest.approx(abs(found["auc"][0] - found["auc"][1]) / 2**0.5)
        assert f"{module}, each network: AUC" in capsys.readouterr().out or module == "ndm"
    Image.new("L", (60, 60), 90).save(workspace / "x.png")
    assert command("predict", "--exp", "a", workspace / "x.png", "--csv", "x.csv", "--device", "cpu") == 0
    assert {"r_dual", "ndm_1", "score"} <= set((workspace / "x.csv").read_text().splitlines()[0].split(","))


def test_chi2_distance_by_hand():
    labels = np.array([0, 0, 1, 1])
    # all in one bin each: densities 100 in bin 0 and in bin 99; 98 empty bins count ½ each
    assert chi2_distance(labels, np.array([1.0, 1.0, 3.0, 3.0])) == pytest.approx(0.5 * (100 + 100 + 98))
    # the same scores in both classes: only the empty bins count
    assert chi2_distance(labels, np.array([1.0, 3.0, 1.0, 3.0])) == pytest.approx(0.5 * 98)
    assert chi2_distance(labels, np.ones(4)) == pytest.approx(0.5 * 99)


# -- synthetic anomalies ----------------------------------------------------------------------------------------------


def test_squares_are_drawn_from_the_papers_ranges():
    torch.manual_seed(0)
    squares = draw_squares(20000, 64)
    assert (squares.centre.min(), squares.centre.max()) == (6, 56)
    assert (squares.half_width.min(), squares.half_width.max()) == (3, 12)
    assert squares.alpha.min() >= 0 and squares.alpha.max() < 1
    assert 0.48 < squares.present.float().mean() < 0.52
    assert set(draw_squares(5000, 32).half_width.tolist()) == {2, 3, 4, 5}  # [round 1.6, round 6.4)


def test_a_square_covers_what_it_should():
    squares = Squares(
        centre=torch.tensor([[10, 20], [6, 56], [30, 30]]),
        half_width=torch.tensor([3, 12, 5]),
        alpha=torch.tensor([0.25, 0.5, 0.9]),
        present=torch.tensor([True, True, False]),
    )
    mask = masks(squares, 64)
    expected = torch.zeros(3, 64, 64, dtype=torch.long)
    expected[0, 7:13, 17:23] = 1  # [c − w, c + w)
    expected[1, 0:18, 44:64] = 1  # clipped to the image
    assert torch.equal(mask, expected)

    images, others = torch.rand(3, 1, 64, 64), torch.rand(3, 1, 64, 64)
    blended = blend(images, others, squares.alpha, mask)
    torch.testing.assert_close(blended[0, 0, 7:13, 17:23], (0.75 * images + 0.25 * others)[0, 0, 7:13, 17:23])
    outside = expected == 0
    assert torch.equal(blended[:, 0][outside], images[:, 0][outside]) and torch.equal(blended[2], images[2])


def test_partners_are_other_images():
    torch.manual_seed(0)
    drawn = torch.stack([draw_partners(4) for _ in range(300)])
    for i in range(4):
        assert set(drawn[:, i].tolist()) == set(range(4)) - {i}


def test_focal_loss_by_hand():
    p = torch.tensor([[[[0.9]], [[0.1]]]])  # one pixel
    for mask, q in ((0, 0.9), (1, 0.1)):
        loss = focal_loss(p, torch.full((1, 1, 1), mask))
        assert loss.item() == pytest.approx(-((1 - q) ** 2) * np.log(q), rel=1e-3)


def test_the_refinement_sees_the_frozen_modules_in_evaluation_mode():
    method, loader = build()
    method.start_stage("refine")
    modes = []
    for network in method.members.values():
        network.register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    batch = next(loader.epoch(0, method.stages[2]).batches())
    before = {k: v.clone() for k, v in method.members.state_dict().items()}
    method.training_step(batch)
    assert modes == [False] * 4 and all(net.training for net in method.refinement.values())
    assert same(before, dict(method.members.state_dict()))


# -- a stage repeated --------------------------------------------------------------------------------------------------


def repeat(exp, *arguments):
    return command("main", "--exp", exp, "--from", "a", "--stage", "refine", "--device", "cpu", *arguments)


def test_a_repeated_stage_ends_as_it_did(workspace, uninterrupted, trained):
    trained("a", "ddad")
    assert repeat("again") == 0
    assert_same_run(workspace / "checkpoints" / "again", uninterrupted)
    assert command("eval", "--exp", "again", "--device", "cpu") == 0
    log = (workspace / "checkpoints" / "again" / "log.txt").read_text()
    assert "the stage refine again, from a" in log and log.count("(udm)") == log.count("(ndm)") == 1


def test_a_stage_is_repeated_with_other_settings_from_the_same_modules(workspace, trained, capsys):
    trained("a", "ddad")
    assert repeat("b", "--set", "refine_learning_rate=0.01", "refine_epochs=1") == 0
    old, new = (torch.load(workspace / f"checkpoints/{e}/last.pt", weights_only=True)["method"] for e in "ab")
    assert all(torch.equal(old[k], new[k]) == k.startswith("members") for k in old if "num_batches" not in k)
    assert repeat("b", "--set", "refine_learning_rate=0.01", "refine_epochs=1") == 0
    assert "is finished: 3 epochs" in capsys.readouterr().out


def test_another_anomaly_rate_shares_the_normative_module_and_ends_as_if_trained_alone(workspace, trained, capsys):
    trained("a", "ddad")
    more = ["anomaly_rate=1", "refine_epochs=1"]
    alone = "--exp", "alone", "--device", "cpu", "--config", TINY["ddad"][0], "--set", *TINY["ddad"][1], *more
    assert command("main", *alone) == 0
    shared = "--exp", "shared", "--from", "a", "--stage", "udm", "--device", "cpu", "--set", *more
    assert command("main", *shared) == 0
    assert_same_run(workspace / "checkpoints" / "shared", workspace / "checkpoints" / "alone")
    assert command("main", *shared[:-1], "refine_epochs=1", "latent_size=8") == 1
    assert "can change extra_data, anomaly_rate, refine_… alone, and not\n  latent_size" in capsys.readouterr().err


def test_where_stages_share_their_length_none_is_made_longer(workspace, trained, capsys):
    assert train("u", method="ddad", overrides=["refine_epochs=0"]) == 0
    assert train("u", method="ddad", overrides=["refine_epochs=0"]) == 0
    assert "To train on" not in capsys.readouterr().out
    assert train("u", method="ddad", overrides=["refine_epochs=0", "epochs=2"]) == 1
    assert "epochs: 1 → 2" in capsys.readouterr().err


def test_refinement_comes_and_goes_with_the_modules_kept(workspace, uninterrupted, trained):
    assert train("u", method="ddad", overrides=["refine_epochs=0"]) == 0
    added = "--exp", "r", "--from", "u", "--stage", "refine", "--device", "cpu", "--set", "refine_epochs=2"
    assert command("main", *added) == 0
    assert_same_run(workspace / "checkpoints" / "r", uninterrupted)
    trained("a", "ddad")
    left_out = "--exp", "v", "--from", "a", "--stage", "udm", "--device", "cpu", "--set", "refine_epochs=0"
    assert command("main", *left_out) == 0
    assert_same_run(workspace / "checkpoints" / "v", workspace / "checkpoints" / "u")
    saved, refined = configs.build(*TINY["ddad"]), configs.build(TINY["ddad"][0], [*TINY["ddad"][1], "refine_epochs=0"])
    assert (shared_until(saved, refined), shared_until(refined, saved)) == ("udm", "refine")


def test_what_other_images_trained_is_not_taken_over(workspace, trained, capsys):
    trained("a", "ddad")
    path = workspace / "checkpoints" / "a" / "config.json"
    path.write_text(path.read_text().replace("sklearn-", "another-"))
    assert repeat("b") == 1
    assert "training data: another-" in capsys.readouterr().err


def test_a_repetition_that_cannot_start_deletes_nothing(workspace, trained, capsys):
    folder = trained("a", "ddad")
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    assert repeat("a", "--overwrite") == 1 and "is the experiment itself" in capsys.readouterr().err
    source = trained("b", "ddad")
    metrics = source / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"ndm"', '"x"'))
    assert command("main", "--exp", "a", "--from", "b", "--stage", "refine", "--overwrite", "--device", "cpu") == 1
    assert "in another order" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_repetition_that_was_cut_as_it_began_goes_on(workspace, uninterrupted, trained, monkeypatch, capsys):
    trained("a", "ddad")

    def full(self):
        raise FileError("last.pt: could not be written")

    with monkeypatch.context() as patch:
        patch.setattr("training.loop.Trainer.save_last", full)
        assert repeat("again") == 1
    assert not (workspace / "checkpoints" / "again" / "last.pt").exists()
    assert repeat("again") == 0
    assert_same_run(workspace / "checkpoints" / "again", uninterrupted)
    (workspace / "checkpoints" / "again" / "last.pt").unlink()  # of epochs of its own
    assert repeat("again") == 1 and "last.pt is gone" in capsys.readouterr().err


def test_what_was_trained_in_another_order_is_not_taken_over(workspace, trained, capsys):
    trained("a", "ddad")
    path = workspace / "checkpoints" / "a" / "metrics.jsonl"
    path.write_text(path.read_text().replace('"ndm"', '"x"').replace('"udm"', '"ndm"').replace('"x"', '"udm"'))
    assert repeat("b") == 1
    assert "trained its stages in another order" in capsys.readouterr().err


def test_without_refinement_it_is_ddad_as_of_miccai(workspace, trained):
    trained("a", "ddad")
    assert train("b", method="ddad", overrides=["refine_epochs=0"]) == 0
    found = {}
    for name in "ab":
        assert command("eval", "--exp", name, "--device", "cpu") == 0
        found[name] = json.loads((workspace / "checkpoints" / name / "results.json").read_text())
    assert found["b"]["stages_trained"] == {"ndm": 1, "udm": 1} and found["b"]["main_score"] == "inter"
    scores = {name: of["auc"] for name, of in found["b"]["scores"].items()}
    assert scores == {name: found["a"]["scores"][name]["auc"] for name in ("inter", "intra", "rec")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "learning_rate=0.1"], "--stage refine can change refine_… alone, and not\n  learning_rate"),
        (["--stage", "refin"], "--stage refin: the stages of checkpoints/a are ndm, udm, refine"),
        (["--from", "b"], "checkpoints/b is not an experiment"),
    ],
)
def test_what_cannot_be_repeated_is_said(workspace, trained, capsys, arguments, message):
    trained("a", "ddad")
    assert repeat("c", *arguments) == 1
    assert message in capsys.readouterr().err and not (workspace / "checkpoints" / "c").exists()


def test_a_stage_whose_forerunners_are_not_trained_cannot_be_repeated(workspace, monkeypatch, capsys):
    monkeypatch.setattr(Ddad, "training_step", stopped_at(2))
    assert train("a", method="ddad") == 128 + signal.SIGTERM
    assert repeat("b") == 1
    assert "has trained 0 of the 2 epochs before the stage refine" in capsys.readouterr().err


def test_an_older_experiment_is_not_trained_on_but_its_modules_are_taken_over(workspace, trained, capsys):
    trained("a", "ddad")
    path = workspace / "checkpoints" / "a" / "config.json"
    content = json.loads(path.read_text())
    for key in configs.OLDER:
        del content["settings"][key]
    path.write_text(json.dumps(content))
    assert train("a", method="ddad", overrides=["refine_epochs=3"]) == 1
    assert "was trained by an older version" in capsys.readouterr().err
    assert command("main", "--exp", "a") == 1
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    results = json.loads((workspace / "checkpoints" / "a" / "results.json").read_text())
    assert 'digit_crop: "redrawn" → "clamped"' in results["settings"]
    assert repeat("b") == 0
