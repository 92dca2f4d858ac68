"""What prepare_data.py --check says, on folders whose figures are worked out by hand."""

import numpy as np
import pytest
from conftest import SHARED, needs_shared
from PIL import Image
from tiny import command

import configs
from dataloader import build_dataset
from tools import check_data, prepare_data


def gray(path, seed, level=128, side=64, mode="L"):
    """Noise around a level."""
    pixels = np.random.RandomState(seed).randint(-40, 41, (side, side)) + level
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path)
    return path


def check(capsys, dataset, root):
    assert command("prepare_data", "--check", dataset, "--data-root", root, module=prepare_data) == 0
    return capsys.readouterr().out


@pytest.fixture
def root(tmp_path):
    """Six training, two validation and eight test images; three are copies, one of them with a pixel changed."""
    for i in range(6):
        gray(tmp_path / "train" / "good" / f"{i}.png", i)
    for i in range(4):
        gray(tmp_path / "test" / "good" / f"{i}.png", 20 + i, level=100 + i, mode="RGB" if i else "L")
        gray(tmp_path / "test" / "crack" / f"{i}.png", 30 + i, level=102 + i, side=64 if i else 32)
    gray(tmp_path / "val" / "good" / "0.png", 50)
    (tmp_path / "val" / "good" / "1.png").write_bytes((tmp_path / "train" / "good" / "5.png").read_bytes())
    (tmp_path / "train" / "good" / "1.png").write_bytes((tmp_path / "train" / "good" / "0.png").read_bytes())
    near = np.asarray(Image.open(tmp_path / "train" / "good" / "2.png")).copy()
    near[0, 0] ^= 1
    Image.fromarray(near).save(tmp_path / "test" / "crack" / "3.png")
    return tmp_path


def test_counts_and_repeated_images(root, capsys):
    said = check(capsys, "folder", root)
    assert "  train normal: 6\n  val normal: 2\n  test normal: 4\n  test anomalous: 4\n" in said
    lines = {line.partition(":")[0].strip(): line for line in said.splitlines()}
    for where, expected in {
        "within train": "normal 1 identical and 0 nearly, of 6",
        "val, of train": "normal 1 identical and 0 nearly, of 2",
        "within val": "normal 0 identical and 0 nearly, of 2",
        "test, of train": "normal 0 identical and 0 nearly, of 4; anomalous 0 identical and 1 nearly, of 4",
        "test, of val": "normal 0 identical and 0 nearly, of 4; anomalous 0 identical and 0 nearly, of 4",
        "within test": "normal 0 identical and 0 nearly, of 4; anomalous 0 identical and 0 nearly, of 4",
    }.items():
        assert lines[where] == f"  {where}: {expected}"


def test_what_is_no_anatomy(root, capsys):
    said = check(capsys, "folder", root)
    # RGB has no anomalous image of three, L four of five: of 4 · 4 pairs 3 · 4 are in order and 1 · 4 equal
    assert "colour mode: AUC 87.5 % (normal RGB 3, L 1; anomalous L 4)" in said
    assert "image size: AUC 62.5 % (normal 4 ± 0; anomalous 3 ± 1 thousand pixels)" in said  # one of four is smaller
    found = [Image.open(root / "test" / of / f"{i}.png").convert("L") for of in ("good", "crack") for i in range(4)]
    means = [np.asarray(image).mean() for image in found]
    pairs = np.mean([[a > n for a in means[4:]] for n in means[:4]])
    assert f"mean gray level: AUC {100 * max(pairs, 1 - pairs):.1f} % (normal " in said and "file size: AUC" in said


def test_smoothness_by_hand(tmp_path, capsys):
    """Stripes of columns: neighbours across differ by twice the height, neighbours along not at all."""
    for of, heights in {"train/good": (1, 2), "test/good": (10, 20, 30), "test/crack": (6, 7, 25)}.items():
        for i, height in enumerate(heights):
            (tmp_path / of).mkdir(parents=True, exist_ok=True)
            stripes = np.tile(np.array([100 + height, 100 - height], np.uint8), (64, 32))
            Image.fromarray(stripes).save(tmp_path / of / f"{i}.png")
    # the mean over both directions is the height; of 9 pairs the anomalous image is the smoother in 7
    expected = "mean step between neighbouring pixels at 64×64: AUC 77.8 % (normal 20 ± 8; anomalous 13 ± 9 of 255)"
    assert expected in check(capsys, "folder", tmp_path)


def of_persons(root, split, persons, bright):
    """Four images of each person, much alike; ``bright`` lights up the upper half."""
    for person in persons:
        for i in range(4):
            path = gray(root / split / "normal_256" / f"IM-{person}_{i}.png", person)
            pixels = np.asarray(Image.open(path)) + np.random.RandomState(i).randint(0, 3, (64, 64))
            pixels[:32] += bright
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    for there in {split, "val"}:
        gray(root / there / "pneumonia_256" / "person1_bacteria_1.png", 1)
    gray(root / "val" / "normal_256" / "IM-99_1.png", 99)


def of_normals(said):
    return float(said.partition("test normal, of train normal: AUC ")[2].split(" ")[0])


def test_splits_that_differ_are_told_apart(tmp_path, capsys):
    of_persons(tmp_path, "train", range(40), bright=0)
    of_persons(tmp_path, "test", range(40, 60), bright=30)
    said = check(capsys, "zhang", tmp_path)
    assert of_normals(said) == 100 and "test anomalous, of train anomalous: too few to say" in said


def test_splits_of_other_persons_are_not_told_apart_by_the_persons(tmp_path, capsys):
    """With a person's images in several folds the AUC would be near 100 %."""
    of_persons(tmp_path, "train", range(40), bright=0)
    of_persons(tmp_path, "test", range(40, 60), bright=0)
    assert 25 < of_normals(check(capsys, "zhang", tmp_path)) < 75


def test_persons_in_two_splits(tmp_path, capsys):
    for name in ("normal_256", "pneumonia_256"):
        for split, persons in (("train", (1, 2, 3)), ("val", (3, 4)), ("test", (2, 3, 5))):
            for person in persons:
                path = tmp_path / split / name / f"{'person' if name[0] == 'p' else 'IM-'}{person}_{split}_bacteria.png"
                gray(path, len(str(path)) + person)
    said = check(capsys, "zhang", tmp_path)
    assert "train and val: 2 (of val's images 1 normal, 1 anomalous)" in said
    assert "train and test: 4 (of test's images 2 normal, 2 anomalous)" in said
    assert "val and test: 2 (of test's images 1 normal, 1 anomalous)" in said


def test_one_class_alone_is_told_from_nothing(tmp_path, capsys):
    for i in range(5):
        gray(tmp_path / f"{i}.png", i)
    said = check(capsys, "folder", tmp_path)
    assert "train normal: 3\n  val normal: 2\n" in said and "nothing to say" in said
    assert "does not say whose an image is" in said


def test_digits_have_no_files(workspace):
    said = check_data.check(build_dataset(configs.build("digit_quick", ["digits_per_epoch=9", "image_size=48"])))
    assert "test anomalous: 16 (4 flipped, 4 misordered, 4 missing, 4 zero)" in said and "file size" not in said


def test_what_cannot_be_looked_at(workspace, capsys):
    assert command("prepare_data", "--check", "zhang", "--data-root", "none", module=prepare_data) == 1
    assert "none: no such folder" in capsys.readouterr().err
    gray(workspace / "d" / "0.png", 0)
    (workspace / "d" / "1.png").write_bytes(b"no image")
    assert command("prepare_data", "--check", "folder", "--data-root", "d", module=prepare_data) == 1
    assert "1.png: not a readable image" in capsys.readouterr().err
    assert command("prepare_data", "--check", "d", module=prepare_data) == 2
    assert command("prepare_data", "brain", "--check", "brain", module=prepare_data) == 2


@needs_shared
def test_brain_tumor_repeats_what_evaluation_leaves_out(capsys):
    said = check(capsys, "brain", SHARED / "braintumor")
    assert "test, of train: normal 125 identical and 280 nearly, of 599; anomalous 10 identical and 1 nearly" in said
    assert "colour mode: AUC 81.0 % (normal RGB 588, L 11; anomalous L 383, RGB 217)" in said
