"""PneumoniaMNIST: the file as its authors made it, training on it, and files that are something else."""

import json

import numpy as np
import pytest
from PIL import Image
from tiny import SMALL, command

import configs
from dataloader import DataError, build_dataset
from dataloader.medmnist import chosen_file
from tools import prepare_data

COUNTS = {"train": (12, 8), "val": (4, 5), "test": (6, 7)}  # normal, pneumonia


def arrays(side=28):
    rng = np.random.RandomState(side)
    made = {}
    for name, (normal, pneumonia) in COUNTS.items():
        labels = rng.permutation([0] * normal + [1] * pneumonia).astype(np.uint8)
        made[f"{name}_images"] = rng.randint(0, 256, (len(labels), side, side)).astype(np.uint8)
        made[f"{name}_labels"] = labels[:, None]
    return made


def write(root, name="pneumoniamnist.npz", **changed):
    root.mkdir(parents=True, exist_ok=True)
    made = {**arrays(), **changed}
    np.savez_compressed(root / name, **{key: value for key, value in made.items() if value is not None})
    return made


def dataset(root, *overrides, config="vae"):
    return build_dataset(configs.build(config, ["dataset=pneumoniamnist", *overrides]), str(root))


@pytest.mark.parametrize(("config", "filter"), [("vae", "BILINEAR"), ("squid", "BICUBIC")])
def test_normal_images_train_and_both_classes_are_evaluated(tmp_path, config, filter):
    made = write(tmp_path)
    data = dataset(tmp_path, "image_size=64", config=config)

    def resized(images):
        return np.stack([np.asarray(Image.fromarray(i).resize((64, 64), Image.Resampling[filter])) for i in images])

    normal = made["train_images"][made["train_labels"][:, 0] == 0]
    assert np.array_equal(data.training_images(3).numpy(), resized(normal))
    assert data.training_in_words() == "12 normal, 0 anomalous" and data.anomalous_training_ids() == []
    for name in ("val", "test"):
        split = data.split(name)
        assert np.array_equal(split.images.numpy(), resized(made[f"{name}_images"]))
        assert split.labels.tolist() == made[f"{name}_labels"][:, 0].tolist() and len(set(split.ids)) == len(split)
        assert [kind == "pneumonia" for kind in split.kinds] == split.labels.bool().tolist()


def test_contaminated_training(tmp_path):
    made = write(tmp_path, "pneumoniamnist_64.npz", **arrays(64))  # which need no resizing
    labels = made["train_labels"][:, 0]
    data = dataset(tmp_path, "train_normal_fraction=0.7")
    assert data.training_in_words() == "8 normal, 4 anomalous" and len(data.anomalous_training_ids()) == 4
    images = data.training_images(0).numpy()
    assert np.array_equal(images[:8], made["train_images"][labels == 0][:8])
    anomalous = {image.tobytes() for image in made["train_images"][labels == 1]}
    assert all(image.tobytes() in anomalous for image in images[8:])
    assert data.training_name(11) == data.anomalous_training_ids()[-1]
    assert data.fingerprint() != dataset(tmp_path).fingerprint()
    assert dataset(tmp_path, "train_normal_fraction=0.7", "contamination=first").anomalous_training_ids() == [
        f"train/{i:04d}" for i in np.flatnonzero(labels)[:4]
    ]
    with pytest.raises(DataError, match="asks for 11 anomalous training images, and .*pneumoniamnist_64.npz has 8"):
        dataset(tmp_path, "train_normal_fraction=0.1")


def test_the_fingerprint_is_of_what_is_trained_on(tmp_path):
    made = write(tmp_path / "a")
    write(tmp_path / "b" / "pneumoniamnist", test_images=made["test_images"] // 2)
    first = dataset(tmp_path / "a").fingerprint()
    assert dataset(tmp_path / "b").fingerprint() == first
    for name in ("train", "val"):
        made[f"{name}_images"][made[f"{name}_labels"][:, 0] == 0] ^= 1
        write(tmp_path / name, **made)
        assert dataset(tmp_path / name).fingerprint() != first


def test_the_smallest_file_that_is_large_enough_is_read(tmp_path):
    for side in (28, 64, 128):
        write(tmp_path, f"pneumoniamnist{'' if side == 28 else f'_{side}'}.npz", **arrays(side))
    for image_size, side in ((16, 28), (28, 28), (32, 64), (64, 64), (96, 128), (224, 128)):
        assert chosen_file(tmp_path, image_size).name == f"pneumoniamnist{'' if side == 28 else f'_{side}'}.npz"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_labels": None}, "not a readable MedMNIST file .*val_labels"),
        ({"train_images": np.zeros((20, 28, 28, 3), np.uint8)}, r"train_images is uint8 of shape \(20, 28, 28, 3\)"),
        ({"test_images": np.zeros((13, 28, 28), np.float32)}, "test_images is float32 of shape"),
        ({"test_images": np.zeros((13, 28, 20), np.uint8)}, "test_images is uint8 of shape"),
        ({"val_labels": np.zeros((9, 14), np.uint8)}, r"val_labels is of shape \(9, 14\)"),
        ({"val_labels": np.zeros((9, 1), np.uint8)}, r"val_labels .* with the values \[0\]"),
        ({"test_labels": np.arange(13)[:, None]}, r"test_labels .* with the values \[0, 1, 2, 3, 4\]"),
        ({"test_labels": np.array([[0], [1]])}, r"test_labels .*must be \(13, 1\)"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_named(tmp_path, changed, message):
    write(tmp_path, **changed)
    with pytest.raises(DataError, match=f"pneumoniamnist.npz: {message}.*zenodo.org/records/10519652"):
        dataset(tmp_path)


def test_a_file_that_is_damaged_or_not_there(tmp_path, capsys):
    with pytest.raises(DataError, match="pneumoniamnist.npz: no such file. Get .*zenodo.org/records/10519652"):
        dataset(tmp_path)
    write(tmp_path)
    path = tmp_path / "pneumoniamnist.npz"
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[:3000], whole[:5000] + b"\0" * 200 + whole[5200:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="pneumoniamnist.npz: not a readable MedMNIST file"):
            dataset(tmp_path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="pneumoniamnist.npz: not a readable MedMNIST file"):
        dataset(tmp_path)


def test_trains_evaluates_resumes_and_is_looked_at(workspace, capsys):
    write(workspace / "d")
    call = ("main", "--exp", "pn", "--config", "vae", "--data-root", "d", "--device", "cpu")
    assert command(*call, "--set", "dataset=pneumoniamnist", *SMALL, "epochs=1") == 0
    assert command("main", "--exp", "pn", "--set", "epochs=2", "--device", "cpu") == 0
    assert command("eval", "--exp", "pn", "--device", "cpu") == 0
    results = json.loads((workspace / "checkpoints" / "pn" / "results.json").read_text())
    assert results["classes"] == {"normal": 6, "anomalous": 7} and "at_val_threshold" in str(results)
    capsys.readouterr()
    assert command("prepare_data", "--check", "pneumoniamnist", "--data-root", "d", module=prepare_data) == 0
    said = capsys.readouterr().out
    counted = {
        f"  {part} {name}: {n}"
        for part, pair in COUNTS.items()
        for name, n in zip(("normal", "anomalous"), pair, strict=True)
    }
    assert counted < set(said.splitlines())
    assert "colour mode" not in said and "mean gray level: AUC" in said
