"""Tables from evaluated experiments: what results.json and results.csv hold, what is averaged, what stands beside."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from tiny import command, train

import configs
from configs import Stage
from evaluation import report
from experiments.folder import Experiment
from tools import make_tables
from tools.results import RESULTS

KEYS = [
    "experiment", "config", "method", "dataset", "data", "data_set", "trained_on", "seed", "settings", "pretrained",
    "checkpoint", "epochs", "epochs_trained", "epoch", "stages_planned", "stages_trained", "stages",
    "training_seconds", "trained", "precision", "split", "images", "main_score", "classes", "interval", "scores",
    "localisation", "pixel_images",
    "commit", "python", "torch", "device", "packages",
]  # fmt: skip
HEADER = (
    "experiment,config,method,dataset,data,data_set,trained_on,seed,settings,pretrained,precision,epochs,epochs_trained,checkpoint,epoch,"
    "stages_planned,stages_trained,stages,training_seconds,split,normal,anomalous,prevalence,score,main,auc,auc_low,"
    "auc_high,interval,average_precision,accuracy_at_val_threshold,f1_at_val_threshold,accuracy_at_oracle_threshold,"
    "f1_at_oracle_threshold,per_kind_auc,val_auc_per_epoch,trained_commit,trained_device,trained_precision,"
    "commit,torch,device"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of an experiment of two epochs, evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("dataloader.digit.COUNTS", {"val": 16, "test": 16})
        assert train("a", "--set", "dropout=0.1") == 0
        assert command("eval", "--exp", "a") == 0
    return folder / "checkpoints" / "a"


@pytest.fixture
def experiment(workspace, trained):
    """A copy of it, named as asked, with entries of its results.json replaced (None: as they are)."""

    def make(name="a", **changes):
        folder = workspace / "checkpoints" / name
        shutil.copytree(trained, folder)
        results = json.loads((folder / "results.json").read_text()) | {"experiment": name} | changes
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return make


def tabulate(*names):
    return command("make_tables", *names, module=make_tables)


def rows_of_table(score="reconstruction"):
    return [row for row in make_tables.read_table(RESULTS / "results.csv") if row["score"] == score]


def lines(heading):
    """A section's table in tables.md: a dict per line; of equal headings the last counts."""
    section = (RESULTS / "tables.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    header, _, *body = [
        [cell.replace(r"\|", "|") for cell in line[2:-2].split(" | ")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    assert all(len(cells) == len(header) for cells in body)
    return [dict(zip(header, cells, strict=True)) for cells in body]


def measured(score="reconstruction (main)"):
    return [line for line in lines("Measured") if line["score"] == score]


def test_what_results_json_holds(trained):
    results = json.loads((trained / "results.json").read_text())
    assert list(results) == KEYS
    assert list(results["scores"]["reconstruction"]) == [
        "auc", "auc_ci95", "average_precision", "chi2_distance", "sensitivity_at_95_specificity", "at_oracle_threshold",
        "at_val_threshold", "per_kind", "at_normals_threshold",
    ]  # fmt: skip
    assert results["classes"] == {"normal": 16, "anomalous": 16}
    assert results["stages_planned"] == results["stages_trained"] == {"train": 2}
    last = torch.load(trained / "last.pt", weights_only=True)
    assert results["epochs_trained"] == 2 and results["training_seconds"] == last["seconds"]


def test_what_is_not_alike_is_not_averaged(experiment):
    commits = [{"commit": "abc", "device": "cpu", "precision": "fp32"}]
    experiment("a", trained=commits)
    experiment("b", trained=commits, seed=1)
    experiment("again", trained=commits, seed=1)  # the same seed: no spread over seeds
    experiment("bf16", trained=[commits[0] | {"precision": "bf16"}], seed=2)
    experiment("drawn", trained=commits, seed=3, data="x", trained_on="x")  # of the same data set, by another seed
    experiment("elsewhere", trained=commits, seed=4, data="x")  # evaluated on what it was not trained on
    experiment("other", trained=commits, seed=5, data_set="y")
    for name, seed, commit in (("c", 6, "abc-dirty"), ("d", 7, "abc-dirty"), ("e", 8, "unknown"), ("f", 9, "unknown")):
        experiment(name, trained=[commits[0] | {"commit": commit}], seed=seed)
    assert tabulate("a", "b", "again", "bf16", "drawn", "elsewhere", "other", "c", "d", "e", "f") == 0
    assert sorted(line["seeds"] for line in measured()) == ["0, 1, 3", "1", "2", "4", "5", "6", "7", "8", "9"]
    assert {line["in"] for line in measured()} == {"fp32"}


def test_the_curve_of_validation_is_not_that_of_an_evaluation_with_other_settings(experiment):
    experiment("a")
    settings = json.loads(Path("checkpoints/a/results.json").read_text())["settings"]
    experiment("b", settings=[*settings, "reestimate_batch_norm: false → true"])
    assert tabulate("a", "b") == 0
    assert len(lines("Validation AUC per epoch")) == 2 and rows_of_table()[1]["val_auc_per_epoch"] == {}


def test_the_validation_threshold_is_of_the_validation_images_alone(experiment, monkeypatch):
    monkeypatch.setattr("dataloader.digit.COUNTS", {"val": 16, "test": 16})
    folder = experiment()
    on_test = json.loads((folder / "results.json").read_text())["scores"]
    assert command("eval", "--exp", "a", "--split", "val") == 0
    on_val = json.loads((folder / "results.json").read_text())["scores"]
    for score, figures in on_test.items():
        assert figures["at_val_threshold"]["threshold"] == on_val[score]["at_oracle_threshold"]["threshold"]


def test_what_results_csv_holds(experiment):
    experiment()
    assert tabulate("a") == 0
    text = (RESULTS / "results.csv").read_text()
    assert text.splitlines()[0] == HEADER
    results = json.loads(Path("checkpoints/a/results.json").read_text())
    figures = results["scores"]["reconstruction"]
    (row,) = [row for row in csv.DictReader(text.splitlines()) if row["score"] == "reconstruction"]
    for column, value in {
        "auc": figures["auc"],
        "auc_low": figures["auc_ci95"][0],
        "f1_at_val_threshold": figures["at_val_threshold"]["f1"],
        "training_seconds": results["training_seconds"],
        "prevalence": 0.5,
    }.items():
        assert float(row[column]) == value  # full precision
    assert json.loads(row["settings"]) == results["settings"] and "dropout: 0.0 → 0.1" in row["settings"]
    assert json.loads(row["per_kind_auc"]).keys() == figures["per_kind"].keys()
    assert json.loads(row["interval"])["by"] == "image"
    with open("checkpoints/a/metrics.jsonl") as file:
        validated = {str(r["epoch"]): r["val_auc"]["reconstruction"] for r in map(json.loads, file)}
    assert json.loads(row["val_auc_per_epoch"]) == validated and list(validated) == ["1", "2"]
    before = make_tables.read_table(RESULTS / "results.csv")
    experiment("b")
    assert tabulate("b") == 0
    assert [row for row in make_tables.read_table(RESULTS / "results.csv") if row in before] == before


@pytest.mark.parametrize(("gone", "trained_epochs"), [([], 2), (["last.pt"], 2), (["last.pt", "metrics.jsonl"], 1)])
def test_epochs_and_seconds_are_those_of_the_whole_training(experiment, gone, trained_epochs):
    folder = experiment()
    best = torch.load(folder / "best.pt", weights_only=True) | {"epoch": 1, "seconds": 5.0}
    last = torch.load(folder / "last.pt", weights_only=True)
    for name in gone:
        (folder / name).unlink()
    found = report.progress(Experiment("a"), Planned(1, 1, 5), best)
    assert (found["epochs"], found["epochs_trained"], found["epoch"]) == (7, trained_epochs, 1)
    assert found["stages_planned"] == {"s0": 1, "s1": 1, "s2": 5} and found["stages"] == {"s0": 1, "s1": 0, "s2": 0}
    assert found["stages_trained"] == {"s0": 1, "s1": trained_epochs - 1, "s2": 0}
    # best.pt alone does not know how long the second epoch took
    alone = {2: None, 1: 5.0}[trained_epochs]
    assert found["training_seconds"] == (alone if gone else last["seconds"])
    imported = {"epoch": 0, "imported": "model.pth"}
    shutil.rmtree(folder)
    found = report.progress(Experiment("a"), Planned(3), imported)
    assert (found["epochs"], found["epochs_trained"], found["stages_trained"]) == (3, None, None)
    assert found["training_seconds"] is None


class Planned:
    """As much of a method as says how long it trains."""

    def __init__(self, *epochs):
        self.stages = tuple(Stage(f"s{i}", count, 8) for i, count in enumerate(epochs))


def test_a_run_that_was_stopped_says_so(experiment):
    experiment(epochs=200, stages_planned={"train": 200}, epochs_trained=4, stages_trained={"train": 4}, epoch=3)
    stages = {"udm": 3, "ndm": 2, "refine": 0}
    experiment("d", epochs=9, stages_planned=dict.fromkeys(stages, 3), epochs_trained=5, stages_trained=stages,
               training_seconds=None)  # fmt: skip
    experiment("i", epochs_trained=None, stages_trained=None)
    assert tabulate("a", "d", "i") == 0
    found = {line["epochs trained"]: line for line in measured()}
    assert set(found) == {"4 of 200", "3 + 2 + 0 of 3 + 3 + 3", "unknown of 2"}
    assert found["4 of 200"]["epochs planned"] == "200" and found["4 of 200"]["checkpoint, epoch"] == "best, 3"
    assert found["3 + 2 + 0 of 3 + 3 + 3"]["training, min"] == "–"


def test_seeds_are_averaged_and_nothing_else(experiment):
    one = {"trained": [{"commit": "c1", "device": "cpu"}]}
    experiment("a", seed=0, training_seconds=60.0, **one)
    folder = experiment("b", seed=1, training_seconds=180.0, **one)
    other = json.loads((folder / "results.json").read_text())
    other["scores"]["reconstruction"]["auc"] = 0.25
    (folder / "results.json").write_text(json.dumps(other))
    apart = {
        "data": {"data": "other"}, "settings": {"settings": ["dropout: 0.0 → 0.2"]}, "precision": {"precision": "bf16"},
        "planned": {"stages_planned": {"train": 3}}, "trained": {"stages_trained": {"train": 1}},
        "checkpoint": {"checkpoint": "last"}, "split": {"split": "val"}, "config": {"config": "digit_best"},
        "commit": {"trained": [{"commit": "c2", "device": "cpu"}]}, "unknown": {"trained": []},
        "unknown too": {"trained": []},
    }  # fmt: skip
    for i, changes in enumerate(apart.values()):
        experiment(f"x{i}", **{"seed": 2, **one, **changes})
    assert tabulate("a", "b", *(f"x{i}" for i in range(len(apart)))) == 0
    auc = {row["experiment"]: row["auc"] for row in rows_of_table()}
    found = measured()
    assert sorted(line["seeds"] for line in found) == ["0, 1", *["2"] * len(apart)]
    (line,) = [line for line in found if line["seeds"] == "0, 1"]
    mean, deviation = 50 * (auc["a"] + 0.25), 100 * abs(auc["a"] - 0.25) / 2**0.5
    assert line["AUC"] == f"{mean:.1f} ± {deviation:.1f}" and line["training, min"] == "2"
    assert line["95 % interval"].count("by image") == 2


def test_an_experiment_that_is_named_twice_counts_once(experiment):
    experiment("a", seed=0)
    assert tabulate("a", "a") == 0
    assert [line["seeds"] for line in measured()] == ["0"]
    scores = [row["score"] for row in rows_of_table()]
    assert len(scores) == len(set(scores))


def test_without_an_experiment_the_tables_are_made_anew(experiment, capsys):
    assert tabulate() == 2
    assert "there is no results/results.csv: name experiments that eval.py has evaluated" in capsys.readouterr().err
    folder = experiment("a", seed=0)
    assert tabulate("a") == 0
    shutil.rmtree(folder)
    before = {name: (RESULTS / name).read_text() for name in ("results.csv", "tables.md")}
    (RESULTS / "tables.md").unlink()
    assert tabulate() == 0
    assert {name: (RESULTS / name).read_text() for name in before} == before


def test_names_of_kinds_may_hold_anything(experiment):
    folder = experiment()
    results = json.loads((folder / "results.json").read_text())
    kinds = {"bent wire": 0.5, "a=b": 0.25, "x|y": 1.0}
    for figures in results["scores"].values():
        figures["per_kind"] = {kind: {"auc": auc, "images": 3} for kind, auc in kinds.items()}
    (folder / "results.json").write_text(json.dumps(results))
    assert tabulate("a") == 0 and tabulate("a") == 0  # also with the rows that are there
    assert rows_of_table()[0]["per_kind_auc"] == kinds
    assert measured()[0]["AUC per kind"] == "bent wire 50.0, a=b 25.0, x|y 100.0"
    assert r"x\|y 100.0" in (RESULTS / "tables.md").read_text()


def test_figures_without_duplicates_are_marked_as_not_comparable(experiment):
    folder = experiment()
    results = json.loads((folder / "results.json").read_text())
    few = {"classes": {"normal": 5, "anomalous": 15}, "interval": results["interval"] | {"by": "person"}}
    results["duplicates_removed"] = {
        "images": "5 normal, 15 anomalous", "removed": {"normal": {"identical": 11, "near": 0}}, **few,
        "scores": results["scores"],
        "networks": {"ndm": {"auc": [0.25, 0.75], "average_precision": [0.5, 0.5]}},
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    assert tabulate("a") == 0
    whole, part = measured()
    assert "†" not in "".join(whole.values()) and whole["normal : anomalous"] == "16 : 16 (50.0 % anomalous)"
    assert part["normal : anomalous"] == "5 : 15 (75.0 % anomalous)" and part["split"] == "test, duplicates removed"
    for column in ("AP", "acc / F1, val threshold", "acc / F1, oracle threshold"):
        assert part[column] == f"{whole[column]} †"
    assert part["AUC"] == whole["AUC"] and part["95 % interval"].endswith("by person")
    assert "not comparable with those of the whole set" in (RESULTS / "tables.md").read_text()
    (network,) = measured("ndm (one network)")
    assert network["AUC"].startswith("50.0 ± 35.4") and network["95 % interval"] == "–" and network["seeds"] == "0"
    networks = {"auc_mean": 0.5, "auc_std": 0.1, "average_precision_mean": 0.5, "average_precision_std": 0.0}
    results["duplicates_removed"]["networks"] = {"ndm": networks}
    shown = report.summary(results)
    assert "not comparable with those above: 75.0 % of these images are anomalous, 50.0 % of all" in shown
    assert "Not finished" not in shown
    shown = report.summary(results | {"epochs_trained": 1, "interval": few["interval"]})
    assert "Not finished: 1 of 2 epochs" in shown and "95 % interval by person" in shown


PUBLISHED = "dataset,method,AUC,AP,accuracy,F1,source,remark,ours,target\n"


def publish(*entries):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "published.csv").write_text(PUBLISHED + "\n".join(entries) + "\n")


def test_classes_of_different_sources_are_said_to_be(experiment):
    experiment()
    assert tabulate("a") == 0
    assert "RSNA" not in (RESULTS / "tables.md").read_text()
    experiment("b", dataset="covidx")
    assert tabulate("b") == 0
    assert (RESULTS / "tables.md").read_text().count("COVIDx's normal images come from RSNA") == 1


def test_published_figures_stand_beside_ours(experiment):
    experiment("a", epochs_trained=5, epochs=200, stages_trained={"train": 5}, stages_planned={"train": 200})
    experiment("v", split="val")
    publish(
        "Digits,SQUID,87.6 ± 1.5,,80.3,84.7,S (a README),dataset=digit is ours,dataset=digit method=squid,",
        "Digits,its discriminator,70.0,71.0,,,P (table 1),,config=digit_quick score=discriminator,",
        "Digits,SimSID,91.1,,,,S (a README),,dataset=digit method=simsid,",
        "Digits,f-AnoGAN,75.5,,,,S (a README),,,",
    )
    assert tabulate("a", "v") == 0
    main, other = lines("Published and ours")
    assert (main["AUC published"], main["acc / F1 published"]) == ("87.6 ± 1.5", "80.3 / 84.7")
    assert main["source"] == "S (a README)" and main["epochs"] == "5 of 200" and main["score"] == "reconstruction"
    assert main["AUC ours"] == measured()[0]["AUC"] and "dropout" in main["changed settings"]
    assert (other["score"], other["AP published"]) == ("discriminator", "71.0")
    assert [line["method"] for line in lines("Published")] == ["SQUID", "its discriminator", "SimSID", "f-AnoGAN"]


def test_ours_is_measured_by_a_target_where_it_is_the_published_run():
    entry = {"ours": "dataset=zhang method=squid", "target": ""}
    stages = {"train": 200}
    row = {
        "config": "zhang_best", "method": "squid", "dataset": "zhang", "settings": ['precision: "fp32" → "bf16"'],
        "stages_planned": stages, "stages_trained": stages,
    }  # fmt: skip
    assert make_tables.is_measured_by(row, entry)
    assert not make_tables.is_measured_by(row, entry | {"target": "no"})
    assert make_tables.is_measured_by(row, entry | {"target": "zhang_best"})
    assert not make_tables.is_measured_by(row, entry | {"target": "zhang_steady"})
    assert not make_tables.is_measured_by(row | {"settings": ["train_normal_fraction: 1 → 0.5"]}, entry)
    with_average = ["average_decay: 0.0 → 0.999"]  # beside the weights that are scored
    assert make_tables.is_measured_by(row | {"settings": with_average}, entry)
    averaged = [*with_average, 'checkpoint: "best" → "averaged"']
    assert not make_tables.is_measured_by(row | {"settings": averaged}, entry)
    assert not make_tables.is_measured_by(row | {"stages_trained": {"train": 199}}, entry)
    short = {"train": 20}
    assert not make_tables.is_measured_by(row | {"stages_planned": short, "stages_trained": short}, entry)
    rated = row | {"config": "ddad_rsna_ae", "dataset": "rsna", "settings": ["anomaly_rate: 0.6 → 0.2"]}
    stages = {stage.name: stage.epochs for stage in configs.build("ddad_rsna_ae").stages()}
    rated |= dict.fromkeys(("stages_planned", "stages_trained"), stages)
    assert make_tables.is_measured_by(rated, {"ours": "score=inter anomaly_rate=0.2", "target": ""})
    assert not make_tables.is_measured_by(rated, {"ours": "score=inter", "target": ""})
    unrefined = rated | {"settings": [*rated["settings"], "refine_epochs: 100 → 0"]}
    without = {"ours": "score=inter anomaly_rate=0.2 refine_epochs=0", "target": ""}
    assert not make_tables.is_measured_by(unrefined, without)  # its stages are those with refinement
    stages = {name: epochs for name, epochs in stages.items() if name != "refine"}
    unrefined |= dict.fromkeys(("stages_planned", "stages_trained"), stages)
    assert make_tables.is_measured_by(unrefined, without)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("Digits,SQUID,87.6,,,,,,,", "published.csv, line 2: SQUID on Digits has no source"),
        ("Digits,SQUID,87.6,,,,S,,methd=squid,", "line 2: SQUID on Digits: 'methd=squid' must be column=value"),
        ("Digits,SQUID,87.6,,,,S,,squid,", "'squid' must be column=value"),
        ("Digits,SQUID,87.6,,,,S,,,digit_bets", "target 'digit_bets' must be a configuration, no, or empty"),
    ],
)
def test_published_figures_that_cannot_be_used_are_named(experiment, capsys, entry, message):
    experiment()
    publish(entry)
    assert tabulate("a") == 1
    assert message in capsys.readouterr().err and not (RESULTS / "results.csv").exists()


def test_the_published_figures_have_sources_and_counterparts():
    entries = make_tables.read_published(ROOT / "results" / "published.csv")
    assert {entry["dataset"] for entry in entries} == {
        "ZhangLab", "CheXpert", "COVIDx", "RSNA", "Brain Tumor", "VinDr-CXR",
    }  # fmt: skip
    assert all(entry["source"][0] in "PS" for entry in entries)
    targets = {(entry["dataset"], entry["method"]): entry["target"] for entry in entries}
    of_squid = targets["ZhangLab", "SQUID"], targets["CheXpert", "SQUID"]
    of_simsid = targets["ZhangLab", "SimSID"], targets["CheXpert", "SimSID"]
    assert (of_squid, of_simsid) == (("zhang_best", "chexpert_best"), ("simsid_zhang", "simsid_chexpert"))


def test_tables_of_other_columns_are_refused(experiment, capsys):
    experiment()
    RESULTS.mkdir()
    former = "experiment,config,auc\na,digit_quick,0.5\n"
    (RESULTS / "results.csv").write_text(former)
    assert tabulate("a") == 1
    assert "results.csv: has other columns than this version writes. Move it away" in capsys.readouterr().err
    assert (RESULTS / "results.csv").read_text() == former


def test_experiments_that_are_not_evaluated_are_refused(experiment, capsys):
    folder = experiment()
    assert tabulate("none") == 1
    assert "Evaluate it first" in capsys.readouterr().err
    (folder / "results.json").write_text(json.dumps({"trained": None}))
    assert tabulate("a") == 1
    assert "checkpoints/a/results.json: of an older version" in capsys.readouterr().err


def test_many_scores_stand_side_by_side(experiment):
    folder = experiment()
    assert tabulate("a") == 0
    assert "side by side" not in (RESULTS / "tables.md").read_text()  # two scores only
    results = json.loads((folder / "results.json").read_text())
    results["networks"] = {"ndm": {"auc": [0.6, 0.8], "average_precision": [0.5, 0.5]}}
    results["scores"]["reconstruction"]["auc"] = 0.75
    (folder / "results.json").write_text(json.dumps(results))
    assert tabulate("a") == 0
    (line,) = lines("AUC of every score, side by side")
    assert list(line)[-3:] == ["discriminator", "ndm (one network)", "reconstruction"]
    assert (line["epochs"], line["ndm (one network)"], line["reconstruction"]) == ("2 of 2", "70.0 ± 14.1", "75.0")
