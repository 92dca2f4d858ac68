"""Datasets, image reading and training batches."""

import csv
import gzip
import json
import os
import struct
from itertools import product
from struct import pack

import numpy as np
import pytest
import torch
from conftest import SHARED, needs_shared
from PIL import ExifTags, Image, ImageOps
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import affine as torchvision_affine
from torchvision.transforms.functional import resize, resized_crop

import configs
from dataloader import DataError, build_dataset
from dataloader.augment import affine, draw_affine
from dataloader.digit import AREA, FLIPPABLE, KINDS, SPLIT_SHARES, chosen, draw_crops, random_crops
from dataloader.images import decoded, read_image, to_gray
from dataloader.loader import TrainLoader
from dataloader.zhang import OUR_LIST
from system.seeding import generator

CPU = torch.device("cpu")


def write_image(path, value=128, size=(40, 30), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


# -- reading ------------------------------------------------------------------------------------------------------


def test_every_mode_becomes_gray_of_the_right_brightness(tmp_path):
    half = {
        "gray": Image.new("L", (8, 8), 128),
        "colour": Image.new("RGB", (8, 8), (128, 128, 128)),
        "transparent": Image.new("RGBA", (8, 8), (255, 255, 255, 128)),
        "gray_alpha": Image.new("LA", (8, 8), (255, 128)),
        "sixteen_bit": Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)),
    }
    palette = Image.new("P", (8, 8), 7)  # index 7, far from its colour
    palette.putpalette([0, 0, 0] * 7 + [128, 128, 128] + [0, 0, 0] * 248)
    half["palette"] = palette
    for name, image in half.items():
        image.save(tmp_path / f"{name}.png")
        assert (read_image(tmp_path / f"{name}.png", 4, "bicubic") == 128).all(), name
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    assert (read_image(tmp_path / "red.png", 4, "bicubic") == 76).all()  # luma, not the first channel
    for order, kind in (("<", "little"), (">", "big")):
        (tmp_path / f"{kind}.tif").write_bytes(white_is_zero(order, np.full((8, 8), 127 * 257)))
    assert (read_image(tmp_path / "little.tif", 4, "bicubic") == 128).all()
    with pytest.raises(DataError, match="big.tif"):  # which Pillow does not know
        read_image(tmp_path / "big.tif", 4, "bicubic")
    Image.new("1", (8, 8), 1).save(tmp_path / "bilevel.png")
    assert (read_image(tmp_path / "bilevel.png", 4, "bicubic") == 255).all()


def white_is_zero(order, pixels):
    """A TIFF file of 16-bit pixels of which 0 is white: header, one strip, a directory of whole numbers."""
    height, width = pixels.shape
    strip = pixels.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 0, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"II" if order == "<" else b"MM") + pack(f"{order}HI", 42, 8 + len(strip))
    return head + strip + pack(f"{order}H", len(tags)) + entries + bytes(4)


def test_an_image_is_read_as_it_is_looked_at(tmp_path):
    half = Image.new("L", (40, 20), 0)
    half.paste(255, (0, 0, 20, 20))  # white on the left
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6  # to be turned to the right
    half.save(tmp_path / "a.jpg", exif=turned)
    found = read_image(tmp_path / "a.jpg", 8, "box")
    assert (found[:4] > 250).all() and (found[4:] < 5).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_of_a_cameras_exif_the_orientation_alone_is_read(tmp_path, orientation):
    across = np.add.outer(np.arange(20), 2 * np.arange(30)).astype(np.uint8)
    upright = Image.Exif()
    upright[ExifTags.Base.Orientation] = orientation
    Image.fromarray(across).save(tmp_path / "plain.png", exif=upright)
    wanted = ImageOps.exif_transpose(Image.open(tmp_path / "plain.png"))
    odd = pack(">HHII", 0x100, 2, 6, 38) + pack(">HHIHH", 0x112, 3, 1, orientation, 0)  # a width of letters
    odd = b"Exif\0\0MM\0*\0\0\0\x08" + pack(">H", 2) + odd + b"\0\0\0\0hello\0"
    Image.fromarray(across).save(tmp_path / "odd.png", exif=odd)
    assert np.array_equal(np.array(decoded(tmp_path / "odd.png", to_gray)), np.array(wanted))


def test_a_file_is_named_whatever_its_damage_raises(tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "getexif", lambda image: 1 / 0)
    with pytest.raises(DataError, match=r"a.png: not a readable image \(division by zero\)"):
        decoded(tmp_path / "a.png", to_gray)


@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGB"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_file_is_turned_as_it_is_looked_at(tmp_path, mode, compression):
    across = np.add.outer(np.arange(60), 2 * np.arange(90)).astype(np.uint8)
    upright = (
        Image.fromarray(across.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(across).convert(mode)
    )
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    upright.save(tmp_path / "a.tif", exif=turned, compression=compression)
    assert np.array_equal(np.array(decoded(tmp_path / "a.tif", to_gray)), np.rot90(across, -1))


def test_twelve_bits_are_scaled_by_their_own_range(tmp_path):
    packed = bytes([0xFF, 0xF8, 0x00, 0x00, 0x0F, 0xFF])  # 4095 2048 0 4095
    tags = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    entries = b"".join(pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(
        b"II" + pack("<HI", 42, 8 + len(packed)) + packed + pack("<H", len(tags)) + entries + bytes(4)
    )
    assert np.array(decoded(tmp_path / "a.tif", to_gray)).tolist() == [[255, 128, 0, 255]]


@pytest.mark.parametrize(
    ("config", "filter"),
    [
        ("zhang_best", Image.Resampling.BICUBIC),
        ("simsid_zhang", Image.Resampling.BICUBIC),
        ("ae_brain", Image.Resampling.BILINEAR),
        ("ddad_brain_ae", Image.Resampling.BILINEAR),
    ],
)
def test_files_are_resized_to_a_square_as_the_methods_program_does(tmp_path, config, filter):
    for split, name in product(("train", "val", "test"), ("normal_256", "pneumonia_256")):
        noisy(tmp_path / split / name / "a.png")
    data = build_dataset(configs.build(config, ["dataset=zhang", "image_size=64"]), str(tmp_path))
    items = {"train": data.training_items(), "val": data.items["val"], "test": data.items["test"]}
    for name, images in (("train", data.training_images(0)), *((n, data.split(n).images) for n in ("val", "test"))):
        expected = [np.array(Image.open(item.path).resize((64, 64), filter)) for item in items[name]]
        assert np.array_equal(images.numpy(), expected), name


def test_unreadable_files_are_named(tmp_path):
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64), np.uint8)).save(whole)
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(whole.read_bytes()[:2000])
    text = tmp_path / "text.jpg"
    text.write_text("not an image")
    floating = tmp_path / "floating.tif"
    Image.fromarray(np.zeros((4, 4), np.float32)).save(floating)
    for path in (truncated, text, floating, tmp_path / "absent.png"):
        with pytest.raises(DataError, match=path.name):
            read_image(path, 32, "bicubic")


# -- DigitAnatomy -------------------------------------------------------------------------------------------------


def digits(root="", **settings):
    config = configs.build("digit_quick", [f"{k}={v}" for k, v in {"digits_per_epoch": 20, **settings}.items()])
    return build_dataset(config, str(root))


def test_digit_splits_are_fixed_and_training_is_made_anew():
    a, b = digits(seed=0), digits(seed=1)
    for name, count in (("val", 200), ("test", 400)):
        split, again = a.split(name), b.split(name)
        assert split.in_words() == f"{count} normal, {count} anomalous"
        assert torch.equal(split.images, again.images) and split.ids == again.ids and len(set(split.ids)) == 2 * count
        assert {k: split.kinds.count(k) for k in KINDS} == dict.fromkeys(KINDS, count // 4)
    assert torch.equal(a.training_images(3), digits(seed=0).training_images(3))
    assert not torch.equal(a.training_images(3), a.training_images(4))
    assert not torch.equal(a.training_images(3), b.training_images(3))
    assert a.training_images(0).shape == (20, 48, 48)


def test_specimens_of_the_splits_are_disjoint():
    for digit in range(10):
        parts = [chosen(183, digit, shares).tolist() for shares in SPLIT_SHARES.values()]
        assert sorted(sum(parts, [])) == list(range(183)) and list(map(len, parts)) == [128, 18, 37]
    assert [len(digits()._specimens[name][0]) for name in SPLIT_SHARES] == [124, 18, 36]  # of 178 zeros


def cells(images):  # (N, 3c, 3c) → (N, 9, c·c)
    n, side = images.shape[:2]
    c = side // 3
    return images.reshape(n, 3, c, 3, c).transpose(2, 3).reshape(n, 9, c * c)


def test_masks_cover_whole_cells_and_kinds_are_what_they_say():
    split = digits().split("test")
    anomalous = split.labels == 1
    masks, images = cells(split.masks)[anomalous], cells(split.images)[anomalous]
    assert not split.masks[~anomalous].any()
    hit = masks.any(-1)
    assert torch.equal(hit, masks.all(-1))
    kinds = np.array(split.kinds)[anomalous.numpy()]
    for kind in KINDS:
        of_kind = torch.from_numpy(kinds == kind)
        counts = hit[of_kind].sum(1)
        assert counts.max() == 3 and counts.min() == (2 if kind == "misordered" else 1)
    missing = torch.from_numpy(kinds == "missing")
    assert (images[missing][hit[missing]] == 0).all() and (images[~missing][hit[~missing]].amax(-1) > 0).all()
    flipped = torch.from_numpy(kinds == "flipped")
    assert set((hit[flipped].any(0).nonzero()[:, 0] + 1).tolist()) <= set(FLIPPABLE)


@pytest.mark.parametrize("side", [8, 28])
def test_crops_are_torchvisions(side):
    """By simulation: the shares of all sides, the whole specimen among them, and the corners' ranges and means."""
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(torch.zeros(1, side, side), AREA, (1.0, 1.0)) for _ in range(5000)]
    theirs = torch.tensor(theirs)  # top, left, height, width
    sides, corners = draw_crops(200_000, side, generator(0))
    assert sides.unique().tolist() == theirs[:, 2].unique().tolist()
    assert (sides == side).float().mean() == pytest.approx({8: 0.472, 28: 0.165}[side], abs=0.003)
    for value in sides.unique():
        ours, own = corners[sides == value], theirs[theirs[:, 2] == value]
        assert (sides == value).float().mean() == pytest.approx(len(own) / len(theirs), abs=0.025)
        assert ours.min() == 0 and (ours.amax(0) == side - value).all()
        torch.testing.assert_close(ours.float().mean(0), own[:, :2].float().mean(0), rtol=0, atol=0.4)
    assert torch.corrcoef(corners[sides == sides.min()].T.float())[0, 1].abs() < 0.02  # rows and columns apart


def test_a_crop_is_resized_at_the_specimens_own_size_first():
    specimen = np.random.RandomState(0).randint(0, 256, (1, 28, 28), np.uint8)
    (side,), ((top, left),) = (each.tolist() for each in draw_crops(1, 28, generator(3)))
    assert 20 < side < 28
    theirs = resize(resized_crop(Image.fromarray(specimen[0]), top, left, side, side, [28, 28]), [32, 32])
    assert np.array_equal(random_crops(specimen, 32, generator(3))[0].numpy(), np.array(theirs))


FIRST_VERSION = [  # what its program made of four validation images, at every twelfth pixel
    [243, 30, 0, 230, 176, 110, 22, 60, 95, 42, 0, 203, 41, 0, 0, 192],
    [247, 17, 0, 215, 158, 0, 0, 4, 35, 0, 26, 135, 86, 0, 3, 168],
    [98, 33, 0, 133, 0, 10, 69, 45, 0, 7, 0, 208, 226, 17, 0, 129],
    [207, 0, 0, 43, 222, 0, 0, 59, 207, 0, 0, 227, 0, 0, 0, 143],
]


def test_experiments_of_the_first_version_see_their_own_digits():
    older = digits(digit_crop="clamped", digits_per_epoch=20).split("val").images
    some = older[::100, 6::12, 6::12].flatten(1).int()
    assert (some - torch.tensor(FIRST_VERSION)).abs().max() <= 1  # a processor may round the other way
    means = older.double().mean((1, 2))  # of all 400, and in their order
    assert means.mean().item() == pytest.approx(80.6132, abs=1e-3)
    assert (means * torch.arange(400)).mean().item() == pytest.approx(15876.797, abs=0.2)
    assert not torch.equal(older, digits().split("val").images)


def write_idx(path, array):
    raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files_are_taken_when_present(tmp_path, suffix):
    rng = np.random.RandomState(0)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}", rng.randint(1, 256, (100, 28, 28)))
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}", np.arange(100) % 10)
    data = digits(tmp_path)
    assert data.source == "mnist" and data.training_images(0).shape == (20, 48, 48)
    assert data.fingerprint() != digits().fingerprint()
    assert digits(tmp_path, digit_source="sklearn").source == "sklearn"
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        digits(tmp_path)


def test_damaged_mnist_files_are_named(tmp_path):
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.arange(100) % 10)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((99, 28, 28)))
    with pytest.raises(DataError, match="99 images but 100 labels"):
        digits(tmp_path)
    images = tmp_path / "t10k-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: not a readable idx file"):
        digits(tmp_path)


# -- ZhangLab -----------------------------------------------------------------------------------------------------


def zhang(root, **settings):
    return build_dataset(configs.build("zhang_best", [f"{k}={v}" for k, v in settings.items()]), str(root))


def noisy(path, side=90):
    """An image on which filters differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(len(str(path))).randint(0, 256, (side, side + 20), np.uint8)
    Image.fromarray(pixels).save(path)


def make_zhang(root, train=10, test=3, names=("NORMAL", "PNEUMONIA"), splits=("train", "test")):
    for split in splits:
        for label, name in enumerate(names):
            for i in range(train if split == "train" else test):
                stem = f"person{i}_{'virus' if i % 2 else 'bacteria'}_{i}" if label else f"IM-{i:04d}"
                write_image(root / split / name / f"{stem}.jpeg", 10 * i)


@pytest.mark.parametrize("above", ["", "chest_xray", "CellData/chest_xray"])
def test_zhang_official_layout(tmp_path, above):
    make_zhang(tmp_path / above)
    write_image(tmp_path / above / "val" / "NORMAL" / "kaggle.jpeg")  # belongs to train
    write_image(tmp_path / above / "val" / "NORMAL" / "IM-0003.jpeg")  # and is there already
    items = zhang(tmp_path).items
    by_class = {s: [sum(i.label == k for i in items[s]) for k in (0, 1)] for s in items}
    assert by_class == {"train": [9, 8], "val": [2, 2], "test": [3, 3]}
    assert {i.kind for i in items["test"]} == {"normal", "bacterial", "viral"}
    assert not {i.path for i in items["train"]} & {i.path for i in items["val"]}
    assert [i.path for i in items["val"]] == [i.path for i in zhang(tmp_path, seed=5).items["val"]]


def test_all_images_of_a_person_are_held_out_of_zhanglab_or_none(tmp_path):
    for label, (name, disease) in enumerate((("NORMAL", "NORMAL"), ("PNEUMONIA", "VIRUS"))):
        for i in range(12):  # as Mendeley calls them
            write_image(tmp_path / "train" / name / f"{disease}-{1000 * label + i // 3}-{i % 3:04}.jpeg", 10 * i)
        write_image(tmp_path / "test" / name / f"{disease}-{1000 * label + 77}-0001.jpeg")
    items = zhang(tmp_path).items
    train, val = ({item.person for item in items[split]} for split in ("train", "val"))
    assert not train & val and len(items["val"]) == 2 * 3 and len(train) == 2 * 3


def test_zhang_validation_list(tmp_path):
    make_zhang(tmp_path)
    listed = {"NORMAL": ["IM-0003.jpeg"], "PNEUMONIA": ["person4_bacteria_4.jpeg"]}
    (tmp_path / "val_split.json").write_text(json.dumps({"val": listed}))
    data = zhang(tmp_path)
    assert [i.path.name for i in data.items["val"]] == ["IM-0003.jpeg", "person4_bacteria_4.jpeg"]
    assert len(data.training_images(0)) == 9
    (tmp_path / "chest_xray").mkdir()
    for name in ("train", "test", "val_split.json"):
        (tmp_path / name).rename(tmp_path / "chest_xray" / name)
    assert zhang(tmp_path).fingerprint() == zhang(tmp_path / "chest_xray").fingerprint()
    assert [i.path.name for i in zhang(tmp_path).items["val"]] == ["IM-0003.jpeg", "person4_bacteria_4.jpeg"]
    for name in ("train", "test"):
        (tmp_path / "chest_xray" / name).rename(tmp_path / name)
    (tmp_path / "val_split.json").write_text(json.dumps({"val": {**listed, "NORMAL": ["gone.jpeg"]}}))
    with pytest.raises(DataError, match="gone.jpeg"):
        _ = zhang(tmp_path).items
    (tmp_path / "val_split.json").write_text("[]")
    with pytest.raises(DataError, match="val_split.json: must be"):
        _ = zhang(tmp_path).items


def test_our_validation_list_is_taken_where_all_its_images_are_there(tmp_path, capsys):
    (folder := tmp_path / "all").mkdir()
    make_zhang(folder, train=6)
    ours = json.loads(OUR_LIST.read_text())["val"]
    assert [len(names) for names in ours.values()] == [100, 100]
    for name, files in ours.items():
        for file in files:
            write_image(folder / "train" / name / file)
    assert {i.path.name for i in zhang(folder).items["val"]} == {*ours["NORMAL"], *ours["PNEUMONIA"]}
    assert capsys.readouterr().err == ""
    (folder / "train" / "NORMAL" / ours["NORMAL"][0]).unlink()
    assert {i.path.name for i in zhang(folder).items["val"]} != {*ours["NORMAL"], *ours["PNEUMONIA"]}
    assert len(zhang(folder).items["val"]) == 21 + 21  # a fifth of each
    assert "has not all images of zhang_val_split.json" in capsys.readouterr().err


def test_the_fingerprint_knows_the_files_and_not_where_they_lie(tmp_path):
    make_zhang(tmp_path / "a")
    make_zhang(tmp_path / "b" / "chest_xray")
    first = zhang(tmp_path / "a").fingerprint()
    assert zhang(tmp_path / "b").fingerprint() == first
    image = zhang(tmp_path / "a").items["val"][-1].path
    Image.effect_noise((200, 200), 50).save(image)
    assert zhang(tmp_path / "a").fingerprint() != first


def test_a_name_that_is_no_text_is_refused(tmp_path):
    make_zhang(tmp_path)
    image = next((tmp_path / "test" / "NORMAL").iterdir())
    os.rename(image, os.fsencode(image.parent) + b"/\xff.jpeg")
    with pytest.raises(DataError, match=r"udcff.jpeg': its name is no UTF-8"):
        _ = zhang(tmp_path).items


def test_zhang_squid_layout(tmp_path):
    make_zhang(tmp_path, names=("normal_256", "pneumonia_256"), splits=("train", "val", "test"))
    data = zhang(tmp_path)
    assert len(data.training_images(0)) == 10 and data.split("val").in_words() == "3 normal, 3 anomalous"
    assert data.split("test").ids[0] == "test/normal_256/IM-0000.jpeg"


def test_zhang_missing_data_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"no such folder\. Get 'Chest X-Ray Images"):
        _ = zhang(tmp_path / "absent").items
    with pytest.raises(DataError, match="holds neither train/NORMAL"):
        _ = zhang(tmp_path).items
    make_zhang(tmp_path)
    for file in (tmp_path / "test" / "NORMAL").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"No test NORMAL image in .*NORMAL"):
        _ = zhang(tmp_path).items
    (tmp_path / "test" / "NORMAL").rmdir()
    with pytest.raises(DataError, match=r"test/NORMAL: no such folder"):
        _ = zhang(tmp_path).items
    for file in (tmp_path / "train" / "PNEUMONIA").iterdir():
        file.unlink()
    (tmp_path / "test" / "NORMAL").mkdir()
    with pytest.raises(DataError, match=r"No train PNEUMONIA image"):
        _ = zhang(tmp_path).items


def test_zhang_unreadable_training_image_is_named(tmp_path):
    make_zhang(tmp_path)
    name = zhang(tmp_path).training_items()[0].path
    name.write_bytes(name.read_bytes()[:100])
    with pytest.raises(DataError, match=name.name):
        zhang(tmp_path).training_images(0)


# -- CheXpert -----------------------------------------------------------------------------------------------------


def chexpert(root):
    return build_dataset(configs.build("chexpert_best"), str(root))


def make_chexpert_csv(root, patients=60):
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Edema", "Support Devices"]
    rows = []
    for p in range(patients):
        for view in range(1, 3):
            path = f"CheXpert-v1.0-small/train/patient{p:05d}/study1/view{view}_frontal.jpg"
            write_image(root / path.split("/", 1)[1])
            rows.append([path, "Male", 50, "Frontal", "PA", "1.0" if p % 2 else "", "" if p % 2 else "1.0", ""])
        rows.append([rows[-1][0], "Male", 50, "Lateral", "", "1.0", "", ""])
        rows.append([rows[-2][0], "Male", 50, "Frontal", "AP", "1.0", "", ""])
    with open(root / "train.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_chexpert_csv_is_split_by_patient(tmp_path):
    make_chexpert_csv(tmp_path)
    items = chexpert(tmp_path).items
    by_class = {s: [sum(i.label == k for i in items[s]) for k in (0, 1)] for s in ("val", "test")}
    assert by_class == {"val": [6, 6], "test": [6, 6]}  # a tenth of 60 each
    patients = {s: {i.path.parts[-3] for i in items[s]} for s in items}
    assert not patients["train"] & patients["val"] and not patients["train"] & patients["test"]
    assert not patients["val"] & patients["test"]
    assert sum(map(len, items.values())) <= 120 and len(items["train"]) >= 80


def test_chexpert_csv_errors(tmp_path):
    make_chexpert_csv(tmp_path, 20)
    next(tmp_path.rglob("view1_frontal.jpg")).unlink()
    with pytest.raises(DataError, match="Unpack the download again"):
        _ = chexpert(tmp_path).items
    make_chexpert_csv(tmp_path, 20)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    path = lines[1].split(",")[0]
    for damaged, message in (
        (f"{path},Male,50,Frontal,PA", "line 2: has too few"),
        (f"{path},Male,50,Frontal,PA,maybe,,", "line 2: No Finding = 'maybe' is not"),
        (f"{path},Male,50,Frontal,PA,1.0,,\n{path},Male,50,Frontal,PA,0.0,,", "line 3: .* is listed twice"),
    ):
        (tmp_path / "train.csv").write_text("\n".join([lines[0], damaged, *lines[2:]]))
        with pytest.raises(DataError, match=message):
            _ = chexpert(tmp_path).items
    (tmp_path / "train.csv").write_bytes("Path,No Finding\nx,é".encode("latin-1"))
    with pytest.raises(DataError, match="not a CSV file|no column"):
        _ = chexpert(tmp_path).items
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column Path"):
        _ = chexpert(tmp_path).items
    with pytest.raises(DataError, match="Register for CheXpert"):
        _ = chexpert(tmp_path / "absent").items


def test_chexpert_repeated_rows_count_once_and_a_byte_order_mark_is_read(tmp_path):
    make_chexpert_csv(tmp_path)
    before = {s: len(i) for s, i in chexpert(tmp_path).items.items()}
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\ufeff" + "\n".join(lines + lines[1:]), encoding="utf-8")
    assert {s: len(i) for s, i in chexpert(tmp_path).items.items()} == before


def test_chexpert_folders(tmp_path):
    for split in ("train_256_pa", "val_256_pa", "our_test_256_pa"):
        for name in ("normal_256", "abnormal_256"):
            write_image(tmp_path / split / name / "a.png")
    data = chexpert(tmp_path)
    assert len(data.training_images(0)) == 1 and data.split("test").kinds == ["normal", "abnormal"]
    (tmp_path / "val_256_pa" / "normal_256" / "a.png").unlink()
    with pytest.raises(DataError, match="No val normal_256 image"):
        _ = chexpert(tmp_path).items


# -- roots and batches ----------------------------------------------------------------------------------------------


def test_data_root_comes_from_the_option_the_variable_or_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("ANOMALY_DATA_ROOT", str(tmp_path / "variable"))
    (tmp_path / "variable").mkdir()
    assert zhang("").root == tmp_path / "variable"
    (tmp_path / "option").mkdir()
    assert zhang(tmp_path / "option").root == tmp_path / "option"
    (tmp_path / "variable" / "zhang").mkdir(parents=True)
    assert zhang("").root == tmp_path / "variable" / "zhang"
    monkeypatch.delenv("ANOMALY_DATA_ROOT")
    assert zhang("", data_root=tmp_path / "settings").root == tmp_path / "settings"
    assert str(zhang("").root) == "data/zhang"


def test_an_unknown_dataset_is_refused():
    with pytest.raises(configs.ConfigError, match="known are digit"):
        build_dataset(configs.build("digit_quick", ["dataset=digits"]))


def test_augmentation_is_torchvisions():
    image = torch.rand(6, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    parameters = draw_affine(6, generator(0))
    ours = affine(image, parameters)
    for i, (x, y, scale) in enumerate(parameters.tolist()):
        shift = [round(40 * x), round(40 * y)]
        theirs = torchvision_affine(image[i], 0.0, shift, scale, [0.0, 0.0], InterpolationMode.NEAREST)
        assert (ours[i] != theirs).float().mean() < 0.002  # rounding of positions that fall between two pixels
    drawn = draw_affine(1000, generator(1))
    assert drawn[:, :2].abs().max() <= 0.05 and drawn[:, 2].min() >= 0.95 and drawn[:, 2].max() <= 1.05


def test_order_and_augmentation_are_functions_of_seed_and_epoch():
    def loader(seed):
        data = digits(seed=seed, batch_size=8, augment=True)
        return TrainLoader(data, data.config, CPU)

    first = list(loader(0).epoch(2).batches())
    for one, other in zip(first, loader(0).epoch(2).batches(), strict=True):
        assert torch.equal(one.indices, other.indices) and torch.equal(one.images, other.images)
    indices = [batch.indices for batch in first]
    assert [len(of) for of in indices] == [8, 8, 4] and len(torch.cat(indices).unique()) == 20
    assert [batch.step for batch in first] == [0, 1, 2]
    for one, other in zip(first[1:], loader(0).epoch(2).batches(1), strict=True):
        assert torch.equal(one.images, other.images) and one.step == other.step
    assert not torch.equal(indices[0], next(loader(0).epoch(3).batches()).indices)
    assert not torch.equal(indices[0], next(loader(1).epoch(2).batches()).indices)


def test_max_batches_cuts_the_epoch_and_in_order_the_images():
    data = digits(batch_size=4, max_batches=2)
    loader = TrainLoader(data, data.config, CPU)
    assert len(loader.epoch(0)) == 2
    first = data.training_images(0)[:10].unsqueeze(1).float() / 255
    assert torch.equal(torch.cat(list(loader.in_order(0, 10))), first)  # whatever the epoch's length
    assert len(torch.cat(list(loader.in_order(0)))) == 20
    assert not torch.equal(torch.cat(list(loader.in_order(1, 10))), first)


# -- real data, where it stands beside the checkout -------------------------------------------------------------------


@needs_shared
def test_real_zhanglab():
    data = zhang(SHARED / "zhanglab")
    counts = {s: [sum(i.label == k for i in data.items[s]) for k in (0, 1)] for s in data.items}
    assert counts == {"train": [1249, 3783], "val": [100, 100], "test": [234, 390]}
    assert {i.kind for i in data.items["test"]} == {"normal", "bacterial", "viral"}
    image = read_image(data.training_items()[0].path, 128, "bicubic")
    assert image.shape == (128, 128) and 60 < image.mean() < 200


@needs_shared
def test_real_mnist():
    data = digits(SHARED / "mnist", image_size=96)
    assert data.source == "mnist" and sum(len(s) for s in data._specimens["train"]) == pytest.approx(7000, abs=10)
