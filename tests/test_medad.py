"""The Med-AD benchmarks: the layout, duplicates, and making it from the original downloads."""

import csv
import importlib.util
import json
import shutil
import zlib

import numpy as np
import pytest
from conftest import Golden, fill
from PIL import Image
from tiny import SMALL, command

import configs
from dataloader import DataError, build_dataset
from dataloader.medad import BRAIN_KIND
from tools import import_official, make_tables, prepare_data
from tools.originals import READERS, brain
from tools.prepare_data import COUNTS

LISTS = {"train": {"0": 12, "unlabeled": {"0": 4, "1": 6}}, "test": {"0": 6, "1": 6}}
TINY = [*SMALL, "batch_size=4", "epochs=1"]
DDAD = [*TINY, "members=2", "extra_data=8", "refine_epochs=1", "refine_batch_size=4"]
pydicom_is_there = importlib.util.find_spec("pydicom") is not None
needs_pydicom = pytest.mark.skipif(not pydicom_is_there, reason="pip install -r requirements-dicom.txt")


def write(path, seed, size=(60, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, size, np.uint8)).save(path)


def make_medad(root, lists=LISTS):
    """A layout of random images; returns data.json's content."""
    number = 0

    def made(tree, prefix):
        nonlocal number
        if isinstance(tree, dict):
            return {key: made(value, f"{prefix}_{key}") for key, value in tree.items()}
        names = []
        for _ in range(tree):
            number += 1
            names.append(f"Tr-{('gl', 'me')[number % 2]}{prefix}_{number}.png")
            write(root / "images" / names[-1], number)
        return names

    content = made(lists, "")
    (root / "data.json").write_text(json.dumps(content))
    return content


def dataset(root, *overrides, config="ddad_brain_ae"):
    more = ["extra_data=8"] if config.startswith("ddad") else []
    return build_dataset(configs.build(config, ["image_size=48", *more, *overrides]), str(root))


def change(root, edit):
    content = json.loads((root / "data.json").read_text())
    edit(content)
    (root / "data.json").write_text(json.dumps(content))


# -- the layout -------------------------------------------------------------------------------------------------------


def test_training_unlabeled_and_test_images(tmp_path):
    content = make_medad(tmp_path)
    data = dataset(tmp_path)
    assert data.training_images(0).shape == (12, 48, 48) and data.unlabeled_images().shape == (8, 48, 48)
    chosen = [item.path.name for item in data.unlabeled_items]
    unlabeled = content["train"]["unlabeled"]
    assert chosen == unlabeled["0"][:4] + unlabeled["1"][:4]  # int(8 · 0.6) = 4 anomalous, the first of each list
    test = data.split("test")
    assert test.labels.tolist() == [0] * 6 + [1] * 6 and test.ids[0] == f"images/{content['test']['0'][0]}"
    assert test.kinds[:6] == ["normal"] * 6 and set(test.kinds[6:]) == {"glioma", "meningioma"}
    assert data.training_in_words() == "12 normal, 0 anomalous; unlabeled: 4 normal, 4 anomalous"
    assert data.record()["unlabeled_images"] == [f"images/{name}" for name in chosen]
    prints = {
        dataset(tmp_path, *o).fingerprint() for o in ([], ["anomaly_rate=0.5"], ["anomaly_rate=0.7"], ["extra_data=7"])
    }
    assert len(prints) == 3  # int(8 · 0.5) is 4 too


def test_a_short_pool_gives_what_it_has_and_says_so(tmp_path, capsys):
    make_medad(tmp_path)
    data = dataset(tmp_path, "extra_data=20")
    assert [item.label for item in data.unlabeled_items] == [0] * 4 + [1] * 6
    said = capsys.readouterr().err
    assert "8 normal unlabeled images are asked for, and all 4" in said
    assert "12 anomalous unlabeled images are asked for, and all 6" in said


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["test"]["1"].append("absent.png"), r"1 of 35 files are not in .*images, the first absent.png"),
        (lambda c: c["test"]["0"].append(c["train"]["0"][3]), "is named twice, in train 0 and in test 0"),
        (lambda c: c["train"]["unlabeled"]["1"].append(c["test"]["1"][0]), "in unlabeled 1 and in test 1"),
        (lambda c: c["train"]["unlabeled"].update({"1": []}), "asks for 4 anomalous unlabeled images, and there are"),
        (lambda c: c["train"]["unlabeled"].update({"0": []}), "asks for 4 normal unlabeled images, and there are"),
        (lambda c: c["test"].update({"1": []}), "No test anomalous image"),
        (lambda c: c.pop("test"), 'data.json: must be {"train"'),
        (lambda c: c["test"].update({"1": [3]}), "a name that is no string"),
    ],
)
def test_bad_lists_are_refused(tmp_path, edit, message):
    make_medad(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(DataError, match=message):
        dataset(tmp_path).fingerprint()


def test_an_empty_pool_does_not_matter_where_nothing_is_asked_of_it(tmp_path):
    make_medad(tmp_path)
    change(tmp_path, lambda c: c["train"]["unlabeled"].update({"1": []}))
    assert len(dataset(tmp_path, "anomaly_rate=0", "extra_data=4").unlabeled_items) == 4
    assert dataset(tmp_path, config="ae_brain").fingerprint()


@pytest.mark.parametrize("unlabeled", [None, {}])
def test_the_unlabeled_lists_are_needed_only_where_images_are_asked_of_them(tmp_path, unlabeled):
    make_medad(tmp_path)
    change(tmp_path, lambda c: c["train"].pop("unlabeled"))
    if unlabeled is not None:
        change(tmp_path, lambda c: c["train"].update(unlabeled=unlabeled))
    data = dataset(tmp_path, config="ae_brain")
    assert data.training_in_words() == "12 normal, 0 anomalous" and data.split("test").in_words()
    assert len(data.training_images(0)) == 12 and data.fingerprint()
    with pytest.raises(DataError, match="asks for 4 normal unlabeled images, and there are none"):
        dataset(tmp_path).fingerprint()


def test_unlabeled_images_that_are_not_there_matter_only_where_they_are_asked_for(tmp_path, capsys):
    content = make_medad(tmp_path)
    for name in content["train"]["unlabeled"]["1"][:2]:
        (tmp_path / "images" / name).unlink()
    data = dataset(tmp_path, config="ae_brain")
    assert [item.label for item in data.items["unlabeled"]] == [0] * 4 + [1] * 4
    assert "2 unlabeled images are not there; none is asked for" in capsys.readouterr().err
    with pytest.raises(DataError, match="2 of 34 files are not in"):
        _ = dataset(tmp_path).items
    (tmp_path / "images" / content["test"]["0"][0]).unlink()
    with pytest.raises(DataError, match="3 of 34 files are not in"):
        _ = dataset(tmp_path, config="ae_brain").items


@pytest.mark.parametrize(
    ("name", "folder"), [("rsna", "RSNA"), ("vindr", "VinCXR"), ("brain", "braintumor"), ("lag", "LAG")]
)
def test_medianomalys_folders_are_found(tmp_path, monkeypatch, name, folder):
    make_medad(tmp_path / "copy" / folder, {"train": {"0": 2}, "test": {"0": 2, "1": 2}})
    (tmp_path / "copy" / "ISIC2018_Task3").mkdir()
    config = configs.build("ae_brain", [f"dataset={name}", "image_size=48"])
    assert len(build_dataset(config, str(tmp_path / "copy")).training_images(0)) == 2
    monkeypatch.setenv("ANOMALY_DATA_ROOT", str(tmp_path / "copy"))
    assert build_dataset(config).root == tmp_path / "copy" / folder
    (tmp_path / "copy" / name).mkdir(exist_ok=True)  # where capitals matter, our own name goes first
    assert build_dataset(config).root.samefile(tmp_path / "copy" / name)


def test_masks_are_of_the_images_of_their_names(tmp_path):
    content = make_medad(tmp_path)
    marked = np.zeros((60, 50), np.uint8)
    marked[30:, :] = 255
    (tmp_path / "masks").mkdir()
    assert dataset(tmp_path).split("test").masks is None
    Image.fromarray(marked).save(tmp_path / "masks" / content["test"]["1"][2])
    masks = dataset(tmp_path).split("test").masks
    assert masks is not None and masks[8, 24:].all()
    assert masks.flatten(1).sum(1).tolist() == [0] * 8 + [48 * 24] + [0] * 3
    Image.fromarray(marked).save(tmp_path / "masks" / content["test"]["0"][0])
    with pytest.raises(DataError, match="a normal image"):
        dataset(tmp_path).split("test")


def test_a_missing_root_says_how_to_get_the_data(tmp_path):
    with pytest.raises(
        DataError,
        match="data.json: no such file. Get the original dataset .docs/datasets.md says where. and make the layout",
    ):
        dataset(tmp_path).fingerprint()
    with pytest.raises(
        DataError,
        match="none: no such folder. Get the original dataset .docs/datasets.md says where. and make the layout",
    ):
        dataset(tmp_path / "none")


def test_fewer_images_than_a_batch(workspace, capsys):
    make_medad(workspace / "brain")
    assert command("main", "--exp", "a", "--config", "ddad_brain_ae", "--data-root", "brain", "--device", "cpu",
                   "--set", *DDAD, "refine_batch_size=13") == 1  # fmt: skip
    assert (
        "the stage refine trains on 12 images, fewer than its batch of 13. Give --set refine_batch_size=12"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("config", ["ddad_brain_memae", "aeu_lag"])
def test_trains_without_validation_and_evaluates_with_and_without_duplicates(workspace, capsys, config):
    content = make_medad(workspace / "d")
    images = workspace / "d" / "images"
    shutil.copyfile(images / content["train"]["0"][0], images / content["test"]["0"][1])
    near = np.asarray(Image.open(images / content["train"]["unlabeled"]["1"][5])).copy()
    near[:3, :3] ^= 1
    Image.fromarray(near).save(images / content["test"]["1"][2])
    settings = DDAD if config.startswith("ddad") else TINY
    assert (
        command("main", "--exp", "a", "--config", config, "--data-root", "d", "--device", "cpu", "--set", *settings)
        == 0
    )
    assert "no validation set with anomalous images: best.pt will be the final epoch's" in capsys.readouterr().out
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    assert "There is no validation set" in shown and "normal 1 + 0; anomalous 0 + 1" in shown
    folder = workspace / "checkpoints" / "a"
    results = json.loads((folder / "results.json").read_text())
    found = results["duplicates_removed"]
    assert found["removed"] == {"normal": {"identical": 1, "near": 0}, "anomalous": {"identical": 0, "near": 1}}
    assert found["images"] == "5 normal, 5 anomalous" and found["scores"].keys() == results["scores"].keys()
    assert not any("at_val_threshold" in figures for figures in results["scores"].values())
    with open(folder / "scores.csv") as file:
        duplicates = {row["id"]: row["duplicate"] for row in csv.DictReader(file) if row["duplicate"]}
    names = content["test"]["0"][1], content["test"]["1"][2]
    assert duplicates == {f"images/{names[0]}": "identical", f"images/{names[1]}": "near"}
    assert command("eval", "--exp", "a", "--split", "val", "--device", "cpu") == 1
    assert "have no validation set" in capsys.readouterr().err

    assert command("make_tables", "a", module=make_tables) == 0
    with open("results/results.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows} == {"test", "test, duplicates removed"}
    if config.startswith("ddad"):
        assert sum(row["score"] == "ndm (one network)" for row in rows) == 4
        assert "ndm (one network)" in (workspace / "results" / "tables.md").read_text()

    assert command("prepare_data", "--check", "brain", "--data-root", "d", module=prepare_data) == 0
    said = capsys.readouterr().out
    assert "test, of train: normal 1 identical and 0 nearly, of 6; anomalous 0 identical and 1 nearly, of 6" in said


def test_a_class_of_duplicates_alone_leaves_no_figures(workspace):
    content = make_medad(workspace / "d")
    for name in content["test"]["0"]:
        shutil.copyfile(workspace / "d" / "images" / content["train"]["0"][0], workspace / "d" / "images" / name)
    assert (
        command("main", "--exp", "a", "--config", "ae_brain", "--data-root", "d", "--device", "cpu", "--set", *TINY)
        == 0
    )
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    found = json.loads((workspace / "checkpoints" / "a" / "results.json").read_text())["duplicates_removed"]
    assert found["images"] == "0 normal, 6 anomalous" and found["scores"] == {}


# -- original downloads -----------------------------------------------------------------------------------------------


def write_dicom(path, pixels, patient="", **tags):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.PatientID = patient
    if pixels is not None:
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
        ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
        ds.PixelData = pixels.tobytes()
        ds["PixelData"].VR = "OW"
    for name, value in tags.items():
        setattr(ds, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path)
    return path


def noise(seed, dtype=np.uint16):
    return np.random.RandomState(seed).randint(0, 4000 if dtype == np.uint16 else 256, (40, 30)).astype(dtype)


@needs_pydicom
def test_dicom_pixels_become_gray_of_the_right_polarity_and_range(tmp_path):
    from dataloader.dicom import read_dicom

    ramp = np.tile(np.arange(100, 164, dtype=np.uint16) * 10, (64, 1))

    def read(name, **tags):
        return np.asarray(read_dicom(write_dicom(tmp_path / f"{name}.dcm", ramp, **tags))).astype(int)

    expected = np.tile((np.arange(64) / 63 * 255).round(), (64, 1))
    assert np.array_equal(read("plain"), expected)
    assert np.array_equal(read("inverted", PhotometricInterpretation="MONOCHROME1"), 255 - expected)
    assert np.array_equal(read("rescaled", RescaleSlope=2, RescaleIntercept=-1000), expected)
    assert np.array_equal(read("falling", RescaleSlope=-1, RescaleIntercept=0), 255 - expected)
    windowed = read("window", WindowCenter=1315, WindowWidth=201)  # 1215 … 1415: below black, above white
    assert (windowed[:, :22] == 0).all() and (windowed[:, 42:] == 255).all() and 0 < windowed[0, 30] < 255
    tags = {"WindowCenter": 1315, "WindowWidth": 201, "RescaleSlope": -1, "RescaleIntercept": 0}
    raw = write_dicom(tmp_path / "raw.dcm", ramp, **tags)
    assert np.array_equal(np.asarray(read_dicom(raw, raw=True)).astype(int), expected)
    flat = write_dicom(tmp_path / "flat.dcm", np.full((8, 8), 7, np.uint16))
    assert (np.asarray(read_dicom(flat)) == 0).all()


@needs_pydicom
def test_dicom_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGLosslessSV1

    from dataloader.dicom import read_dicom

    packed = encapsulate([b"\xff\xd8 no jpeg \xff\xd9"])
    cases = {
        "no_pixels": (write_dicom(tmp_path / "a.dcm", None), "holds no pixel data"),
        "compressed": (
            write_dicom(tmp_path / "b.dcm", noise(0), syntax=JPEGLosslessSV1, PixelData=packed),
            "no installed decoder reads its compression, JPEG Lossless",
        ),
        "short": (write_dicom(tmp_path / "c.dcm", noise(0), PixelData=b"1234"), "its pixels cannot be read"),
        "absent": (tmp_path / "d.dcm", "no such file"),
        "no_width": (write_dicom(tmp_path / "f.dcm", noise(0), WindowCenter=9, WindowWidth=0), "cannot be applied"),
        "beside": (
            write_dicom(tmp_path / "g.dcm", noise(0), WindowCenter=90000, WindowWidth=100),
            "leaves one gray level",
        ),
    }
    (tmp_path / "e.dcm").write_text("not DICOM")
    cases["foreign"] = (tmp_path / "e.dcm", "not a readable DICOM file")
    for path, message in cases.values():
        with pytest.raises(DataError, match=f"{path.name}: .*{message}"):
            read_dicom(path)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DataError, match="needs pydicom 3 or newer: pip install -r requirements-dicom.txt"):
        read_dicom(tmp_path / "a.dcm")


def make_rsna(root):
    """30 normal and 24 opaque images of half as many patients; several rows for an opaque one."""
    classes, labels = ["patientId,class"], ["patientId,x,y,width,height,Target"]
    for i in range(60):
        kind = ("Normal", "Lung Opacity", "No Lung Opacity / Not Normal")[0 if i < 30 else 1 if i < 54 else 2]
        opaque = kind == "Lung Opacity"
        write_dicom(root / "stage_2_train_images" / f"id{i:02}.dcm", noise(i, np.uint8), patient=f"p{i // 2}")
        classes += [f"id{i:02},{kind}"] * (1 + opaque)
        labels += [f"id{i:02},1.0,2.0,3.0,4.0,1"] * 2 if opaque else [f"id{i:02},,,,,0"]
    (root / "stage_2_detailed_class_info.csv").write_text("\n".join(classes) + "\n")
    (root / "stage_2_train_labels.csv").write_text("\n".join(labels) + "\n")


def make_vindr(root):
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for i in range(54):
        write_dicom(root / "train" / f"v{i:02}.dicom", noise(i))
        for reader in range(3):  # an image is abnormal where any radiologist found something
            found = i >= 30 and reader < 2
            box = f"{3 * reader},{4 * reader},{3 * reader + 1.5},{4 * reader + 2}" if found else ",,,"
            rows.append(f"v{i:02},{'Cardiomegaly,3' if found else 'No finding,14'},R{reader},{box}")
    (root / "train.csv").write_text("\n".join(rows) + "\n")


def make_brain(root):
    for part, letters in (("Training", "Tr"), ("Testing", "Te")):
        for name, short, count in (
            ("notumor", "no", 15),
            ("glioma", "gl", 6),
            ("meningioma", "me", 6),
            ("pituitary", "pi", 3),
        ):
            for i in range(count):
                write(root / part / name / f"{letters}-{short}_{i:04}.jpg", zlib.crc32(f"{part}{name}{i}".encode()))


def make_lag(root):
    for name, count in (("non_glaucoma", 30), ("suspicious_glaucoma", 24)):
        for i in range(count):
            write(root / name / "image" / f"{i}.jpg", i + 100 * len(name))


def test_equal_names_in_training_and_testing_stay_apart(tmp_path):
    for part, kind in (
        ("Training", "notumor"),
        ("Testing", "notumor"),
        ("Training", "glioma"),
        ("Testing", "meningioma"),
    ):
        write(tmp_path / part / kind / "image(1).jpg", zlib.crc32(f"{part}{kind}".encode()))
    write(tmp_path / "Testing" / "glioma" / "other.jpg", 1)
    write(tmp_path / "Training" / "meningioma" / "third.jpg", 2)
    assert sorted(each.name for each in brain(tmp_path)) == [
        "Testing_notumor_image(1).jpg", "Training_notumor_image(1).jpg", "glioma_image(1).jpg",
        "meningioma_image(1).jpg", "other.jpg", "third.jpg",
    ]  # fmt: skip


def test_kinds_are_read_of_kaggles_names_and_of_those_with_their_class_in_front():
    kinds = {
        "Te-gl_1.jpg": "gl",
        "Tr-me_1.jpg": "me",
        "Te-glTr_1.jpg": "gl",
        "glioma_image(1).jpg": "gl",
        "Testing_meningioma_Te-me_1.jpg": "me",
        "gland_me.jpg": None,
    }
    found = {name: BRAIN_KIND.search(name) for name in kinds}
    assert {name: match and match[1] for name, match in found.items()} == kinds


MAKERS = {"rsna": make_rsna, "vindr": make_vindr, "brain": make_brain, "lag": make_lag}
DATASETS = [pytest.param(name, marks=[needs_pydicom] if name in ("rsna", "vindr") else []) for name in MAKERS]


def prepare(name, *arguments):
    return command("prepare_data", name, "--source", "original", "--out", name, *arguments, module=prepare_data)


@pytest.mark.parametrize("name", DATASETS)
def test_an_original_download_is_prepared_trained_on_and_evaluated(workspace, capsys, name):
    MAKERS[name](workspace / "original")
    assert prepare(name) == 0
    content = json.loads((workspace / name / "data.json").read_text())
    lists = [content["train"]["0"], *content["train"]["unlabeled"].values(), *content["test"].values()]
    files = [file for names in lists for file in names]
    assert len(files) == len(set(files)) and {p.name for p in (workspace / name / "images").iterdir()} == set(files)
    share = 30 / sum(n for (_, label), n in COUNTS[name].items() if label == 0)
    for (part, label), names in zip(COUNTS[name], lists, strict=True):
        wanted = COUNTS[name][part, label] * (
            share if label == 0 else 24 / sum(n for (_, of), n in COUNTS[name].items() if of)
        )
        assert abs(len(names) - wanted) <= 2, (part, label)
    if name in ("rsna", "vindr"):
        assert Image.open(workspace / name / "images" / files[0]).size == (512, 512)
        masks = {path.name: np.asarray(Image.open(path)) for path in (workspace / name / "masks").iterdir()}
        assert masks.keys() == set(content["test"]["1"])
        for mask in masks.values():  # a column of the original's 30 is 17.07 wide in 512, a row of its 40 12.8 high
            expected = np.zeros((512, 512), np.uint8)
            for rows, columns in {"rsna": [((25, 77), (17, 69))], "vindr": [((0, 26), (0, 26)), ((51, 77), (51, 77))]}[
                name
            ]:
                expected[slice(*rows), slice(*columns)] = 255
            assert np.array_equal(mask, expected)
        kept = workspace / name / "images" / content["test"]["1"][0]
        kept.write_bytes(written := kept.read_bytes() + b" ")
        (workspace / name / "masks" / kept.name).unlink()  # of a download that was prepared before there were masks

    assert prepare(name) == 0 and json.loads((workspace / name / "data.json").read_text()) == content
    if name in ("rsna", "vindr"):
        assert (workspace / name / "masks" / kept.name).is_file() and kept.read_bytes() == written
    (workspace / name / "data.json").unlink()
    assert prepare(name, "--seed", "1") == 0 and json.loads((workspace / name / "data.json").read_text()) != content

    settings = [*DDAD, "extra_data=4", "batch_size=4", "refine_batch_size=2"]
    assert command("main", "--exp", "a", "--config", f"ddad_{name}_ae", "--data-root", name, "--device", "cpu",
                   "--set", *settings) == 0  # fmt: skip
    assert command("eval", "--exp", "a", "--device", "cpu") == 0
    results = json.loads((workspace / "checkpoints" / "a" / "results.json").read_text())
    assert ("localisation" in results) == (name in ("rsna", "vindr"))


@needs_pydicom
def test_images_made_one_way_are_not_mixed_with_those_made_another(workspace, capsys):
    make_rsna(workspace / "original")
    assert prepare("rsna") == 0
    before = {path: path.read_bytes() for path in sorted((workspace / "rsna").rglob("*")) if path.is_file()}
    assert prepare("rsna", "--raw") == 1
    (workspace / "rsna" / "prepared.json").unlink()
    assert prepare("rsna") == 1
    assert capsys.readouterr().err.count("Name another folder with --out") == 2
    (workspace / "rsna" / "prepared.json").write_text('{"dataset": "rsna", "raw": false, "side": 512}\n')
    assert prepare("rsna") == 0
    assert before == {path: path.read_bytes() for path in sorted((workspace / "rsna").rglob("*")) if path.is_file()}


@needs_pydicom
def test_no_patient_is_in_the_test_set_and_outside(workspace):
    make_rsna(workspace / "original")
    assert prepare("rsna") == 0
    content = json.loads((workspace / "rsna" / "data.json").read_text())

    def patients(*lists):
        return {int(name[2:4]) // 2 for names in lists for name in names}

    train = patients(content["train"]["0"], *content["train"]["unlabeled"].values())
    assert train and not train & patients(*content["test"].values())


def test_the_authors_lists_are_followed(workspace, capsys):
    make_lag(workspace / "original")
    names = [f"{i}.png" for i in range(24)]  # numbers repeat between the classes; the ending is another one
    lists = {"train": {"0": names[:9], "unlabeled": {"0": names[9:12], "1": names[:5]}},
             "test": {"0": names[12:16], "1": names[5:9]}}  # fmt: skip
    (workspace / "authors.json").write_text(json.dumps(lists))
    assert prepare("lag", "--lists", "authors.json") == 0
    content = json.loads((workspace / "lag" / "data.json").read_text())
    assert content["train"]["0"][:2] == ["non_glaucoma_0.jpg", "non_glaucoma_1.jpg"]
    assert content["test"]["1"][0] == "suspicious_glaucoma_5.jpg"
    original = workspace / "original" / "suspicious_glaucoma" / "image" / "5.jpg"
    assert (workspace / "lag" / "images" / "suspicious_glaucoma_5.jpg").read_bytes() == original.read_bytes()
    lists["test"]["1"].append("99.png")
    (workspace / "authors.json").write_text(json.dumps(lists))
    assert prepare("lag", "--lists", "authors.json") == 1
    assert "1 files are not in the download, the first 99.png" in capsys.readouterr().err


def test_labels_of_several_rows_count_once(tmp_path):
    root = tmp_path
    (root / "train.csv").write_text(
        "image_id,class_name,class_id\na,No finding,14\na,No finding,14\nb,x,3\nb,No finding,14\n"
    )
    assert [(o.name, o.label) for o in READERS["vindr"](root)] == [("a.png", 0), ("b.png", 1)]
    (root / "stage_2_detailed_class_info.csv").write_text("patientId,class\na,Normal\nb,Lung Opacity\nb,Lung Opacity\n")
    (root / "stage_2_train_labels.csv").write_text("patientId,Target\na,0\nb,1\nb,1\n")
    assert [(o.name, o.label) for o in READERS["rsna"](root)] == [("a.png", 0), ("b.png", 1)]
    (root / "stage_2_train_labels.csv").write_text("patientId,Target\na,1\nb,1\n")
    with pytest.raises(DataError, match="a is 'Normal' .* but Target 1"):
        READERS["rsna"](root)


def test_boxes_are_an_images_own_in_corners(tmp_path):
    (tmp_path / "stage_2_detailed_class_info.csv").write_text("patientId,class\na,Normal\nb,Lung Opacity\n")
    labels = tmp_path / "stage_2_train_labels.csv"
    labels.write_text("patientId,x,y,width,height,Target\na,,,,,0\nb,1,2,30,40.5,1\nb,5,6,7,8,1\n")
    assert [o.boxes for o in READERS["rsna"](tmp_path)] == [(), ((1, 2, 31, 42.5), (5, 6, 12, 14))]
    labels.write_text("patientId,x,y,width,height,Target\na,,,,,0\nb,1,2,,4,1\n")
    with pytest.raises(DataError, match="labels.csv, line 3: x, y, width, height must be four numbers or blank"):
        READERS["rsna"](tmp_path)
    (tmp_path / "train.csv").write_text(
        "image_id,class_id,x_min,y_min,x_max,y_max\na,14,,,,\nb,3,10,20,30,40\nb,14,,,,\nb,0,1,2,3,4\n"
    )
    assert [o.boxes for o in READERS["vindr"](tmp_path)] == [(), ((10, 20, 30, 40), (1, 2, 3, 4))]


def test_bad_downloads_are_refused(workspace, capsys):
    for name, message in (("rsna", "stage_2_detailed_class_info.csv: no such list"), ("lag", "image: no such folder")):
        assert prepare(name) == 1
        assert message in capsys.readouterr().err
    (workspace / "original").mkdir()
    (workspace / "original" / "train.csv").write_text("image_id,rad_id\na,R1\n")
    assert prepare("vindr") == 1
    assert "has no column class_id" in capsys.readouterr().err
    (workspace / "original" / "train.csv").write_text("image_id,class_id\na,14\n")
    assert prepare("vindr") == 1
    assert "none of the 1 listed images is there, for example" in capsys.readouterr().err
    write(workspace / "original" / "non_glaucoma" / "image" / "1.jpg", 0)
    write(workspace / "original" / "suspicious_glaucoma" / "image" / "2.jpg", 0)
    assert prepare("lag") == 1
    assert "too few images: nothing is left for" in capsys.readouterr().err
    assert command("prepare_data", module=prepare_data) == 2


# -- released weights -------------------------------------------------------------------------------------------------


def test_released_ensembles_are_imported_and_evaluated(workspace, capsys):
    import torch

    case = Golden("ddad/ddad_ae")
    shapes = case.info["official_state"]
    for module in "ab":
        for k in range(3):
            state = {name: fill(f"{module}{k}/{name}", shape) for name, shape in shapes["network"].items()}
            (workspace / "w" / module).mkdir(parents=True, exist_ok=True)
            torch.save(state, workspace / "w" / module / f"{k}.pth")
    (workspace / "w" / "refine").mkdir()
    state = {name: fill(f"refine/{name}", shape) for name, shape in shapes["refine"].items()}
    torch.save(state, workspace / "w" / "refine" / "refine_dual.pth")
    settings = ("--set", "image_size=32", "multiplier=0.5")
    call = (
        "import_official",
        "--config",
        "ddad_brain_ae",
        "--folder",
        "w",
        "--exp",
        "e",
        "--data-root",
        "d",
        *settings,
    )
    assert command(*call, "members=2", module=import_official) == 1
    assert "holds 0.pth, 1.pth, 2.pth, not 0.pth, 1.pth. Give the number" in capsys.readouterr().err
    assert command(*call, module=import_official) == 0
    assert "refine_intra.pth is not there" in capsys.readouterr().out
    make_medad(workspace / "d")
    assert command("eval", "--exp", "e", "--device", "cpu") == 0
    results = json.loads((workspace / "checkpoints/e/results.json").read_text())
    assert set(results["scores"]) == {"r_dual", "inter", "intra", "rec"}
    assert (
        command("import_official", "--config", "ae_brain", "--folder", "w", "--exp", "f", module=import_official) == 1
    )
