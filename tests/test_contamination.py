"""Training with a share of anomalous images among the normal ones (train_normal_fraction)."""

import json

import pytest
import torch
from test_covidx import covidx, make_covidx
from test_data import make_zhang

import configs
from dataloader import DataError, build_dataset
from experiments.folder import Experiment


def zhang(root, *overrides):
    return build_dataset(configs.build("simsid_zhang", ["image_size=64", *overrides]), str(root))


@pytest.fixture
def root(tmp_path):
    make_zhang(tmp_path, names=("normal_256", "pneumonia_256"), splits=("train", "val", "test"))
    return tmp_path


def test_the_last_normal_images_give_way_to_anomalous_ones(root):
    clean = zhang(root).training_items()
    mixed = zhang(root, "train_normal_fraction=0.7").training_items()
    assert len(mixed) == len(clean) == 10 and mixed[:7] == clean[:7]
    assert all(item.label == 1 for item in mixed[7:]) and len({item.path for item in mixed}) == 10
    assert len(zhang(root, "train_normal_fraction=0.7").training_images(0)) == 10


def test_the_count_is_that_of_the_released_program(root):
    # int(10 · 0.55) = 5 normal images
    assert [item.label for item in zhang(root, "train_normal_fraction=0.55").training_items()] == [0] * 5 + [1] * 5


def test_the_choice_is_a_function_of_the_seed(root):
    def chosen(*overrides):
        return zhang(root, "train_normal_fraction=0.7", *overrides).record()["anomalous_training_images"]

    assert chosen() == chosen("seed=0") and len(chosen()) == 3
    assert len({tuple(chosen(f"seed={seed}")) for seed in range(6)}) > 1
    data = zhang(root, "train_normal_fraction=0.7")
    assert data.fingerprint() != zhang(root).fingerprint()
    assert data.fingerprint() != zhang(root, "train_normal_fraction=0.8").fingerprint()


def test_the_released_program_takes_the_first_of_the_listing(root):
    data = zhang(root, "train_normal_fraction=0.7", "contamination=first", "seed=3")
    anomalous = [item for item in data.items["train"] if item.label]
    assert data.training_items()[7:] == anomalous[:3] and len(anomalous) > 3


def test_the_record_is_kept_in_the_experiment(root, workspace):
    data = zhang(root, "train_normal_fraction=0.7")
    experiment = Experiment("e")
    experiment.save_data(data.record())
    record = json.loads(experiment.path("data.json").read_text())
    assert record["training_images"] == "7 normal, 3 anomalous"
    assert record["anomalous_training_images"] == [data.item_id(i) for i in data.training_items()[7:]]
    assert zhang(root).record()["anomalous_training_images"] == []


def test_too_few_anomalous_images_are_an_error(root, tmp_path):
    for file in sorted((root / "train" / "pneumonia_256").iterdir())[2:]:
        file.unlink()
    with pytest.raises(DataError, match="0.7 asks for 3 anomalous training images, and .* has 2"):
        zhang(root, "train_normal_fraction=0.7").fingerprint()
    make_covidx(tmp_path / "covidx")
    (tmp_path / "covidx" / "train_squid_abnormal.txt").unlink()
    with pytest.raises(
        DataError, match="asks for 1 anomalous training images, and .* has 0. Give --set train_norm.*=1"
    ):
        covidx(tmp_path / "covidx", "train_normal_fraction=0.9").fingerprint()


def digits(*overrides):
    return build_dataset(configs.build("digit_quick", ["digits_per_epoch=20", *overrides]))


def test_anomalous_digits_take_the_place_of_the_last_normal_ones():
    clean, mixed = digits(), digits("train_normal_fraction=0.7")
    assert (
        mixed.training_in_words() == "14 normal, 6 anomalous" and clean.training_in_words() == "20 normal, 0 anomalous"
    )
    first, images = digits("digits_per_epoch=14").training_images(0), mixed.training_images(0)
    assert torch.equal(images[:14], first) and len(images) == 20
    cells = images[14:].reshape(6, 3, 16, 3, 16).amax((2, 4)).flatten(1)  # missing, …, zero, missing, misordered
    assert [bool((of == 0).any()) for of in cells] == [True, False, False, False, True, False]
    assert torch.equal(images, digits("train_normal_fraction=0.7").training_images(0))
    assert not torch.equal(images[14:], mixed.training_images(1)[14:])
    with pytest.raises(DataError, match="train_normal_fraction = 0.04: leaves no normal image of 20"):
        digits("train_normal_fraction=0.04")
