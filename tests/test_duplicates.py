"""Test images that repeat others: in every dataset of files, by the rule, and what eval.py makes of them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_shared
from PIL import Image
from test_covidx import make_covidx
from test_data import make_chexpert_csv, make_zhang
from test_folder import make_mvtec
from test_medad import make_medad
from tiny import command, train

import configs
from dataloader import DATASETS, FileDataset, build_dataset, duplicates
from dataloader.duplicates import correlated, duplicates_of, identical
from tools import make_tables

MAKERS = {
    "zhang": make_zhang, "chexpert": make_chexpert_csv, "covidx": make_covidx, "brain": make_medad,
    "folder": make_mvtec,
}  # fmt: skip
SPLITS = {"brain": ("train", "unlabeled")}  # else train and val


def soft(seed):
    """Large shapes (90, 80), which JPEG hardly changes, others for every seed."""
    shapes = Image.fromarray(np.random.RandomState(seed).randint(0, 256, (6, 6), np.uint8))
    return np.asarray(shapes.resize((80, 90), Image.Resampling.BICUBIC))


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def opened(name, root):
    return build_dataset(configs.build("ae_brain", [f"dataset={name}", "image_size=32"]), str(root))


def test_every_dataset_of_files_is_tried():
    of_files = {dataset for dataset in DATASETS.values() if issubclass(dataset, FileDataset)}
    assert {DATASETS[name] for name in MAKERS} == of_files


@pytest.mark.parametrize("name", MAKERS)
def test_repeated_test_images_are_found_in_every_dataset_of_files(tmp_path, name):
    MAKERS[name](tmp_path)
    items = opened(name, tmp_path).items
    for seed, item in enumerate(item for of in items.values() for item in of):
        save(item.path, soft(seed))
    assert opened(name, tmp_path).duplicates() == {}

    data, test = opened(name, tmp_path), items["test"]
    others = SPLITS.get(name, ("train", "val"))
    for item, split in zip(test, others, strict=False):
        item.path.write_bytes(items[split][-1].path.read_bytes())
    pixels = np.asarray(Image.open(items["train"][0].path)).astype(int)
    near = (20 + 0.8 * pixels).astype(np.uint8)  # at another contrast
    save(test[-1].path, near)
    expected = {data.item_id(item): "identical" for item in test[: len(others)]}
    assert data.duplicates() == expected | {data.item_id(test[-1]): "near"}


def test_near_is_a_correlation_above_the_rule_worked_out_by_hand(monkeypatch):
    monkeypatch.setattr(duplicates, "CHUNK", 2)
    rng = np.random.RandomState(0)
    base = rng.uniform(60, 190, (8, 8))
    images = [(base + rng.normal(0, noise, (8, 8))).round().astype(np.uint8) for noise in np.linspace(0, 4, 40)]
    references = np.stack([base.round(), *rng.randint(0, 256, (4, 8, 8))]).astype(np.uint8)  # the last in a part alone
    expected = [max(np.corrcoef(image.ravel(), r.ravel())[0, 1] for r in references) > 0.999 for image in images]
    assert 5 < sum(expected) < 35
    assert correlated(torch.from_numpy(np.stack(images)), torch.from_numpy(references)) == expected
    flat = torch.full((1, 8, 8), 7, dtype=torch.uint8)
    assert correlated(flat, flat) == [False]  # a constant image is alike to nothing


def test_identical_are_the_same_bytes_and_not_the_same_size_or_picture(tmp_path):
    def file(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    references = [file("a", b"one"), file("b", b"more")]
    assert identical([file("c", b"one"), file("d", b"two"), file("e", b"longer"), references[1]], references) == [
        True, False, False, True,
    ]  # fmt: skip
    save(tmp_path / "a.png", soft(0))
    save(tmp_path / "b.jpg", soft(0), quality=95)
    assert duplicates_of([tmp_path / "b.jpg"], [tmp_path / "a.png"]) == ["near"]


@needs_shared
def test_different_radiographs_are_not_near_and_a_copy_saved_anew_is(tmp_path):
    files = sorted((SHARED / "zhanglab" / "train" / "NORMAL").glob("*.jpeg"))[:24]
    copies = []
    for path in files[:4]:
        copies.append(tmp_path / path.name)
        with Image.open(path) as image:
            image.convert("L").resize((256, 256), Image.Resampling.BICUBIC).save(copies[-1], quality=75)
    assert duplicates_of(copies, files) == ["near"] * 4
    assert duplicates_of(files[:12], files[12:]) == [""] * 12


def test_without_repeated_images_there_is_one_line_and_no_second_row(workspace, capsys):
    root = workspace / "mine"
    make_mvtec(root, train=8)
    paths = [*(root / "train").rglob("*.png"), *(root / "val").rglob("*.png"), *(root / "test").rglob("*.png")]
    for seed, path in enumerate(paths):
        save(path, soft(seed))
    for path in (root / "ground_truth").rglob("*.png"):
        save(path, np.full((90, 80), 255, np.uint8))
    assert train("a", "--data-root", "mine", method="ae", overrides=["dataset=folder", "batch_size=4"]) == 0

    def evaluated():
        capsys.readouterr()
        assert command("eval", "--exp", "a", "--device", "cpu") == 0
        shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Duplicates")]
        assert command("make_tables", "a", module=make_tables) == 0
        results = json.loads(Path("checkpoints/a/results.json").read_text())
        table, scores = (
            list(csv.DictReader(Path(file).read_text().splitlines()))
            for file in ("results/results.csv", "checkpoints/a/scores.csv")
        )
        return shown, results, {row["split"] for row in table}, {row["duplicate"] for row in scores}

    shown, results, splits, marked = evaluated()
    assert shown == ["Duplicates of other splits' images: none."]
    none = {"identical": 0, "near": 0}
    assert results["duplicates_removed"] == {
        "rule": duplicates.RULE, "removed": {"normal": none, "anomalous": none}, "images": "2 normal, 2 anomalous",
        "scores": {},
    }  # fmt: skip
    assert splits == {"test"} and marked == {""}

    (root / "test" / "good" / "001.png").write_bytes((root / "val" / "scratch" / "000.png").read_bytes())
    shown, results, splits, marked = evaluated()
    assert "(identical + near: normal 1 + 0; anomalous 0 + 0), 1 normal, 2 anomalous left" in shown[0]
    assert splits == {"test", "test, duplicates removed"} and marked == {"", "identical"}
    assert results["duplicates_removed"]["scores"].keys() == results["scores"].keys()
