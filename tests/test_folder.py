"""dataset=folder: people's own images, in every layout, with every error, from training to prediction."""

import csv
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from test_medad import needs_pydicom, write_dicom
from tiny import FEW, command, train

import configs
from configs import ConfigError
from dataloader import DataError, build_dataset
from dataloader.images import decoded, image_files, read_image, read_images, read_mask, to_gray
from evaluation import metrics, normals, plots
from tools import make_tables

SIDE = 32


def write(path, value=None, size=(SIDE, SIDE), mode="L"):
    """An image of one gray level, or of noise that its name decides."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is None:
        pixels = np.random.RandomState(sum(map(ord, str(path.name)))).randint(0, 256, size[::-1], np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
    else:
        Image.new(mode, size, value).save(path)
    return path


def mark(path, size=(SIDE, SIDE), value=255):
    """A mask of the upper left quarter."""
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


OWN = ["dataset=folder", f"image_size={SIDE}", "held_out=0.2"]


def own(root, *overrides):
    return build_dataset(configs.build("ae_brain", [*OWN, *overrides]), str(root))


def listed(data):
    """Split → ids of its images with their kinds and masks."""
    return {
        split: [(data.item_id(i), i.kind, i.mask and i.mask.name) for i in items] for split, items in data.items.items()
    }


def write_csv(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# -- layouts ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_one_class_is_all_normal_however_it_is_nested(tmp_path):
    names = ["a.png", "b b/ü.png", "b b/new\nline.png", "c/d/e.JPG", "c/.hidden.png", ".thumbs/x.png", "good/1.tif"]
    for name in names[:4]:
        write(tmp_path / "one" / name)
    for name in names[4:6]:
        write(tmp_path / "one" / name)
    data = own(tmp_path / "one", "held_out=0")
    assert sorted(i for i, _, _ in listed(data)["train"]) == sorted(names[:4])
    assert data.training_images(0).shape == (4, SIDE, SIDE) and not data.has_validation and not data.has_test
    write(tmp_path / "two" / names[6])
    write(tmp_path / "two" / "good" / "p1" / "2.bmp")
    assert len(own(tmp_path / "two", "held_out=0").training_images(0)) == 2


def make_mvtec(root, train=4):
    """MVTec's layout with a validation split: good, and two kinds with masks."""
    for i in range(train):
        write(root / "train" / "good" / f"{i:03}.png")
    for split in ("val", "test"):
        for i in range(2):
            write(root / split / "good" / f"{i:03}.png")
            write(root / split / "scratch" / f"{i:03}.png")
    for i in (1, 0):
        mark(root / "ground_truth" / "scratch" / f"{i:03}_mask.png")


def test_what_is_taken_for_normal_is_counted(tmp_path, capsys):
    for name in ("healthy/a", "healthy/b", "fracture/a", "c"):
        write(tmp_path / f"{name}.png")
    assert len(own(tmp_path, "held_out=0").items["train"]) == 4
    assert "all images are taken for normal ones: healthy 2, " in capsys.readouterr().err
    for i in range(6):
        write(tmp_path / f"p{i}" / "a.png")
    assert len(own(tmp_path, "held_out=0").items["train"]) == 10
    assert " and 4 more. If some are not: Put normal images in " in capsys.readouterr().err


def test_what_is_taken_for_normal_is_counted_below_a_common_folder(tmp_path, capsys):
    for name in ("ds/images/a", "ds/images/b", "ds/tumour/a"):
        write(tmp_path / f"{name}.png")
    assert len(own(tmp_path, "held_out=0").items["train"]) == 3
    assert "all images are taken for normal ones: ds/images 2, ds/tumour 1" in capsys.readouterr().err


def test_kinds_of_training_images_are_not_all_normal(tmp_path):
    for kind in ("glioma", "notumor"):  # as the Brain Tumor download lies
        write(tmp_path / "Training" / kind / "a.png")
        write(tmp_path / "Testing" / kind / "b.png")
    with pytest.raises(DataError, match="anomalous"):
        _ = own(tmp_path).items


@pytest.mark.parametrize(("validation", "test"), [("val", "test"), ("valid", "Testing"), ("Validation", "test")])
def test_splits_and_classes_with_masks_by_name(tmp_path, validation, test):
    make_mvtec(tmp_path)
    (tmp_path / "val").rename(tmp_path / validation)
    (tmp_path / "test").rename(tmp_path / test)
    (tmp_path / "train" / "good").rename(tmp_path / "train" / "NORMAL")
    found = listed(own(tmp_path))
    assert found["train"] == [(f"train/NORMAL/{i:03}.png", "normal", None) for i in range(4)]
    assert [kind for _, kind, _ in found["val"]] == ["normal", "normal", "scratch", "scratch"]
    assert found["test"][2:] == [(f"{test}/scratch/{i:03}.png", "scratch", f"{i:03}_mask.png") for i in range(2)]
    split = own(tmp_path).split("test")
    expected = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    expected[2:, : SIDE // 2, : SIDE // 2] = True
    assert torch.equal(split.masks, expected) and split.labels.tolist() == [0, 0, 1, 1]
    assert own(tmp_path).split("val").masks is None


def test_images_may_lie_in_train_itself(tmp_path):
    write(tmp_path / "train" / "a.png")
    write(tmp_path / "test" / "fracture" / "p1" / "b.png")
    assert listed(own(tmp_path, "held_out=0")) == {
        "train": [("train/a.png", "normal", None)], "val": [], "test": [("test/fracture/p1/b.png", "fracture", None)],
    }  # fmt: skip


def test_masks_beside_the_images(tmp_path):
    """BMAD's img/ and label/; a split's own ground_truth/; 0_mask.png beside 0.png. A mask is nonzero, not bright."""
    for split in ("train", "valid", "test"):
        write(tmp_path / split / "good" / "img" / "0.png")
    write(tmp_path / "train" / "good" / "img" / "1.png")
    mark(tmp_path / "test" / "good" / "label" / "0.png", value=0)
    for name in ("1", "0"):
        write(tmp_path / "test" / "Ungood" / "img" / f"{name}.png")
        mark(tmp_path / "test" / "Ungood" / "label" / f"{name}.png", value=1)
    write(tmp_path / "valid" / "Ungood" / "0.png")
    mark(tmp_path / "valid" / "ground_truth" / "Ungood" / "0.png")
    write(tmp_path / "test" / "hole" / "7.jpg")
    mark(tmp_path / "test" / "hole" / "7_mask.png")
    found = listed(own(tmp_path))
    assert found["test"][1:] == [
        ("test/Ungood/img/0.png", "Ungood", "0.png"), ("test/Ungood/img/1.png", "Ungood", "1.png"),
        ("test/hole/7.jpg", "hole", "7_mask.png"),
    ]  # fmt: skip
    assert found["val"] == [("valid/good/img/0.png", "normal", None), ("valid/Ungood/0.png", "Ungood", "0.png")]
    assert own(tmp_path).split("test").masks.float().mean((1, 2)).tolist() == [0, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("root", ["images.csv", "", "else.csv"])
def test_a_csv_file(tmp_path, root):
    for name in ("a, b", "ü", "c", "d", "e", "f", "g"):
        write(tmp_path / "x" / f"{name}.png")
    mark(tmp_path / "e.png")
    write_csv(
        tmp_path / (root or "images.csv"), "\ufeffPath,label,split,mask,person,age", '"x/a, b.png",good,train,,p1,3',
        "x/ü.png,,,,p1", "x/c.png,0, Valid ,,p2", "x/d.png,1,val,,p3", "x/e.png,hole,test,e.png,p4",
        f"{tmp_path / 'x' / 'f.png'},normal,test", "", "x/g.png,anomalous,test",
    )  # fmt: skip
    data = own(tmp_path / root)
    assert listed(data) == {
        "train": [("x/a, b.png", "normal", None), ("x/ü.png", "normal", None)],
        "val": [("x/c.png", "normal", None), ("x/d.png", "anomalous", None)],
        "test": [("x/e.png", "hole", "e.png"), ("x/f.png", "normal", None), ("x/g.png", "anomalous", None)],
    }
    test = data.split("test")
    assert test.labels.tolist() == [1, 0, 1] and test.persons == ["p4", "x/f.png", "x/g.png"]
    assert test.masks.float().mean((1, 2)).tolist() == [0.25, 0, 0]


# -- what is held out -------------------------------------------------------------------------------------------------


def test_what_is_held_out_is_stable_and_no_matter_of_the_seed(tmp_path):
    for i in range(20):
        write(tmp_path / f"{i}.png", i)
    data = own(tmp_path)
    before = {split: {i for i, _, _ in of} for split, of in listed(data).items()}
    assert (len(before["train"]), len(before["val"]), len(before["test"])) == (16, 4, 0)
    assert listed(own(tmp_path, "seed=7")) == listed(data)
    assert data.fingerprint() == own(tmp_path).fingerprint()
    for i in range(20, 24):
        write(tmp_path / f"{i}.png", i)
        after = {i for i, _, _ in listed(own(tmp_path))["val"]}
        assert len(after ^ before["val"]) <= 2
        before["val"] = after
    assert len(listed(own(tmp_path, "held_out=0.5"))["val"]) == 12
    assert len(listed(own(tmp_path, "held_out=0.001"))["val"]) == 1
    split = own(tmp_path).split("val")
    assert split.in_words() == "5 normal, 0 anomalous" and split.masks is None


def test_copies_are_held_out_together(tmp_path):
    for i in range(10):
        write(tmp_path / f"{i}.bmp", i)  # all of the same size
        for copy in "ab":
            shutil.copy(tmp_path / f"{i}.bmp", tmp_path / f"{copy}{i}.bmp")
    found = {split: {i[-5] for i, _, _ in of} for split, of in listed(own(tmp_path)).items()}
    assert len(found["val"]) == 2 and not found["val"] & found["train"]


def test_files_that_are_alike_in_the_middle_alone_are_no_copies(tmp_path):
    for i in range(12):
        pixels = np.zeros((300, 300), np.uint8)
        pixels[0, 0] = i
        Image.fromarray(pixels).save(tmp_path / f"{i}.bmp")
    assert len(own(tmp_path).items["val"]) == 2


def test_persons_who_share_an_image_are_held_out_together(tmp_path):
    lines = []
    for i in range(12):
        write(tmp_path / f"{i}.png", 20 * (i // 2))  # two persons each have one
        write(tmp_path / f"own{i}.png", 20 * i + 1)
        lines += [f"{i}.png,p{i}", f"own{i}.png,p{i}"]
    write_csv(tmp_path / "images.csv", "path,person", *lines)
    items = own(tmp_path, "held_out=0.35").items
    held, left = ({int(item.person[1:]) // 2 for item in items[split]} for split in ("val", "train"))
    assert len(items["val"]) == 8 and not held & left


def test_the_fingerprint_knows_what_files_of_equal_names_and_sizes_hold(tmp_path):
    for person in range(8):
        write(tmp_path / "a" / f"p{person}" / "1.bmp", 20 * person)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert own(tmp_path / "b").fingerprint() == own(tmp_path / "a").fingerprint()
    held = own(tmp_path / "a").items["val"][0].path.parent
    for other in (tmp_path / "b" / held.name, tmp_path / "b" / "p7"):
        other.rename(tmp_path / f"was {other.name}")
    (tmp_path / f"was {held.name}").rename(tmp_path / "b" / "p7")
    (tmp_path / "was p7").rename(tmp_path / "b" / held.name)
    assert own(tmp_path / "b").fingerprint() != own(tmp_path / "a").fingerprint()
    assert own(tmp_path / "b").fingerprint_of_all() != own(tmp_path / "a").fingerprint_of_all()


def test_what_was_trained_before_the_fingerprint_knew_contents_goes_on(workspace, capsys):
    for person in range(8):
        write(workspace / "mine" / f"p{person}" / "1.bmp", 20 * person)
    settings = [*OWN, "epochs=1", "batch_size=4"]
    assert train("a", "--data-root", "mine", method="ae", overrides=settings) == 0
    config = workspace / "checkpoints" / "a" / "config.json"
    of_now = json.loads(config.read_text())["data"]
    size = (workspace / "mine" / "p0" / "1.bmp").stat().st_size
    before = hashlib.sha256("\n".join([f"1.bmp {size} 0"] * 8).encode()).hexdigest()[:16]
    config.write_text(config.read_text().replace(of_now, before))
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert "not the same data" not in capsys.readouterr().err
    assert train("a", "--data-root", "mine", method="ae", overrides=[*settings, "epochs=2"]) == 0
    assert json.loads(config.read_text())["data"] == of_now

    write(workspace / "mine" / "p3" / "1.bmp", 255)
    assert train("a", "--data-root", "mine", method="ae", overrides=[*settings, "epochs=3"]) == 1
    assert "training data: " in capsys.readouterr().err
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert "not the same data" in capsys.readouterr().err


def test_a_damaged_held_out_image_is_named_before_anything_is_trained(workspace, capsys):
    for i in range(8):
        write(workspace / "mine" / f"{i}.png")
    held = own(workspace / "mine").items["val"][0].path
    held.write_bytes(held.read_bytes()[:60])
    assert train("a", "--data-root", "mine", method="ae", overrides=[*OWN, "epochs=1", "batch_size=4"]) == 1
    assert f"{held.name}: not a readable image" in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "a" / "config.json").exists()


def test_paths_of_a_csv_that_is_a_link_begin_at_the_link(workspace):
    for i in range(8):
        write(workspace / "mine" / f"{i}.png")
    listed = write_csv(workspace / "lists" / "v1.csv", "path", *(f"mine/{i}.png" for i in range(8)))
    (workspace / "images.csv").symlink_to(listed)
    settings = [*OWN, "epochs=1", "batch_size=4"]
    assert train("a", "--data-root", "images.csv", method="ae", overrides=settings) == 0
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert command("main", "--exp", "a", "--device", "cpu", "--set", "epochs=2") == 0


def test_of_some_dozens_of_images_enough_are_held_out_for_a_threshold(tmp_path):
    for i in range(55):
        write(tmp_path / f"{i}.png")
    data = build_dataset(configs.build("ae_brain", ["dataset=folder"]), str(tmp_path))
    assert len(data.items["val"]) == 19 and normals.too_few(19, normals.FALSE_ALARMS) == ""


def test_no_more_are_held_out_than_a_rate_needs(tmp_path, monkeypatch):
    for i in range(12):
        write(tmp_path / f"{i}.png", i)
    monkeypatch.setattr("dataloader.held_out.MOST_HELD_OUT", 3)
    assert len(own(tmp_path, "held_out=0.5").items["val"]) == 3


def test_anomalous_images_of_a_held_out_person_are_not_trained_on(tmp_path):
    lines = ["path,label,person"]
    for i in range(20):
        write(tmp_path / f"{i}.png", i)
        lines.append(f"{i}.png,{'good' if i < 14 else 'sick'},p{i % 7}")
    write_csv(tmp_path / "images.csv", *lines)
    items = own(tmp_path, "held_out=0.5", "train_normal_fraction=0.8").items
    persons = {split: {i.person for i in of} for split, of in items.items()}
    assert persons["val"] and not persons["train"] & persons["val"]
    assert {i.label for i in items["train"]} == {0, 1} and {i.label for i in items["val"]} == {0}
    assert len(items["train"]) == sum(f"p{i % 7}" in persons["train"] for i in range(20))  # no one else is missing


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_a_person_is_never_in_two_splits(tmp_path, share):
    lines = ["path,person"]
    for i in range(24):
        write(tmp_path / f"{i}.png", i)
        lines.append(f"{i}.png,p{min(i % 9, 5)}")  # p5 has more images than are wanted
    write_csv(tmp_path / "images.csv", *lines)
    items = own(tmp_path, f"held_out={share}").items
    persons = {split: {i.person for i in of} for split, of in items.items()}
    assert persons["train"] and persons["val"] and not persons["train"] & persons["val"]
    assert len(items["val"]) <= max(3, share * 24)
    with open(tmp_path / "images.csv", "w") as file:
        file.write("path,person,split\n0.png,p,train\n1.png,p,test\n")
    with pytest.raises(DataError, match="1.png: is person p's, who is in train and in test"):
        _ = own(tmp_path).items


# -- errors -----------------------------------------------------------------------------------------------------------


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_what_is_no_list_or_not_there(tmp_path):
    with pytest.raises(DataError, match="none: no such folder or file. Name a folder of normal images"):
        own(tmp_path / "none")
    with pytest.raises(DataError, match="a.png: not a CSV file in UTF-8"):
        _ = own(write(tmp_path / "a.png")).items
    with pytest.raises(DataError, match="x.csv: not a CSV file in UTF-8"):  # a quotation mark that is not closed
        _ = own(write_csv(tmp_path / "x.csv", "path,person", 'a.png,"p9', "a.png,p7")).items
    if os.geteuid():  # root reads everything
        (tmp_path / "closed").mkdir(mode=0)
        with pytest.raises(DataError, match="closed: cannot be read"):
            _ = own(tmp_path).items
    with pytest.raises(ConfigError, match="held_out = 0.6"):
        own(tmp_path, "held_out=0.6")


def test_what_is_not_read_is_said(tmp_path, capsys):
    make_mvtec(tmp_path)
    write(tmp_path / "extra" / "a.png")
    write(tmp_path / "b.png")
    assert len(own(tmp_path).items["train"]) == 4
    assert "not read, being in no split: b.png, extra" in capsys.readouterr().err
    write_csv(tmp_path / "images.csv", "path,lable", "train/good/000.png,", "train/good/001.png,")
    assert len(own(tmp_path, "held_out=0").items["train"]) == 2
    assert "columns that are not read: lable" in capsys.readouterr().err


def test_names_do_not_depend_on_capitals(tmp_path):
    make_mvtec(tmp_path)
    for mask in (tmp_path / "ground_truth" / "scratch").iterdir():
        mask.rename(mask.with_name(mask.name.upper().replace(".PNG", ".png")))
    before = listed(own(tmp_path))
    assert [mask for _, kind, mask in before["test"] if kind == "scratch"] == ["000_MASK.png", "001_MASK.png"]
    write_csv(tmp_path / "Images.csv", "path", "train/good/000.png", "train/good/001.png")
    assert len(own(tmp_path, "held_out=0").items["train"]) == 2
    write_csv(tmp_path / "IMAGES.CSV", "path", "train/good/000.png")
    with pytest.raises(DataError, match="IMAGES.CSV and Images.csv. Keep one"):
        _ = own(tmp_path).items


def test_images_without_a_label_beside_labelled_ones_are_counted(tmp_path, capsys):
    for i in range(6):
        write(tmp_path / f"{i}.png", i)
    lines = ["path,label,split", "0.png,,", "1.png,,", "2.png,,val", "3.png,,test", "4.png,,test", "5.png,hole,test"]
    write_csv(tmp_path / "images.csv", *lines)
    assert [item.label for item in own(tmp_path).items["test"]] == [0, 0, 1]
    assert [line for line in capsys.readouterr().err.splitlines() if "no label" in line] == [
        f"note: {tmp_path / 'images.csv'}: 2 test images have no label, and count as normal"
    ]


def test_images_of_other_formats_are_counted(tmp_path, capsys):
    write(tmp_path / "a.png")
    write(tmp_path / "b.webp")
    write(tmp_path / "in" / "c.gif")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "1.2.840").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "README").write_text("DICM")
    os.mkfifo(tmp_path / "pipe")  # which would keep who opens it waiting
    assert image_files(tmp_path) == [tmp_path / "a.png"]
    assert f"note: {tmp_path}: 4 files are not read, the first {tmp_path / '1.2.840'}. Save" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "said"), [(31, True), (32, False)])
def test_training_images_that_are_nearly_black_are_told_of(tmp_path, capsys, value, said):
    for i in range(3):
        write(tmp_path / f"{i}.png", value - i)
    data = own(tmp_path, "held_out=0")
    data.training_images(0)
    data.training_images(1)
    told = f"no pixel of the training images is brighter than {value} of 255"
    assert capsys.readouterr().err.count(told) == int(said)


def test_links_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "elsewhere" / "a.png")
    write(tmp_path / "in" / "b.png")
    link(tmp_path / "in" / "more", tmp_path / "elsewhere")
    link(tmp_path / "in" / "self", tmp_path / "in")
    link(tmp_path / "elsewhere" / "back", tmp_path / "in")
    link(tmp_path / "in" / "broken.png", tmp_path / "none.png")
    assert [p.relative_to(tmp_path).as_posix() for p in image_files(tmp_path / "in")] == ["in/b.png", "in/more/a.png"]


def test_a_name_that_is_no_text_is_refused(tmp_path):
    write(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    with pytest.raises(DataError, match=r"udcff.png': its name is no UTF-8"):
        _ = own(tmp_path).items


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's, beside the error
def test_images_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    good = write(tmp_path / "good.png")
    frames = [Image.new("L", (8, 8), value) for value in (0, 128, 255)]
    for name in ("frames.tif", "frames.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    (tmp_path / "cut.tif").write_bytes((tmp_path / "frames.tif").read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    wrong = {"frames.tif": "has 3 frames", "frames.png": "has 3 frames", "cut.tif": "not a readable image",
             "empty.png": "not a readable image"}  # fmt: skip
    for name, message in wrong.items():
        with pytest.raises(DataError, match=f"{name}: .*{message}"):
            read_image(tmp_path / name, SIDE, "bilinear")
    good_ones = [write(tmp_path / "more" / f"{i}.png") for i in range(15)]
    with pytest.raises(DataError) as error:
        read_images([good, *map(tmp_path.joinpath, wrong), *good_ones], SIDE, "train", "bilinear")
    told = str(error.value).splitlines()
    assert len(told) == 4 and all(name in line for name, line in zip(wrong, told, strict=True))
    with pytest.raises(DataError, match="There may be more of them") as error:
        read_images([tmp_path / "empty.png"] * 300, SIDE, "train", "bilinear")
    assert len(str(error.value).splitlines()) == 11
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="good.png: .*decompression bomb"):
        read_image(good, SIDE, "bilinear")


def test_a_mask_of_another_size_names_both_files_and_a_normal_image_has_none(tmp_path):
    make_mvtec(tmp_path)
    mark(tmp_path / "ground_truth" / "scratch" / "001_mask.png", (SIDE, SIDE + 1))
    with pytest.raises(DataError, match="001_mask.png: is 32 × 33 pixels, and its image .*scratch/001.png 32 × 32"):
        own(tmp_path).split("test")
    mark(tmp_path / "ground_truth" / "scratch" / "001_mask.png")
    mark(tmp_path / "ground_truth" / "good" / "001_mask.png")
    with pytest.raises(DataError, match="good/001_mask.png: marks pixels of .*good/001.png, a normal image"):
        own(tmp_path).split("test")


def test_anomalous_training_images_on_purpose(tmp_path):
    for i in range(8):
        write(tmp_path / "train" / ("good" if i < 5 else "hole") / f"{i}.png")
    data = own(tmp_path, "train_normal_fraction=0.5")
    assert data.training_in_words() == "2 normal, 2 anomalous" and len(data.items["val"]) == 1


# -- reading ----------------------------------------------------------------------------------------------------------


def test_every_format_is_read_as_the_same_gray(tmp_path):
    ramp = np.tile(np.arange(SIDE, dtype=np.uint8) * 8, (SIDE, 1))
    for name in ("a.png", "b.bmp", "c.tif", "d.jpg"):
        Image.fromarray(ramp).save(tmp_path / name, quality=100)
        Image.fromarray(np.stack([ramp] * 3, axis=2)).save(tmp_path / f"colour_{name}", quality=100)
    for name in ("e.png", "f.tif"):
        Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / name)
    images = own(tmp_path, "held_out=0").training_images(0)
    assert len(images) == 10 and (images.int() - torch.from_numpy(ramp).int()).abs().max() <= 2


def test_the_aspect_is_kept_where_that_is_asked_for(tmp_path):
    pixels = np.full((20, 40), 100, np.uint8)
    pixels[:, 10:30] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = Image.fromarray((pixels == 200).astype(np.uint8))
    mask.save(tmp_path / "m.png")
    expected = {fit: np.zeros((20, 20), np.uint8) for fit in ("stretch", "pad", "crop")}
    expected["stretch"][:] = np.repeat([100, 200, 100], [5, 10, 5])
    expected["pad"][5:15] = expected["stretch"][0]
    expected["crop"][:] = 200
    for fit, image in expected.items():
        assert np.array_equal(read_image(tmp_path / "a.png", 20, "box", fit), image), fit
        assert np.array_equal(read_mask(tmp_path / "m.png", tmp_path / "a.png", 20, fit), image == 200), fit
    with pytest.raises(ConfigError, match="fit = 'zoom': must be one of stretch, pad, crop"):
        own(tmp_path, "fit=zoom")
    read = own(write_csv(tmp_path / "x.csv", "path", "a.png"), "held_out=0", "fit=pad").training_images(0)
    assert (read[0, :8] == 0).all() and (read[0, 8:24] > 0).all() and (read[0, 24:] == 0).all()


def test_a_mask_of_sixteen_bits_is_what_is_not_zero(tmp_path):
    pixels = np.zeros((4, 4), np.uint16)
    pixels[1, 2] = 1
    Image.fromarray(pixels).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png", write(tmp_path / "a.png", size=(4, 4)), 4, "stretch")
    assert np.array_equal(found, pixels > 0)


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 0, 4), (0, 0, 4, 9)])
def test_a_mask_of_the_darkest_colours_is_what_is_not_black(tmp_path, colour):
    pixels = np.zeros((4, 4, len(colour)), np.uint8)
    pixels[1, 2] = colour
    Image.fromarray(pixels).save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png", write(tmp_path / "a.png", size=(4, 4)), 4, "stretch")
    assert np.array_equal(found, pixels.any(-1))


@needs_pydicom
@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # pydicom's, beside the error
def test_a_dicom_file_that_is_cut_off_is_named(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8))
    whole = (tmp_path / "a.dcm").read_bytes()
    for length in range(128, len(whole), 3):
        (tmp_path / "a.dcm").write_bytes(whole[:length])
        with pytest.raises(DataError, match="a.dcm: "):
            decoded(tmp_path / "a.dcm", to_gray)


@needs_pydicom
def test_dicom_files_are_read_beside_others(tmp_path):
    ramp = np.tile(np.arange(SIDE, dtype=np.uint16) * 100, (SIDE, 1))
    padded = np.where(np.arange(SIDE) < 8, 4000, ramp).astype(np.uint16)
    write_dicom(tmp_path / "a.dcm", ramp)
    write_dicom(tmp_path / "b.DCM", ramp, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "c.dicom", padded, PixelPaddingValue=4000)
    write_dicom(tmp_path / "d.dcm", padded, PixelPaddingValue=3900, PixelPaddingRangeLimit=4100)
    write(tmp_path / "e.png", 7)
    images = own(tmp_path, "held_out=0").training_images(0).int().numpy()
    gray = (np.arange(SIDE) / (SIDE - 1) * 255).round()
    assert np.array_equal(images[0][0], gray) and np.array_equal(images[1][0], 255 - gray)
    inside = ((np.arange(SIDE) - 8) / (SIDE - 9) * 255).round().clip(0)
    assert np.array_equal(images[2][0], inside) and np.array_equal(images[3][0], inside)
    frames = write_dicom(tmp_path / "f.dcm", ramp, NumberOfFrames=2, PixelData=ramp.tobytes() * 2)
    with pytest.raises(DataError, match=r"f.dcm: its pixels are of shape \(2, 32, 32\), several frames or colour"):
        read_image(frames, SIDE, "bilinear")
    (tmp_path / "a.dcm").rename(tmp_path / "IM0001")
    assert np.array_equal(read_image(tmp_path / "IM0001", SIDE, "bilinear")[0], gray)


# -- from training to prediction --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [pytest.param("ae", marks=pytest.mark.pictures), "patchcore"])
def test_normal_images_alone_are_enough(workspace, capsys, monkeypatch, method):
    monkeypatch.setenv("ANOMALY_DATA_ROOT", str(workspace))  # holds other people's data sets
    (workspace / "folder").mkdir()
    for i in range(12):
        write(workspace / "mine" / f"{i}.png")
    assert train("a", "--data-root", "mine", method=method, overrides=[*OWN, "record_scores=true"]) == 0
    out = capsys.readouterr().out
    assert "training on 10 normal, 0 anomalous images" in out
    assert "no validation set with anomalous images: best.pt will be the final epoch's" in out
    folder = workspace / "checkpoints" / "a"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows and not any("val_auc" in row for row in rows)
    best = torch.load(folder / "best.pt", weights_only=True)
    assert best["epoch"] == len(rows) and best["val_thresholds"] == {}

    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "val: 2 normal, 0 anomalous" in out and "There is no test set: these are the validation images" in out
    assert "All images are normal: AUC, average precision and oracle threshold need" in out and "AUC 0" not in out
    results = json.loads((folder / "results.json").read_text())
    assert (results["dataset"], results["split"], results["classes"]) == (
        "folder",
        "val",
        {"normal": 2, "anomalous": 0},
    )
    assert results["scores"] and not any(results["scores"].values()) and "interval" not in results
    table = read_csv(folder / "scores.csv")
    assert len(table) == 2 and {row["label"] for row in table} == {"0"}
    assert (folder / "figures" / "histograms.png").exists() == (method == "ae")
    assert not (folder / "figures" / "roc_pr.png").exists()
    assert command("eval", "--exp", "a", "--split", "test", "--device", "cpu") == 1
    assert "mine: has no test images. Add test/good" in capsys.readouterr().err
    assert command("make_tables", "a", module=make_tables) == 1
    assert "no AUC to tabulate" in capsys.readouterr().err

    assert command("predict", "--exp", "a", "mine", "--device", "cpu", "--csv", "p.csv") == 0
    predicted = {os.path.basename(row["path"]): row["score"] for row in read_csv(workspace / "p.csv")}
    assert len(predicted) == 12 and "anomalous_at_val_threshold" not in read_csv(workspace / "p.csv")[0]
    for row in table:
        assert float(predicted[row["id"]]) == pytest.approx(float(row["score"]), rel=1e-5)
    assert train("a", "--data-root", "mine", method=method, overrides=[*OWN, "record_scores=true"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert command("main", "--exp", "a", "--device", "cpu") == 0  # knows where the images are


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predict_reads_as_the_experiment_did(workspace):
    for i in range(6):
        write(workspace / "mine" / f"{i}.png", size=(20, 50))
    settings = [*OWN, "fit=pad", "epochs=1", "batch_size=4"]
    assert train("a", "--data-root", "mine", method="ae", overrides=settings) == 0
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert command("predict", "--exp", "a", "mine", "--device", "cpu", "--csv", "p.csv") == 0
    predicted = {os.path.basename(row["path"]): float(row["score"]) for row in read_csv(workspace / "p.csv")}
    (row,) = read_csv(workspace / "checkpoints" / "a" / "scores.csv")
    assert float(row["score"]) == pytest.approx(predicted[row["id"]], rel=1e-5)


def test_an_evaluation_of_the_other_class_alone(workspace, capsys):
    make_mvtec(workspace / "mine", train=8)
    for name in ("000.png", "001.png"):
        (workspace / "mine" / "test" / "good" / name).unlink()
    (workspace / "mine" / "test" / "good").rmdir()
    assert train("a", "--data-root", "mine", method="ae", overrides=[*OWN, "batch_size=4"]) == 0
    rows = (workspace / "checkpoints" / "a" / "metrics.jsonl").read_text().splitlines()
    assert all("val_auc" in json.loads(row) for row in rows)  # val has both classes, as ZhangLab's
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    assert "All images are anomalous" in capsys.readouterr().out
    results = json.loads((workspace / "checkpoints" / "a" / "results.json").read_text())
    (found,) = results["scores"].values()
    assert found["at_val_threshold"].keys() == {"threshold", "recall"} and "auc" not in found
    assert results["pixel_images"] == {"normal": 0, "anomalous": 2} and "reconstruction" in results["localisation"]


@pytest.mark.pictures
def test_a_kind_may_be_called_as_no_formula_is(tmp_path):
    kind, image = "$x^{2$", np.zeros((8, 8))
    plots.samples({kind: [(kind, image, image, None)]}, "score", tmp_path / "samples.png")
    plots.maps([kind], image[None], None, {"score": image[None]}, tmp_path / "maps.png")
    assert all(Image.open(tmp_path / name).size[0] > 100 for name in ("samples.png", "maps.png"))


def test_pixel_figures_are_of_the_images_with_masks(workspace, capsys):
    make_mvtec(workspace / "mine", train=8)
    for i in range(3):
        write(workspace / "mine" / "test" / "haze" / f"{i}.png")
    assert train("a", "--data-root", "mine", method="ae", overrides=[*OWN, "batch_size=4"]) == 0
    assert command("eval", "--exp", "a", "--device", "cpu", "--save-maps") == 0
    assert "(of 2 of 5 anomalous images: the others have no mask, or none that" in capsys.readouterr().out
    folder = workspace / "checkpoints" / "a"
    results, maps = json.loads((folder / "results.json").read_text()), np.load(folder / "maps.npz")
    kept = ["haze" not in name for name in maps["id"]]
    marked = own(workspace / "mine").split("test").masks.numpy()[kept]
    expected = metrics.auc(marked.ravel(), maps["reconstruction"][kept].ravel())
    assert results["localisation"]["reconstruction"]["pixel_auc"] == pytest.approx(expected, rel=1e-12)
    assert results["pixel_images"] == {"normal": 2, "anomalous": 2}


def test_digits_written_to_disk_score_as_those_in_memory(workspace, trained):
    """In MVTec's layout, as 8-bit PNG of the size that is trained on."""
    settings = ["dataset=digit", "image_size=48", "digits_per_epoch=24", "digit_source=sklearn"]
    digits = build_dataset(configs.build("patchcore", settings))
    for i, image in enumerate(digits.training_images(0).numpy()):
        save(workspace / "mine" / "train" / "good" / f"{i:02}.png", image)
    for name in ("val", "test"):
        split = digits.split(name)
        for i, (image, kind, mask) in enumerate(zip(split.images, split.kinds, split.masks, strict=True)):
            save(workspace / "mine" / name / ("good" if kind == "normal" else kind) / f"{i:02}.png", image.numpy())
            if name == "test" and kind != "normal":
                save(workspace / "mine" / "ground_truth" / kind / f"{i:02}_mask.png", mask.numpy() * np.uint8(255))
    trained("memory", "patchcore")
    assert train("disk", "--data-root", "mine", method="patchcore", overrides=["dataset=folder"]) == 0
    found = {}
    for exp in ("memory", "disk"):
        assert command("eval", "--exp", exp, "--device", "cpu") == 0
        results = json.loads((workspace / "checkpoints" / exp / "results.json").read_text())
        table = read_csv(workspace / "checkpoints" / exp / "scores.csv")
        number = {row["id"]: int(row["id"].replace("_", "/").replace(".png", "").split("/")[-1]) for row in table}
        scores = sorted((row["kind"], number[row["id"]] % FEW["test"], row["distance"]) for row in table)
        of_score = results["scores"]["distance"]
        found[exp] = (
            scores,
            of_score["auc"],
            of_score["per_kind"],
            of_score["at_val_threshold"],
            results["localisation"],
        )
    assert found["disk"] == found["memory"]


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
