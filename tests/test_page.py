"""The pages to look at: an experiment's and that of results/, by the data and the files that they name."""

import csv
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from tiny import command

from dataloader.base import Split
from evaluation import page, plots, report
from evaluation.scoring import Scored, score_images
from experiments.folder import Experiment
from methods import Scores
from tools import results_page

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "a\"b'c&amp;",
    "Rö·нtgen",
    ">DATA<",
    "\\u003c",
    "b{x}",
    "x",
]
N = len(HOSTILE)


class Elements(HTMLParser):
    """The elements of a page, as a browser takes them apart: tag, attributes, text."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])

    def handle_endtag(self, tag):
        self.found.append([f"/{tag}", {}, ""])

    def handle_data(self, text):
        if self.found:
            self.found[-1][2] += text

    def all(self, tag):
        return [(attributes, text) for of, attributes, text in self.found if of == tag]


def data_of(folder):
    """What an experiment's page shows; it has no more scripts than its own."""
    (attributes, text), (_, code) = Elements((folder / "index.html").read_text(encoding="utf-8")).all("script")
    assert attributes["id"] == "data" and "JSON.parse" in code
    return json.loads(text)


def split_of(images=None, **others):
    images = torch.arange(N, dtype=torch.uint8)[:, None, None].expand(N, 4, 4) * 10 if images is None else images
    return Split(images, torch.tensor([0, 1] * (N // 2)), ["normal", "odd"] * (N // 2), list(HOSTILE), **others)


def write(split, scored, exp="a", duplicates=None, **others):
    """The page's data of an evaluation of these images."""
    experiment = Experiment(exp)
    results = {
        "experiment": exp, "config": "ae", "method": "ae", "dataset": "digit", "data": "d", "trained_on": "d",
        "seed": 0, "checkpoint": "best", "epoch": 1, "epochs": 1, "epochs_trained": 1, "split": "test",
        "images": split.in_words(), "commit": "c", "main_score": next(iter(scored.image)),
        **report.build_results(split, scored, {}), **others,
    }  # fmt: skip
    report.write(experiment, split, scored, results, duplicates)
    page.write(experiment, split, scored, results, ["results.json", "scores.csv"], duplicates)
    return data_of(experiment.folder)


def scored_of(n=N, **others):
    return Scored({"error": np.arange(float(n)), "other": -np.arange(float(n))}, **others)


@pytest.fixture(autouse=True)
def folders(workspace):
    (workspace / "checkpoints" / "a").mkdir(parents=True)


@pytest.mark.parametrize("method", ["ae", "padim"])
def test_a_page_has_all_images_and_names_files_that_are_there(workspace, trained, method):
    folder = trained("m", method)
    assert command("eval", "--exp", "m", "--device", "cpu") == 0
    check_page(folder)


def check_page(folder):
    """Of an evaluated tiny experiment of any method (test_commands.py)."""
    found = data_of(folder)
    with open(folder / "scores.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert found["ids"] == [row["id"] for row in table] and found["kinds"] == [row["kind"] for row in table]
    assert found["labels"] == [int(row["label"]) for row in table] and len(table) == 32
    for name, values in found["scores"].items():
        assert values == pytest.approx([float(row[name]) for row in table], rel=1e-8)
    named = [*found["files"], *found["figures"], *found["strips"]]
    assert all((folder / name).is_file() and not os.path.isabs(name) for name in named)
    assert len(set(found["strips"])) == 32 and {"results.json", "scores.csv"} <= set(found["files"])
    assert found["table"][0][1] == "AUC" and [row[0] for row in found["table"][1:]] == list(found["scores"])
    width, height = Image.open(folder / found["strips"][-1]).size
    assert width == len(found["panels"]) * height
    assert found["panels"][0] == "input, what is anomalous outlined"
    figures = json.loads((folder / "results.json").read_text())["scores"]
    for name, values in found["thresholds"].items():
        known = [figures[name][at]["threshold"] for at in ("at_val_threshold", "at_oracle_threshold")]
        assert list(values.values()) == [threshold for threshold in known if threshold != "inf"]


def test_neither_page_nor_results_stay_of_an_evaluation_before_one_that_was_cut(workspace, trained, monkeypatch):
    folder = trained("c", "ae")
    assert command("eval", "--exp", "c", "--device", "cpu") == 0 and (folder / "index.html").exists()

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plots, "histograms", cut)
    assert command("eval", "--exp", "c", "--device", "cpu", "--split", "val") == 130
    assert not (folder / "results.json").exists() and not (folder / "index.html").exists()


def test_validation_images_have_a_page_too(workspace, trained):
    folder = trained("v", "ae")
    assert command("eval", "--exp", "v", "--device", "cpu", "--split", "val") == 0
    found = data_of(folder)
    assert len(found["ids"]) == 32 and all(name.startswith("val/") for name in found["ids"])
    assert [panel.split()[0] for panel in found["panels"]] == ["input,", "reconstruction", "difference", "map"]


def test_names_are_shown_as_they_are_whatever_they_hold(workspace):
    found = write(split_of(persons=["p", *HOSTILE[1:]]), scored_of(), duplicates={"x": "near"})
    assert found["ids"] == HOSTILE
    assert found["remarks"] == ["person p", *[""] * (N - 2), "near duplicate"]


def test_nothing_of_an_earlier_evaluation_remains(workspace):
    folder = workspace / "checkpoints" / "a"
    write(split_of(), scored_of())
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("roc_pr", "influence"):
        (folder / "figures" / f"{name}.png").touch()
    part = Split(split_of().images[:2], torch.tensor([0, 1]), ["normal", "odd"], ["a", "b"])
    found = write(part, scored_of(2))
    assert sorted(os.listdir(folder / "strips")) == ["00000.jpg", "00001.jpg"] and found["figures"] == {}
    assert os.listdir(folder / "figures") == ["influence.png"]  # another tool's


def test_an_evaluation_that_is_cut_leaves_no_page(workspace, monkeypatch):
    write(split_of(), scored_of())
    monkeypatch.setattr(page, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(split_of(), scored_of())
    assert not (workspace / "checkpoints" / "a" / "index.html").exists()


@pytest.mark.pictures
def test_every_figure_is_shown_and_every_score_has_a_histogram(workspace):
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "save", lambda figure, path: (drawn.append(figure), figure.savefig(path))[1])
        (workspace / "checkpoints" / "a" / "figures").mkdir()
        maps = np.random.RandomState(0).rand(N, 4, 4)
        pictures = {"reconstruction": np.zeros((N, 4, 4), np.uint8)}
        scores = {f"s{i}": np.arange(float(N)) for i in range(4)}
        found = write(split_of(), Scored(scores, maps={"s0": maps}, pictures=pictures))
    assert [os.path.basename(name) for name in found["figures"]] == [
        f"{name}.png"
        for name in plots.FIGURES
        if name != "curves"  # nothing was trained
    ]
    labels = [axis.get_xlabel().split()[0] for axis in drawn[1].axes if axis.get_xlabel()]
    assert labels == list(scores)


def test_strips_are_of_input_reconstruction_difference_and_map():
    images = torch.arange(N, dtype=torch.uint8)[:, None, None].expand(N, 4, 4) * 10
    x_hats = images.numpy() + np.uint8(5)
    x_hats[3] += 50
    maps = np.zeros((N, 4, 4), np.float32)
    maps[2] = 7
    mask = torch.zeros(N, 4, 4, dtype=torch.bool)
    mask[2, :3, :3] = True
    panels, strip = page.painter(
        split_of(images, masks=mask), scored_of(maps={"other": maps}, pictures={"reconstruction": x_hats}), "error"
    )
    assert len(panels) == 4 and panels[3].startswith("map of other")
    first, x_hat, difference, heat = np.split(strip(2), 4, axis=1)
    outline = np.zeros((4, 4), bool)
    outline[:3, :3] = True
    outline[1, 1] = False  # the inner pixel
    assert (first[outline] == [0, 229, 255]).all() and (first[~outline] == 20).all()
    assert (x_hat == 25).all()
    shades = plots.colours(np.arange(256.0), (0, 255))[:, :3]
    assert (difference == shades[round(5 / 55 * 255)]).all() and (heat == shades[255]).all()
    assert (strip(1)[:, -4:] == shades[0]).all() and (strip(3)[:, 8:12] == shades[255]).all()


def test_a_method_without_reconstruction_and_map_shows_the_input_in_its_colours():
    images = torch.randint(0, 256, (N, 3, 4, 4), dtype=torch.uint8)
    panels, strip = page.painter(split_of(images), scored_of(), "error")
    assert panels == ["input"]
    assert (strip(5) == images[5].permute(1, 2, 0).numpy()).all()


def test_large_images_are_shown_at_most_so_large(tmp_path):
    page.save(np.zeros((3 * page.SIDE, 6 * page.SIDE, 3), np.uint8), tmp_path / "a.jpg")
    assert Image.open(tmp_path / "a.jpg").size == (2 * page.SIDE, page.SIDE)


def test_one_class_has_scores_and_no_column_of_which_nothing_is_known(workspace):
    split = split_of()
    split.labels = torch.zeros(N, dtype=torch.int64)
    found = write(split, scored_of())
    assert found["table"] == [["score, %"], ["error"], ["other"]] and found["thresholds"] == {"error": {}, "other": {}}


def test_an_infinite_threshold_is_none():
    figures = {"at_val_threshold": {"threshold": "inf"}, "at_oracle_threshold": {"threshold": 2.0}}
    assert page.thresholds(figures) == {"oracle threshold": 2.0}


def test_reconstructions_are_kept_as_bytes_where_they_are_asked_for():
    class Plain:
        def score(self, images, all_maps):
            return Scores({"error": torch.zeros(len(images))}, reconstruction=images * 2 - 0.11)

    images = torch.arange(40, dtype=torch.uint8)[:, None, None].expand(40, 4, 4) * 6
    assert score_images(Plain(), images, torch.device("cpu"), "").pictures == {}
    found = score_images(Plain(), images, torch.device("cpu"), "", keep_pictures=True).pictures["reconstruction"]
    assert found.dtype == np.uint8 and found.shape == (40, 4, 4)
    assert found[:, 0, 0].tolist() == [min(max(round(12 * i - 28.05), 0), 255) for i in range(40)]


# -- results/ ---------------------------------------------------------------------------------------------------------

MARKDOWN = """# t

Written by `tools/<x>.py` from *all* & a_b.

- one
  and a half
- two

## Part

| a \\| b | c |
| --- | --- |
| <b>1</b> | – |
| 2 \\| 3 | `x\\|y` |

A note.
"""


def test_the_page_of_results_shows_every_table_and_links_every_file(workspace):
    results = workspace / "results"
    results.mkdir()
    (results / "t.md").write_text(MARKDOWN)
    for name in ("t.csv", "t.tex", "t.png", "alone.csv"):
        (results / name).write_text("experiment,x\none,1\none,2\n")
    (results / "s.csv").write_text('method,experiments\nA,"one, t<wo"\nB,\n')
    results_page.write()
    text = (results / "index.html").read_text(encoding="utf-8")
    found = Elements(text)
    links = {attributes["href"] for attributes, _ in found.all("a")}
    assert {"t.csv", "t.tex", "t.png", "t.md", "alone.csv", "s.csv", "#t", "#others", "#experiments"} == links
    assert [attributes["src"] for attributes, _ in found.all("img")] == ["t.png"]
    assert [said.strip() for _, said in found.all("button")] == ["a | b", "c"]
    assert [said.strip() for _, said in found.all("td")] == ["<b>1</b>", "–", "2 | 3", ""]
    assert [said.strip() for _, said in found.all("li")][:2] == ["one\n  and a half", "two"]
    assert [said for _, said in found.all("span")] == ["one", "t<wo"]
    assert "in alone, s, t" in re.sub(r"<[^>]+>", "", text) and "<em>all</em> &amp; a_b" in text
    before = text
    results_page.write()
    assert (results / "index.html").read_text(encoding="utf-8") == before


def test_every_figure_stands_with_the_table_of_the_longest_name_that_it_begins_with(workspace):
    results = workspace / "results"
    results.mkdir()
    for name in ("tables", "rates", "rates_cpu"):
        (results / f"{name}.md").write_text(f"# {name}\n")
    figures = ["rates.png", "rates_cpu.png", "rates_cpu_epochs.png", "rates_epochs.png", "ratescale.png", "alone.png"]
    for name in (*figures, "rates_cpu_runs.csv", "alone.pdf"):
        (results / name).touch()
    results_page.write()
    shown, linked, place = {}, {}, None
    for tag, attributes, _ in Elements((results / "index.html").read_text(encoding="utf-8")).found:
        place = attributes["id"] if tag == "section" else place
        if tag == "img":
            shown.setdefault(place, []).append(attributes["src"])
        if tag == "a" and place:
            linked.setdefault(place, set()).add(attributes["href"])
    assert shown == {
        "rates": ["rates.png", "rates_epochs.png"],
        "rates_cpu": ["rates_cpu.png", "rates_cpu_epochs.png"],
        "others": ["alone.png", "ratescale.png"],
    }
    assert "rates_cpu_runs.csv" in linked["rates_cpu"] and linked["others"] == {*shown["others"], "alone.pdf"}


def test_the_page_of_results_shows_those_of_this_repository(monkeypatch):
    monkeypatch.chdir(ROOT)
    written = []
    monkeypatch.setattr(results_page, "write_text", lambda path, text: written.append(text))
    results_page.write()
    assert all(f'href="{path.name}"' in written[0] for path in (ROOT / "results").glob("*.csv"))
    assert all(f'<img src="{path.name}"' in written[0] for path in (ROOT / "results").glob("*.png"))
