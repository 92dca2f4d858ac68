"""Whose image each is: read off names and lists, kept through splits, and what intervals are made by."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_shared
from test_covidx import covidx, make_covidx, rewrite
from test_data import write_image
from test_diseases import chexpert, make_csv, make_folders

import configs
from dataloader import Split, build_dataset
from dataloader.zhang import ZhangLab
from evaluation import report
from evaluation.scoring import Scored, selected


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("person100_bacteria_475.jpeg", "person100"),
        ("person100_virus_2.jpeg", "person100"),
        ("IM-0011-0001-0002.jpeg", "IM-0011"),
        ("NORMAL2-IM-0011-0001.jpeg", "NORMAL2-IM-0011"),
        ("BACTERIA-1008087-0001.jpeg", "1008087"),
        ("NORMAL-28501-0001.jpeg", "28501"),
        ("scan.jpeg", ""),
    ],
)
def test_zhanglabs_names_tell_persons(name, person):
    assert ZhangLab._item(Path(name), label=1).person == person


@needs_shared
def test_zhanglabs_persons():
    items = build_dataset(configs.build("zhang_best"), str(SHARED / "zhanglab")).items

    def persons(split, label):
        return [item.person for item in items[split] if item.label == label]

    assert len(persons("test", 1)) == 390 and len(set(persons("test", 1))) == 202
    assert len(persons("test", 0)) == 234 and len(set(persons("test", 0))) == 225
    normal = [set(persons(split, 0)) for split in ("train", "test")]
    assert all(all(persons(split, label)) for split in items for label in (0, 1)) and not normal[0] & normal[1]


def test_chexperts_persons_are_its_patients(tmp_path):
    make_csv(tmp_path / "csv")
    for items in chexpert(tmp_path / "csv").items.values():
        assert all(item.person == item.path.parent.parent.name for item in items)
    make_folders(tmp_path / "folders")
    name = "patient00042_study1_view1_frontal.png"
    write_image(tmp_path / "folders" / "our_test_256_pa" / "normal_256" / name, size=(48, 48))
    data = chexpert(tmp_path / "folders")
    # an image without a known person is a person's own
    named = [f"our_test_256_pa/{file}" for file in ("normal_256/n.png", *(f"abnormal_256/{c}.png" for c in "abc"))]
    assert sorted(data.split("test").persons) == sorted([*named, "patient00042"])
    assert data.split("val").persons is None


def test_covidxs_persons_are_the_lists_patients(tmp_path):
    make_covidx(tmp_path)
    rewrite(tmp_path, "p 1 v0.png normal rsna", "p 1 v1.png COVID-19", "p2 v2.png normal rsna")
    assert covidx(tmp_path).split("val").persons == ["p 1", "p 1", "p2"]


def made(persons):
    split = Split(
        images=torch.zeros(6, 1, 1), labels=torch.tensor([0, 0, 0, 1, 1, 1]), kinds=["x"] * 6, ids=list("abcdef"),
        persons=persons,
    )  # fmt: skip
    return split, Scored({"s": np.array([1.0, 1.1, 3.0, 2.0, 2.1, 4.0])})


def test_a_part_of_a_split_keeps_its_persons():
    split, scored = made(["p", "p", "q", "r", "r", "s"])
    part, _ = selected(split, scored, np.array([False, True, True, False, True, True]))
    assert part.persons == ["p", "q", "r", "s"]
    assert selected(*made(None), np.ones(6, bool))[0].persons is None


def test_results_say_by_what_the_interval_was_made():
    by_image, by_person = (report.build_results(*made(p), {}) for p in (None, ["p", "p", "q", "r", "r", "p"]))
    common = {"level": 0.95, "resamples": 2000}
    assert by_image["interval"] == {"by": "image", "normal": 3, "anomalous": 3, **common}
    assert by_person["interval"] == {"by": "person", "normal": 2, "anomalous": 2, **common}  # p in both classes
    assert by_image["scores"]["s"]["auc_ci95"] != by_person["scores"]["s"]["auc_ci95"]
    left = report.without_duplicates(*made(["p", "p", "q", "r", "r", "s"]), {"b": "near", "d": "near"}, {}, None)
    assert left["interval"]["by"] == "person" and left["interval"]["normal"] == 2
