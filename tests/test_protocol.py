"""How a run is made: augmentation, schedules, the best epoch, thresholds, score statistics, turns and updates."""

import copy
import csv
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import assert_same_run
from PIL import Image
from tiny import TINY, command, train

import configs
from dataloader import Dataset, Split, build_dataset
from dataloader.augment import draw_affine
from dataloader.digit import DigitAnatomy
from dataloader.loader import Batch, TrainLoader
from evaluation.metrics import auc_interval
from experiments.folder import Experiment
from methods import METHODS, Method, Scores
from methods.squid import Squid
from methods.synthetic import with_squares
from models.blocks import MaskedShortcut
from system.device import to_float
from system.seeding import generator
from training.loop import Trainer

CPU = torch.device("cpu")


class Pictures(Dataset):
    """Given training images, and two validation images."""

    def __init__(self, config, images):
        super().__init__(config, Path("nowhere"))
        self.images = images

    def training_images(self, epoch):
        return self.images

    def unlabeled_images(self):
        return self.images

    def split(self, name):
        return Split(self.images[:2], torch.tensor([0, 1]), ["normal", "a"], ["0", "1"])

    def fingerprint(self):
        return "pictures"

    def training_in_words(self):
        return f"{len(self.images)} normal"


def noise(count, side, seed=0):
    return torch.randint(0, 256, (count, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def loader_of(images, name="zhang_best", *overrides):
    config = configs.build(name, list(overrides))
    return TrainLoader(Pictures(config, images), config, CPU)


def build(name, *overrides):
    config = configs.build(TINY[name][0], [*TINY[name][1], *overrides])
    torch.manual_seed(0)
    return METHODS[name](config)


def shown(loader, epoch):
    """Every training image as the epoch shows it, in the dataset's order, and whether each comes once."""
    batches = list(loader.epoch(epoch).batches())
    order = torch.cat([batch.indices for batch in batches])
    assert sorted(order.tolist()) == list(range(len(order)))
    return torch.cat([batch.images for batch in batches])[order.argsort()]


# -- augmentation -----------------------------------------------------------------------------------------------------

AUGMENTED = ["zhang_best", "chexpert_best", "simsid_zhang", "simsid_chexpert", "simsid_covidx", "simsid_hierarchical"]
AS_THEY_ARE = ["digit_best", "ddad_brain_ae", "ddad_rsna_aeu", "ae_lag", "aeu_vindr", "memae_brain"]


@pytest.mark.parametrize("name", AUGMENTED + AS_THEY_ARE)
def test_batches_are_augmented_where_the_row_says_so(name):
    images = noise(8, 64)
    loader = loader_of(images, name, "batch_size=2")
    raw = to_float(images, CPU)
    for batch in loader.epoch(0, loader.config.stages()[-1]).batches():
        for image, original in zip(batch.images, raw[batch.indices], strict=True):
            moved = (image != original).float().mean()  # of noise nearly all pixels change
            assert moved > 0.5 if name in AUGMENTED else moved == 0


def ramps(count, side):
    """Half of the images get brighter by 2 a column, half by 2 a row; nowhere black."""
    ramp = (50 + 2 * torch.arange(side)).to(torch.uint8)
    columns = ramp.expand(count // 2, side, side)
    return torch.cat([columns, columns.transpose(1, 2)])


def test_what_training_sees_is_moved_by_five_percent_and_scaled_by_five_but_not_turned():
    count, side, middle = 600, 100, 49.5
    seen = (shown(loader_of(ramps(count, side)), 0)[:, 0].double() * 255 - 50) / 2  # the pixel that each comes from
    seen[count // 2 :] = seen[count // 2 :].transpose(1, 2).clone()
    inner = seen[:, 15:85, 15:85]
    assert torch.equal(inner, inner[:, :1].expand_as(inner))  # a straight ramp stays one: no rotation
    place = torch.arange(15, 85, dtype=torch.float64)
    design = torch.stack([place, torch.ones_like(place)], dim=1)
    slope, offset = torch.linalg.lstsq(design, inner[:, 0].T).solution
    scale, shift = 1 / slope, (middle - offset) / slope - middle
    assert 0.945 < scale.min() < 0.955 and 1.045 < scale.max() < 1.055 and abs(scale.mean() - 1) < 0.01
    for axis in (shift[: count // 2], shift[count // 2 :]):
        assert -5.5 < axis.min() < -4.5 and 4.5 < axis.max() < 5.5 and abs(axis.mean()) < 0.6


def test_the_ranges_are_filled_evenly_and_the_axes_are_independent():
    drawn = draw_affine(20000, generator(0)).double()
    low = torch.tensor([-0.05, -0.05, 0.95], dtype=torch.float64)
    u = (drawn - low) / 0.1  # U(0, 1)
    assert u.min() >= -1e-6 and u.max() <= 1 + 1e-6
    assert (u.amin(0) < 0.001).all() and (u.amax(0) > 0.999).all()
    assert ((u.mean(0) - 0.5).abs() < 0.01).all() and ((u.var(0) - 1 / 12).abs() < 0.003).all()
    assert (torch.corrcoef(u.T) - torch.eye(3)).abs().max() < 0.03


def test_augmented_pixels_are_pixels_of_the_image_and_black_outside():
    images = torch.where(noise(40, 64) < 128, 100, 200).to(torch.uint8)
    found = (shown(loader_of(images), 0) * 255).round()
    assert set(found.unique().tolist()) == {0, 100, 200}  # nearest neighbour: nothing between
    assert (found[:, :, 8:-8, 8:-8] > 0).all()


def test_every_image_and_every_epoch_is_augmented_in_its_own_way():
    loader = loader_of(noise(1, 128).expand(40, 128, 128))
    first, second = shown(loader, 0), shown(loader, 1)
    assert len(first.unique(dim=0)) > 35  # whole pixels and nearest neighbour: two may look the same
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(shown(loader, 1), second)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_a_last_batch_of_one_image_is_trained_on():
    """ZhangLab has 1249 = 78 · 16 + 1 normal training images."""
    sizes = [len(batch.images) for batch in loader_of(noise(1249, 4), "zhang_best").epoch(0).batches()]
    assert sizes == [16] * 78 + [1]
    for name in ("squid", "simsid"):
        method = build(name)
        before = {entry: parameter.clone() for entry, parameter in method.named_parameters()}
        losses = method.training_step(Batch.of(torch.rand(1, 1, 48, 48), 78))
        assert all(loss.isfinite() for loss in losses.values())
        moved = {entry for entry, parameter in method.named_parameters() if not torch.equal(parameter, before[entry])}
        assert {"generator.student.output.weight", "discriminator.regressor.weight"} <= moved


def test_ddad_leaves_out_a_last_batch_that_is_not_full():
    loader = loader_of(noise(100, 4), "ddad_brain_ae")
    ndm, udm, refine = loader.config.stages()
    assert [len(index) for index in loader.epoch(0, udm).indices] == [3 * 64] * 3  # of 100 + 100 images
    assert [len(index) for index in loader.epoch(0, ndm).indices] == [3 * 64]
    assert [len(index) for index in loader.epoch(0, refine).indices] == [8] * 12
    assert [len(index) for index in loader_of(noise(100, 4), "ae_brain").epoch(0).indices] == [64]


def test_chexperts_row_takes_85_batches_of_an_epoch():
    assert len(loader_of(noise(1600, 4), "chexpert_best").epoch(0)) == 85
    assert len(loader_of(noise(1600, 4), "simsid_chexpert").epoch(0)) == 100


# -- the loop ---------------------------------------------------------------------------------------------------------


class Counting(Method):
    """Its only weight is the number of batches trained; it keeps the numbers that the loop gives them."""

    score_names = ("main", "other")

    def __init__(self, config):
        super().__init__(config)
        self.batches = torch.nn.Parameter(torch.zeros(()))
        self.steps, self.seen, self.draws = [], [], []

    def step(self, batch):
        with torch.no_grad():
            self.batches += 1
        self.steps.append(batch.step)
        self.seen.append(batch.images)
        self.draws.append(torch.rand(()).item())
        return {"every": torch.tensor(1.0), **({"second": torch.tensor(3.0)} if batch.step % 2 == 0 else {})}

    def scores_of(self, images):
        score = images.mean((1, 2, 3)).double()
        return Scores(image={"main": score, "other": -score})


@pytest.fixture
def loop(workspace, monkeypatch):
    """Train for as many epochs of five batches as there are scripted AUCs of the main score; None is not validated."""

    def run(*overrides, aucs):
        config = configs.build("ae_brain", [f"epochs={len(aucs)}", "batch_size=2", *overrides])
        given = iter([auc for auc in aucs if auc is not None])
        monkeypatch.setattr("training.loop.validation_auc", lambda *_: {"other": 0.5, "main": next(given)})
        dataset = Pictures(config, noise(10, 64))
        saved = []
        with Experiment("a") as experiment:
            keep = experiment.save_checkpoint

            def noted(name, content):
                if name == "best.pt":
                    saved.append(content["epoch"])
                keep(name, content)

            monkeypatch.setattr(experiment, "save_checkpoint", noted)
            method = Counting(config)
            Trainer(
                experiment, config, method, TrainLoader(dataset, config, CPU), {"val": dataset.split("val")}, CPU
            ).train()
        best = experiment.load_checkpoint("best.pt")
        assert best["method"]["batches"] == 5 * best["epoch"], "the weights are not of the epoch that they say"
        assert best["val_auc"]["main"] == aucs[best["epoch"] - 1]
        return SimpleNamespace(saved=saved, rows=experiment.read_metrics(), method=method, best=best)

    return run


BEST = [  # rule, AUCs, the epochs after which best.pt is written
    ("best_rule=strict", [0.6, 0.8, 0.7], [1, 2]),
    ("best_rule=strict", [0.8, 0.6, 0.7], [1]),
    ("best_rule=strict", [0.7, 0.7, 0.7001], [1, 3]),  # a tie is no gain
    ("best_rule=tolerance", [0.8, 0.796, 0.7], [1, 2]),  # within half a point of the best
    ("best_rule=tolerance", [0.8, 0.794, 0.81], [1, 3]),  # beyond it
    ("best_rule=tolerance", [0.8, 0.796, 0.792], [1, 2]),  # the best stays .8: it moves upward only
    ("best_rule=tolerance", [0.7, 0.8, 0.796, 0.794, 0.7951], [1, 2, 3, 5]),
    ("best_rule=tolerance", [0.8, 0.8, 0.5], [1, 2]),
    ("best_rule=last", [0.9, 0.6, 0.7], [3]),
]


@pytest.mark.parametrize(("rule", "aucs", "saved"), BEST)
def test_which_epoch_becomes_the_best(loop, rule, aucs, saved):
    run = loop(rule, aucs=aucs)
    assert run.saved == saved and run.best["epoch"] == saved[-1]
    assert [row["val_auc"]["main"] for row in run.rows] == aucs


def test_a_drop_of_just_the_tolerance_is_too_much(loop):
    # eighths are exact in binary
    assert loop("best_rule=tolerance", "best_tolerance=12.5", aucs=[0.75, 0.625, 0.65]).saved == [1, 3]


def test_epochs_between_validations_are_never_the_best(loop):
    run = loop("best_rule=strict", "val_every=2", aucs=[None, 0.7, None, 0.6, 0.8])
    assert run.saved == [2, 5]
    assert ["val_auc" in row for row in run.rows] == [False, True, False, True, True]  # the last epoch always


def test_the_loop_counts_batches_by_epoch_and_divides_losses_by_all_of_them(loop):
    run = loop(aucs=[0.5, 0.5])
    assert run.method.steps == [0, 1, 2, 3, 4] * 2
    assert [row["losses"] for row in run.rows] == [{"every": 1.0, "second": 3 * 3 / 5}] * 2
    assert [list(row) for row in run.rows] == [["epoch", "step", "lr", "losses", "val_auc"]] * 2
    assert [(row["epoch"], row["step"]) for row in run.rows] == [(1, 5), (2, 10)]


def test_what_an_iteration_draws_follows_from_the_seed_and_is_new_at_every_iteration(loop):
    first, again, other = (loop(f"seed={seed}", aucs=[0.5, 0.5]).method.draws for seed in (0, 0, 1))
    assert first == again and len({*first, *other}) == 20


def test_validation_sees_the_images_as_they_are_and_training_the_augmented_ones(loop):
    scored = []
    original = Counting.scores_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Counting, "scores_of", lambda self, images: (scored.append(images), original(self, images))[1])
        run = loop("augment=true", aucs=[0.5, 0.5])
    raw = to_float(noise(10, 64), CPU)
    assert scored and all(torch.equal(images, raw[:2]) for images in scored)
    assert not any(torch.equal(image, other) for images in run.method.seen for image in images for other in raw)


def test_a_stepped_learning_rate_through_the_loop(workspace, monkeypatch):
    config = configs.build("ae_brain", ["epochs=4", "batch_size=2", "image_size=16", "multiplier=0.0625"])
    rates = {}
    for steps in ((), (1, 3)):
        config.lr_steps = steps
        dataset = Pictures(config, noise(4, 16))
        with Experiment(f"a{len(steps)}") as experiment:
            loader, splits = TrainLoader(dataset, config, CPU), {"val": dataset.split("val")}
            Trainer(experiment, config, METHODS["ae"](config), loader, splits, CPU).train()
        rates[steps] = [row["lr"] for row in experiment.read_metrics()]
    assert rates[()] == [5e-4] * 4 and rates[1, 3] == pytest.approx([5e-4, 1e-4, 1e-4, 2e-5])


# -- a run of SQUID, its evaluation and prediction --------------------------------------------------------------------

RUN = ["augment=true", "cosine_epochs=4", "cosine_min=1e-5"]


def quick(patch):
    """Small sets."""
    patch.delenv("ANOMALY_DATA_ROOT", raising=False)
    patch.setattr("dataloader.digit.COUNTS", {"val": 16, "test": 16})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Its folder, what splits it asked for and what it scored."""
    folder = tmp_path_factory.mktemp("run")
    splits, scored = [], []
    split, scores_of = DigitAnatomy.split, Squid.scores_of

    def noted_split(self, name):
        splits.append(name)
        return split(self, name)

    def noted_scores(self, images):
        scored.append(images)
        return scores_of(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        quick(patch)
        patch.setattr(DigitAnatomy, "split", noted_split)
        patch.setattr(Squid, "scores_of", noted_scores)
        assert train("a", overrides=[*RUN, "epochs=3"]) == 0
    return SimpleNamespace(folder=folder / "checkpoints" / "a", splits=splits, scored=scored)


@pytest.fixture
def run(trained, workspace, monkeypatch):
    """A copy of the trained experiment's folder, in a workspace of the test's own."""
    quick(monkeypatch)
    shutil.copytree(trained.folder, workspace / "checkpoints" / "a")
    return workspace / "checkpoints" / "a"


def evaluated(folder, *arguments) -> dict:
    assert command("eval", "--exp", folder.name, "--device", "cpu", *arguments) == 0
    return json.loads((folder / "results.json").read_text())


def flipped_labels(patch, which):
    """The labels of one split are the wrong way round."""
    split = DigitAnatomy.split

    def flipped(self, name):
        found = split(self, name)
        if name == which:
            found.labels = 1 - found.labels
        return found

    patch.setattr(DigitAnatomy, "split", flipped)


def highest_accuracy(labels, scores):
    """By trying every candidate: (its threshold, of equals the first from above; the accuracy)."""
    candidates = [math.inf, *sorted(set(scores.tolist()), reverse=True)]
    accuracies = [((scores >= candidate) == (labels == 1)).mean() for candidate in candidates]
    best = int(np.argmax(accuracies))
    return candidates[best], accuracies[best]


def validation_scores(folder):
    """best.pt's scores of the validation images, in evaluation mode: (checkpoint, labels, {score: values})."""
    _, config, _ = Experiment(folder.name).load_config()
    method = Squid(config)
    checkpoint = Experiment(folder.name).load_weights("best", method)
    split = build_dataset(config).split("val")
    found = method.score(to_float(split.images, CPU)).image
    return checkpoint, split.labels.numpy(), {name: values.numpy() for name, values in found.items()}


def test_the_cosine_is_stepped_by_the_loop_for_the_generator_alone(trained):
    rows = [json.loads(line) for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    cosine = [1e-5 + (2e-4 - 1e-5) * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert [row["lr"] for row in rows] == pytest.approx(cosine[:3])
    optimizers = torch.load(trained.folder / "last.pt", weights_only=True)["optimizers"]
    rates = {name: state["param_groups"][0]["lr"] for name, state in optimizers.items()}
    assert rates == {"generator": pytest.approx(cosine[3]), "discriminator": 2e-4}


def test_training_never_looks_at_the_test_images(trained):
    assert set(trained.splits) == {"val"}


def test_a_run_in_two_sittings_is_the_run_never_stopped(run):
    for epochs in (1, 3):
        assert train("b", overrides=[*RUN, f"epochs={epochs}"]) == 0
    assert_same_run(run.parent / "b", run)


def test_validation_is_not_augmented(trained, run):
    images = to_float(build_dataset(Experiment("a").load_config()[1]).split("val").images, CPU)
    assert trained.scored
    for batch in trained.scored:
        assert all(any(torch.equal(image, other) for other in images) for image in batch)


def test_evaluation_and_prediction_do_not_augment(run, workspace, monkeypatch):
    for name in ("affine", "draw_affine"):
        monkeypatch.setattr(f"dataloader.loader.{name}", lambda *_: pytest.fail("augmented"))
    assert evaluated(run)["split"] == "test"
    Image.fromarray(noise(1, 48)[0].numpy()).save(workspace / "x.png")
    assert command("predict", "--exp", "a", "--device", "cpu", workspace / "x.png") == 0


def test_the_thresholds_of_best_are_of_its_validation_scores(run):
    checkpoint, labels, scores = validation_scores(run)
    assert set(checkpoint["val_thresholds"]) == set(scores) == {"discriminator", "reconstruction"}
    for name, values in scores.items():
        expected, _ = highest_accuracy(labels, values)
        assert checkpoint["val_thresholds"][name] == pytest.approx(expected, rel=1e-6), name


def test_the_best_checkpoint_is_evaluated_and_predicts(run, workspace):
    (run / "last.pt").unlink()
    results = evaluated(run)
    assert (results["checkpoint"], results["epoch"]) == ("best", Experiment("a").load_checkpoint("best.pt")["epoch"])
    Image.fromarray(noise(1, 48)[0].numpy()).save(workspace / "x.png")
    assert command("predict", "--exp", "a", "--device", "cpu", workspace / "x.png") == 0


def test_thresholds_called_validation_do_not_know_the_test_labels(run, monkeypatch):
    def thresholds(which):
        return {name: of[which]["threshold"] for name, of in results["scores"].items()}

    results = evaluated(run)
    validation, oracle = thresholds("at_val_threshold"), thresholds("at_oracle_threshold")
    assert validation == torch.load(run / "best.pt", weights_only=True)["val_thresholds"]
    with monkeypatch.context() as patch:
        flipped_labels(patch, "test")
        results = evaluated(run)
    assert thresholds("at_val_threshold") == validation
    assert all(value != oracle[name] for name, value in thresholds("at_oracle_threshold").items())
    with monkeypatch.context() as patch:
        flipped_labels(patch, "val")
        results = evaluated(run)
    assert thresholds("at_oracle_threshold") == oracle
    assert all(value != validation[name] for name, value in thresholds("at_val_threshold").items())


def test_other_validation_labels_give_other_thresholds_in_training(run, monkeypatch):
    settings = ["epochs=1", "val_every=1"]
    assert train("b", overrides=settings) == 0
    with monkeypatch.context() as patch:
        flipped_labels(patch, "val")
        assert train("c", overrides=settings) == 0
    plain, flipped = (torch.load(run.parent / name / "best.pt", weights_only=True) for name in "bc")
    assert all(torch.equal(value, flipped["method"][entry]) for entry, value in plain["method"].items())
    for name, threshold in plain["val_thresholds"].items():
        assert threshold != flipped["val_thresholds"][name]
        assert plain["val_auc"][name] == pytest.approx(1 - flipped["val_auc"][name])


def test_prediction_calls_anomalous_what_reaches_bests_validation_threshold(run, workspace):
    for i in range(6):
        Image.fromarray(noise(1, 48, i)[0].numpy() // (i + 1)).save(workspace / f"{i}.png")
    paths = [workspace / f"{i}.png" for i in range(6)]

    def predicted():
        assert command("predict", "--exp", "a", "--device", "cpu", *paths, "--csv", workspace / "out.csv") == 0
        with open(workspace / "out.csv") as file:
            return list(csv.DictReader(file))

    saved = torch.load(run / "best.pt", weights_only=True)
    scores = sorted(float(row["reconstruction"]) for row in predicted())
    assert len(set(scores)) == 6
    for threshold in ((scores[1] + scores[2]) / 2, (scores[4] + scores[5]) / 2):
        saved["val_thresholds"] = {"reconstruction": threshold, "discriminator": -math.inf}
        torch.save(saved, run / "best.pt")
        for row in predicted():
            assert row["anomalous_at_val_threshold"] == str(int(float(row["reconstruction"]) >= threshold))


def test_prediction_reads_files_with_the_rows_filter(run, workspace):
    Image.fromarray(noise(1, 90)[0].numpy()).save(workspace / "x.png")
    command("predict", "--exp", "a", "--device", "cpu", workspace / "x.png", "--csv", workspace / "out.csv")
    with open(workspace / "out.csv") as file:
        (row,) = csv.DictReader(file)
    _, config, _ = Experiment("a").load_config()
    method = Squid(config)
    Experiment("a").load_weights("best", method)
    errors = {}
    for name in ("BICUBIC", "BILINEAR"):
        pixels = np.array(Image.open(workspace / "x.png").resize((48, 48), Image.Resampling[name]))
        errors[name] = method.score(to_float(torch.from_numpy(pixels)[None], CPU)).image["reconstruction"].item()
    assert config.resize == "bicubic" and errors["BICUBIC"] != pytest.approx(errors["BILINEAR"], rel=1e-3)
    assert float(row["reconstruction"]) == pytest.approx(errors["BICUBIC"], rel=1e-6)


def test_the_figures_follow_from_the_table_of_scores(run):
    results = evaluated(run)
    with open(run / "scores.csv") as file:
        table = list(csv.DictReader(file))
    labels = np.array([int(row["label"]) for row in table])
    assert labels.sum() == 16 and len(labels) == 32
    for name, found in results["scores"].items():
        scores = np.array([float(row[name]) for row in table])
        pairs = np.sign(scores[labels == 1][:, None] - scores[labels == 0])  # in order, tied, the wrong way round
        assert found["auc"] == pytest.approx((pairs + 1).mean() / 2)
        ranked = labels[np.argsort(-scores)]
        precision = ranked.cumsum() / np.arange(1, 33)
        assert found["average_precision"] == pytest.approx(precision[ranked == 1].mean())
        for which in ("at_val_threshold", "at_oracle_threshold"):
            at = found[which]
            called = scores >= float(at["threshold"]) - 1e-7 * abs(float(at["threshold"]))  # nine digits are kept
            assert at["accuracy"] == (called == (labels == 1)).mean()
            assert at["recall"] == called[labels == 1].mean() and at["specificity"] == 1 - called[labels == 0].mean()
        assert found["at_oracle_threshold"]["accuracy"] == highest_accuracy(labels, scores)[1]


def test_the_interval_holds_95_percent_of_resampled_figures():
    rng = np.random.default_rng(3)
    normal, anomalous = rng.normal(0, 1, 60), rng.normal(1, 1, 60)
    pairs = (np.sign(anomalous[:, None] - normal) + 1) / 2
    drawn = rng.integers(60, size=(4000, 2, 60))
    resampled = np.array([pairs[np.ix_(*rows)].mean() for rows in drawn])
    low, high = auc_interval(np.repeat([0, 1], 60), np.concatenate([normal, anomalous]))
    assert np.mean(resampled < low) == pytest.approx(0.025, abs=0.01)
    assert np.mean(resampled > high) == pytest.approx(0.025, abs=0.01)


# -- score statistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "epsilon"), [("squid", 0.0), ("simsid", 1e-8)])
def test_mu_and_sigma_are_of_the_first_training_images_alone(name, epsilon):
    method = build(name, "statistics_images=11")
    torch.manual_seed(3)
    method.training_step(Batch.of(torch.rand(8, 1, 48, 48)))  # the running statistics have moved
    images = noise(20, 48)
    loader = TrainLoader(Pictures(method.config, images), method.config, CPU)
    method.double()
    loader.in_order = lambda *which, given=loader.in_order: [batch.double() for batch in given(*which)]
    method.fit(loader)
    with torch.no_grad():
        x = method.to_network(to_float(images[:11], CPU).double())
        x_hat = method.generator.eval()(x).x_hat
        judge = copy.deepcopy(method.discriminator).train()  # as the released program: one image at a time
        logits = [judge(image.unsqueeze(0)).item() for image in x_hat]
    assert method.mu.item() == pytest.approx(np.mean(logits), rel=1e-6)
    assert method.sigma.item() - np.std(logits) == pytest.approx(epsilon, abs=1e-10)
    scores = method.score(to_float(images[:4], CPU).double())
    standard = (np.array(logits[:4]) - np.mean(logits)) / np.std(logits)  # high is normal
    np.testing.assert_allclose(scores.image["discriminator"], -standard, rtol=1e-4)
    np.testing.assert_allclose(scores.shown["discriminator"], 1 - 1 / (1 + np.exp(-standard)), rtol=1e-4)


# -- turns, masks, queue and losses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_critic"), [("squid", 1), ("squid", 2), ("squid", 3), ("simsid", 2)])
def test_the_generator_steps_at_every_nth_batch_and_then_the_queue_is_filled(name, n_critic, monkeypatch):
    method = build(name, f"n_critic={n_critic}")
    events = []

    def note(owner, attribute, what):
        original = getattr(owner, attribute)
        monkeypatch.setattr(owner, attribute, lambda *a, **k: (events.append(what), original(*a, **k))[1])

    for player in ("discriminator", "generator"):
        note(method.optimizers[player], "step", player)
    memory = method.generator.inpaint.memory
    note(memory, "enqueue", "queue")
    images = torch.rand(3, 1, 48, 48)
    for step in range(7):
        events.clear()
        slots, pointer = memory.slots.clone(), int(memory.pointer)
        losses = method.training_step(Batch.of(images, step))
        turn = step % n_critic == 0
        assert events == (["discriminator", "generator", "queue"] if turn else ["discriminator"]), step
        assert ("generator" in losses) == turn
        assert int(memory.pointer) == (pointer + 3 * turn) % 16
        changed = (memory.slots != slots).any(-1).nonzero()[:, 1].unique().tolist()
        assert changed == (sorted((pointer + i) % 16 for i in range(3)) if turn else [])


@pytest.mark.parametrize("ratio", [0.95, 0.5])
def test_shortcuts_pass_a_share_of_the_positions_in_training_and_none_in_evaluation(ratio):
    method = build("squid", f"mask_ratio={ratio}")
    seen = []
    shortcuts = [module for module in method.generator.modules() if isinstance(module, MaskedShortcut)]
    assert len(shortcuts) == 3
    for shortcut in shortcuts:
        shortcut.register_forward_hook(lambda module, inputs, out: seen.append((*inputs, out)))
    with torch.no_grad():
        method.generator.train()(torch.rand(24, 1, 48, 48))
    for replaced, x, out in seen:
        took = (out == replaced).all(1)  # (N, h, w): all channels of a position go the same way
        assert torch.equal(torch.where(took.unsqueeze(1), replaced, x), out)
        assert abs(took.double().mean() - ratio) < 5 * math.sqrt(ratio * (1 - ratio) / took.numel())
        for dim in ((1, 2), (0, 2), (0, 1)):  # drawn anew for every map, row and column
            assert took.double().mean(dim).var() > 0
    seen.clear()
    with torch.no_grad():
        method.generator.eval()(torch.rand(2, 1, 48, 48))
    assert len(seen) == 3 and all(torch.equal(out, replaced) for replaced, _, out in seen)


TERMS = {"recon_weight": "reconstruction", "teacher_weight": "teacher", "distill_weight": "distillation",
         "adversarial_weight": "adversarial", "discriminator_weight": "discriminator"}  # fmt: skip


@pytest.mark.parametrize("name", ["squid", "simsid"])
def test_every_loss_has_its_own_weight_and_the_generators_loss_is_their_sum(name):
    def losses(*overrides):
        method = build(name, *overrides)
        torch.manual_seed(1)
        return method.training_step(Batch.of(torch.rand(4, 1, 48, 48)))

    plain = losses()
    summed = sum(plain[term] for term in TERMS.values() if term != "discriminator")
    torch.testing.assert_close(plain["generator"], summed)
    weights = vars(configs.build(TINY[name][0], TINY[name][1]))
    for weight, term in TERMS.items():
        doubled = losses(f"{weight}={2 * weights[weight]}")
        for other in TERMS.values():
            torch.testing.assert_close(doubled[other], plain[other] * (2 if other == term else 1), rtol=1e-3, atol=0)


# -- the refinement ---------------------------------------------------------------------------------------------------


def test_the_refinement_steps_as_a_plainly_written_adam():
    method = build("ddad", "image_size=16").double()
    method.start_stage("refine")
    parameters = dict(method.refinement.named_parameters())
    value = {name: p.detach().clone() for name, p in parameters.items()}
    m, v = ({name: torch.zeros_like(p) for name, p in parameters.items()} for _ in range(2))
    for t in range(1, 5):
        images = torch.rand(4, 1, 16, 16, dtype=torch.float64)
        judge = copy.deepcopy(method)
        judge.eval()
        torch.manual_seed(t)
        sum(judge.refinement_losses(2 * images - 1).values()).backward()
        for name, parameter in judge.refinement.named_parameters():
            gradient = parameter.grad + 1e-4 * value[name]  # weight decay by L2: it passes through the moments
            m[name] = 0.5 * m[name] + 0.5 * gradient
            v[name] = 0.999 * v[name] + 0.001 * gradient**2
            m_hat, v_hat = m[name] / (1 - 0.5**t), v[name] / (1 - 0.999**t)
            value[name] = value[name] - 1e-4 * m_hat / (v_hat.sqrt() + 1e-8)
        torch.manual_seed(t)
        method.training_step(Batch.of(images, t - 1))
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter.detach(), value[name], rtol=1e-9, atol=1e-12)


def test_half_of_the_refinements_images_have_a_square_of_another():
    torch.manual_seed(0)
    x = torch.rand(3000, 1, 16, 16)
    blended, mask = with_squares(x)
    has = mask.flatten(1).any(1)
    assert abs(has.double().mean() - 0.5) < 5 * math.sqrt(0.25 / 3000)
    assert torch.equal(blended[~has], x[~has]) and torch.equal(blended[:, 0][mask == 0], x[:, 0][mask == 0])
    assert (blended[:, 0][mask == 1] != x[:, 0][mask == 1]).double().mean() > 0.99


def test_each_stage_is_trained_on_its_own_images():
    loader = loader_of(noise(100, 4), "ddad_brain_ae")
    ndm, udm, refine = loader.config.stages()
    assert [len(loader.epoch(0, stage).images) for stage in (udm, ndm, refine)] == [200, 100, 100]
