"""Thresholds of held-out normal images: p-values, their files, and what eval.py and predict.py make of them."""

import csv
import hashlib
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_folder import write
from test_medad import change, dataset, make_medad
from tiny import SMALL, TINY, command

import configs
from dataloader import DataError, build_dataset
from evaluation import metrics, normals, report
from evaluation.metrics import sensitivity_at
from experiments.folder import Experiment, ExperimentError


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(path.read_text())


# -- arithmetic -------------------------------------------------------------------------------------------------------


def test_p_values_are_worked_out_by_hand():
    found = normals.p_values(np.array([0.0, 1.0, 2.0, 2.5, 3.0, 9.0]), np.array([3.0, 1.0, 2.0, 2.0]))
    assert found.tolist() == [5 / 5, 5 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5]  # 4, 4, 3, 1, 1 and none as high
    assert normals.p_values(np.array([0.0, 9.0]), np.array([])).tolist() == [1, 1]


def test_the_threshold_is_just_above_the_kth_highest():
    nineteen = np.arange(19.0)[::-1]
    assert normals.threshold(nineteen, 0.05) == np.nextafter(18.0, math.inf)  # k = 1
    assert normals.threshold(nineteen, 0.0999) == np.nextafter(18.0, math.inf)
    assert normals.threshold(nineteen, 0.1) == np.nextafter(17.0, math.inf)  # k = 2
    assert normals.threshold(nineteen, 0.95) == np.nextafter(0.0, math.inf)  # all of them
    assert normals.threshold(np.array([1.0, 7, 7, 7]), 0.4) == np.nextafter(7.0, math.inf)  # a tie is no alarm
    assert normals.threshold(np.array([1.0, 7, 7, 7]), 0.8) == np.nextafter(1.0, math.inf)


@pytest.mark.parametrize(("rate", "needed"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.07, 14), (0.5, 1), (1 / 49, 48)])
def test_too_few_normal_images_call_nothing_anomalous_and_say_so(rate, needed):
    assert normals.threshold(np.zeros(needed - 1), rate) == math.inf
    assert normals.threshold(np.zeros(needed), rate) < 1
    assert f"it takes at least {needed}, and nothing" in normals.too_few(needed - 1, rate)
    assert normals.too_few(needed, rate) == ""


def test_reaching_the_threshold_is_a_p_value_of_at_most_the_rate():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n = int(rng.integers(0, 120))
        own, scores = rng.normal(size=n).round(1), rng.normal(size=200).round(1)  # with ties
        rate = rng.choice([rng.uniform(), rng.integers(1, 100) / 100, rng.integers(1, n + 2) / (n + 2)])
        reached = scores >= normals.threshold(own, rate)
        assert np.array_equal(reached, normals.p_values(scores, own) <= rate), (n, rate)


def test_the_rate_holds_over_draws_of_all_images():
    rng = np.random.default_rng(1)
    drawn = rng.exponential(size=(20000, 40))
    alarms = np.mean([own[0] >= normals.threshold(own[1:], 0.1) for own in drawn])
    assert alarms == pytest.approx(0.1, abs=0.007)  # k / (n + 1) = 4 / 40; three deviations


def test_figures_at_the_threshold():
    labels, scores = np.array([0] * 8 + [1] * 4), np.array([0, 0, 0, 0, 0, 0, 20, 30, 0, 40, 50, 60.0])
    found = normals.figures(labels, scores, np.arange(19.0), 0.05)
    low, high = found.pop("false_alarm_rate_ci95")
    assert found == pytest.approx(
        {"threshold": 18.0, "false_alarms": 0.05, "normals": 19, "accuracy": 9 / 12, "f1": 6 / 9, "recall": 3 / 4,
         "precision": 3 / 5, "specificity": 6 / 8, "false_alarm_rate": 2 / 8},
    )  # fmt: skip
    # Clopper and Pearson: of 8 draws, 2 or more at low, and 2 or fewer at high, have a chance of 2.5 %
    assert 1 - (1 - low) ** 8 - 8 * low * (1 - low) ** 7 == pytest.approx(0.025)
    at_high = [math.comb(8, i) * high**i * (1 - high) ** (8 - i) for i in range(3)]
    assert sum(at_high) == pytest.approx(0.025)


def test_figures_of_one_class_and_of_too_few_are_those_that_there_are():
    scores, own = np.array([0.0, 5.0, 20.0, 30.0]), np.arange(19.0)
    normal, anomalous = (normals.figures(np.full(4, label), scores, own, 0.05) for label in (0, 1))
    assert normal.keys() - anomalous.keys() == {"specificity", "false_alarm_rate", "false_alarm_rate_ci95"}
    assert anomalous.keys() - normal.keys() == {"recall"} and anomalous["recall"] == normal["false_alarm_rate"] == 0.5
    few = normals.figures(np.array([0, 0, 1, 1]), scores, own[:18], 0.05)
    assert (few["threshold"], few["recall"], few["false_alarm_rate"], few["normals"]) == ("inf", 0, 0, 18)
    json.dumps(few, allow_nan=False)
    assert "18 held-out normal images are too few for 5 % false alarms" in report.normals_line(few)


def test_sensitivity_at_a_specificity():
    labels = np.repeat([0, 1], 20)
    scores = np.concatenate([np.arange(20.0), np.repeat([18.5, 3.0], 10)])
    assert sensitivity_at(0.95, labels, scores) == 0.5  # one normal image of 20 above 18.5
    scores[18] = 30
    assert sensitivity_at(0.95, labels, scores) == 0 and sensitivity_at(0.9, labels, scores) == 0.5
    assert metrics.evaluate(labels, scores, ["a"] * 40)["sensitivity_at_95_specificity"] == 0


# -- the file ---------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_of_these_weights_alone(workspace):
    experiment = Experiment("a")
    assert normals.read(experiment, "best", 3, "fp32") is None
    normals.write(experiment, {"x": np.array([3.0, 0.1 + 0.2, 2.0])}, "best", 3, "fp32")
    assert normals.read(experiment, "best", 3, "fp32")["x"].tolist() == [0.1 + 0.2, 2.0, 3.0]
    for other in (("last", 3, "fp32"), ("best", 4, "fp32"), ("best", 3, "bf16")):
        assert normals.read(experiment, *other) is None
    for damaged in ("{", "[]", "{}", '{"checkpoint": "best", "epoch": 3, "precision": "fp32", "scores": {"x": ["y"]}}'):
        experiment.path("normals.json").write_text(damaged)
        with pytest.raises(ExperimentError, match="normals.json: not what eval.py writes.*python eval.py --exp a"):
            normals.read(experiment, "best", 3, "fp32")


# -- Med-AD -----------------------------------------------------------------------------------------------------------


def test_of_med_ad_normal_training_images_can_be_held_out(tmp_path):
    make_medad(tmp_path)
    whole, less = dataset(tmp_path), dataset(tmp_path, "held_out=0.25")
    names = {data: {split: [i.path.name for i in data.items[split]] for split in data.items} for data in (whole, less)}
    held = names[less]["val"]
    assert not whole.has_held_out and names[whole]["val"] == [] and less.has_held_out and not less.has_validation
    assert len(held) == 3 and names[less]["train"] == [n for n in names[whole]["train"] if n not in held]
    for split in ("unlabeled", "test"):
        assert names[less][split] == names[whole][split]
    by_hash = sorted(names[whole]["train"], key=lambda n: digest(f"held out\nimages/{n}"))
    assert sorted(held) == sorted(by_hash[:3])
    val = less.split("val")
    assert val.in_words() == "3 normal, 0 anomalous" and val.persons is None
    assert less.training_in_words().startswith("9 normal, 0 anomalous; unlabeled: 4 normal")
    assert dataset(tmp_path, "held_out=0.25", "seed=5").split("val").ids == val.ids
    with pytest.raises(DataError, match=r"--split val is not there. To hold normal images out .* held_out=0.2"):
        whole.split("val")
    change(tmp_path, lambda content: content["train"].update({"0": content["train"]["0"][:1]}))
    with pytest.raises(DataError, match="some are held out"):
        _ = dataset(tmp_path, "held_out=0.25").items


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_without_held_out_images_a_med_ad_fingerprint_is_what_it_was(tmp_path):
    content = make_medad(tmp_path)
    unlabeled = content["train"]["unlabeled"]
    files = [(name, 0) for name in content["train"]["0"] + unlabeled["0"][:4]] + [(n, 1) for n in unlabeled["1"][:4]]
    lines = [f"{name} {(tmp_path / 'images' / name).stat().st_size} {label}" for name, label in files]
    assert dataset(tmp_path).fingerprint() == digest("\n".join(lines))
    assert dataset(tmp_path, "held_out=0.25").fingerprint() != dataset(tmp_path).fingerprint()


def test_an_older_med_ad_experiment_held_nothing_out():
    config = configs.build("ae_brain")
    older = {key: value for key, value in config.as_dict().items() if key != "held_out"}
    assert configs.from_dict(older).as_dict() == config.as_dict() and config.held_out == 0
    assert configs.override(configs.build("ae_brain"), ["dataset=zhang"]).dataset == "zhang"
    with pytest.raises(configs.ConfigError, match="held_out = 0.6"):
        configs.build("ae_brain", ["held_out=0.6"])
    with pytest.raises(configs.ConfigError, match="held_out is a setting of dataset = folder, rsna, vindr, brain, lag"):
        configs.build("zhang_best", ["held_out=0.2"])


def test_held_out_images_of_med_ad_give_a_threshold(workspace, capsys):
    content = make_medad(workspace / "d", {"train": {"0": 40, "unlabeled": {"0": 1, "1": 1}}, "test": {"0": 6, "1": 6}})
    settings = [*SMALL, "batch_size=4", "epochs=1"]
    for exp, more in (("plain", []), ("held", ["held_out=0.5"])):
        assert command("main", "--exp", exp, "--config", "ae_brain", "--data-root", "d", "--device", "cpu", "--set",
                       *settings, *more) == 0  # fmt: skip
        assert "no validation set with anomalous images" in capsys.readouterr().out
        assert command("eval", "--exp", exp, "--device", "cpu") == 0
        said = capsys.readouterr().out
        folder = workspace / "checkpoints" / exp
        results = read_json(folder / "results.json")
        if exp == "plain":
            assert "No normal images are held out" in said and "train with --set held_out=0.2" in said
            assert not (folder / "normals.json").exists()
            assert "at_normals_threshold" not in results["scores"]["reconstruction"]
            continue
        assert "threshold of normals alone: recall" in said and "(for 5 % by 20 normal images)" in said
        assert "Written: results.json, scores.csv, normals.json, figures/ and index.html" in said
        at = results["scores"]["reconstruction"]["at_normals_threshold"]
        kept = read_json(folder / "normals.json")
        assert (kept["checkpoint"], kept["epoch"], kept["precision"], at["normals"]) == ("best", 1, "fp32", 20)
        assert at["threshold"] == np.nextafter(kept["scores"]["reconstruction"][-1], math.inf)
        assert command("eval", "--exp", exp, "--device", "cpu", "--split", "val") == 0
        assert "is of these very images, so there are no figures at it" in capsys.readouterr().out
        assert read_json(folder / "normals.json") == kept
    held = build_dataset(configs.build("ae_brain", [*settings, "held_out=0.5"]), "d").split("val").ids
    assert len(held) == 20 and {name.removeprefix("images/") for name in held} <= set(content["train"]["0"])


# -- evaluation and prediction ----------------------------------------------------------------------------------------


def test_predict_takes_the_threshold_that_eval_took(workspace, trained, capsys):
    folder = trained("a", "ae")
    config = configs.build(*TINY["ae"])
    files = {}
    for name in ("val", "test"):
        split = build_dataset(config).split(name)
        files[name] = [workspace / "in" / f"{i}.png" for i in split.ids]
        files[name][0].parent.mkdir(parents=True)
        for file, image in zip(files[name], split.images.numpy(), strict=True):
            Image.fromarray(image).save(file)

    def predict(*arguments, of="test"):
        assert command("predict", "--exp", "a", "--device", "cpu", *files[of], "--csv", "p.csv", *arguments) == 0
        return read_csv(workspace / "p.csv"), capsys.readouterr().err

    table, said = predict()
    assert "p_value" not in table[0]
    assert "note: no p-values: python eval.py --exp a keeps the scores of held-out normal images" in said
    assert "python eval.py --exp a --precision bf16 keeps" in predict("--precision", "bf16")[1]
    assert command("eval", "--exp", "a", "--device", "cpu", "--false-alarms", "0.2") == 0
    at = read_json(folder / "results.json")["scores"]["reconstruction"]["at_normals_threshold"]
    own = read_json(folder / "normals.json")["scores"]["reconstruction"]
    assert at["normals"] == len(own) == 16 and at["threshold"] == np.nextafter(own[-3], math.inf)  # ⌊0.2 · 17⌋ = 3

    table, said = predict("--false-alarms", "0.2")
    assert "no p-values" not in said
    assert list(table[0])[-3:] == ["anomalous_at_val_threshold", "p_value", "anomalous_at_normals_threshold"]
    called = [row["anomalous_at_normals_threshold"] == "1" for row in table]
    assert np.mean(called[:16]) == at["false_alarm_rate"] == 1 - at["specificity"]
    assert np.mean(called[16:]) == at["recall"]
    for row, is_called in zip(table, called, strict=True):
        as_high = sum(score >= float(row["reconstruction"]) for score in own)
        assert float(row["p_value"]) == pytest.approx((1 + as_high) / 17) and is_called == (as_high < 3)
    kept = [float(row["reconstruction"]) for row in predict(of="val")[0][:16]]
    assert sorted(kept) == pytest.approx(own, rel=1e-8)

    table, said = predict("--false-alarms", "0.05")
    assert "16 held-out normal images are too few for 5 % false alarms: it takes at least 19" in said
    assert "p_value" in table[0] and "anomalous_at_normals_threshold" not in table[0]
    assert "p_value" not in predict("--checkpoint", "last")[0][0]  # whose scores were not kept
    assert "python eval.py --exp a --checkpoint last" in predict("--checkpoint", "last")[1]
    assert command("eval", "--exp", "a", "--device", "cpu", "--split", "val", "--checkpoint", "last") == 0
    assert "p_value" in predict("--checkpoint", "last")[0][0] and "p_value" not in predict()[0][0]


def test_weights_of_within_an_epoch_have_no_p_values(workspace, trained, capsys):
    folder = trained("a")
    assert command("eval", "--exp", "a", "--device", "cpu", "--checkpoint", "last") == 0
    Image.fromarray(np.zeros((48, 48), np.uint8)).save("x.png")
    given = ["--exp", "a", "--device", "cpu", "--checkpoint", "last", "x.png"]
    capsys.readouterr()
    assert command("predict", *given) == 0 and "p_value" in capsys.readouterr().out
    last = torch.load(folder / "last.pt", weights_only=True)
    torch.save(last | {"position": last["position"] | {"batch": 1}}, folder / "last.pt")
    assert command("predict", *given) == 0
    out, err = capsys.readouterr()
    assert "p_value" not in out and "no p-values: the weights are of within an epoch" in err


def test_scores_of_other_weights_or_data_are_not_kept(workspace, trained):
    folder = trained("a")
    assert command("eval", "--exp", "a", "--device", "cpu", "--reestimate-batch-norm") == 0
    assert not (folder / "normals.json").exists()
    saved = read_json(folder / "config.json")
    saved["settings"]["data_root"] = str(workspace)
    (folder / "config.json").write_text(json.dumps(saved | {"data": "another"}))
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert not (folder / "normals.json").exists()
    results = read_json(folder / "results.json")
    assert results["trained_on"] == "another" != results["data"]
    assert not any("at_normals_threshold" in figures for figures in results["scores"].values())


def test_normal_images_alone_give_p_values(workspace):
    for i in range(10):
        write(workspace / "mine" / f"{i}.png", i)
    assert command("main", "--exp", "a", "--config", "ae", "--device", "cpu", "--data-root", "mine", "--set", *SMALL,
                   "dataset=folder", "epochs=1", "batch_size=4", "held_out=0.2") == 0  # fmt: skip
    assert command("eval", "--exp", "a", "--device", "cpu") == 0  # of the held-out images, of normal ones alone
    assert len(read_json(workspace / "checkpoints" / "a" / "normals.json")["scores"]["reconstruction"]) == 2
    assert command("predict", "--exp", "a", "--device", "cpu", "mine/0.png", "--csv", "p.csv") == 0
    (row,) = read_csv(workspace / "p.csv")
    assert float(row["p_value"]) in (1, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert not any(column.startswith("anomalous_at") for column in row)


@pytest.mark.parametrize("rate", ["0", "1", "-0.1", "nan", "five"])
@pytest.mark.parametrize("name", ["eval", "predict"])
def test_a_rate_that_is_none_is_refused(workspace, capsys, name, rate):
    paths = ["x.png"] if name == "predict" else []
    assert command(name, "--exp", "a", *paths, f"--false-alarms={rate}") == 2
    assert f"'{rate}': must be a number between 0 and 1, such as 0.05 for 5 %" in capsys.readouterr().err
