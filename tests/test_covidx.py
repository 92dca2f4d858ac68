"""COVIDx: its list files, and the ways in which real copies differ from them."""

import pytest
from test_data import write_image
from tiny import TINY, command

import configs
from dataloader import DataError, build_dataset


def covidx(root, *overrides):
    return build_dataset(
        configs.build("simsid_covidx", ["image_size=64", "train_normal_fraction=1", *overrides]), str(root)
    )


def make_covidx(root, normal=10, abnormal=6):
    """A small copy in the real layout: every list, four fields, pneumonia and COVID-19."""
    lists = {
        "train_squid": [("train", f"n{i}.png", "normal") for i in range(normal)],
        "train_squid_abnormal": [("train", f"a{i}.png", ("pneumonia", "COVID-19")[i % 2]) for i in range(abnormal)],
        "val_squid": [("train", f"v{i}.png", ("normal", "COVID-19")[i % 2]) for i in range(8)],
        "test_COVIDx9A": [("test", f"t{i}.png", ("normal", "pneumonia", "COVID-19")[i % 3]) for i in range(9)],
    }
    for name, images in lists.items():
        for i, (folder, file, label) in enumerate(images):
            write_image(root / folder / file, 40 * (label == "normal") + 3 * i, (64, 64))
        (root / f"{name}.txt").write_text("".join(f"p{i} {f} {k} rsna\n" for i, (_, f, k) in enumerate(images)))


def rewrite(root, *lines, name="val_squid"):
    (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_lists_give_the_splits(tmp_path):
    make_covidx(tmp_path)
    data = covidx(tmp_path)
    assert data.training_images(0).shape == (10, 64, 64)
    assert data.split("val").in_words() == "4 normal, 4 anomalous"
    test = data.split("test")
    assert test.in_words() == "3 normal, 6 anomalous" and test.kinds[:3] == ["normal", "pneumonia", "COVID-19"]
    assert test.ids[0] == "test/t0.png"
    assert sum(item.label for item in data.items["train"]) == 6


def test_lines_are_read_from_the_right(tmp_path):
    make_covidx(tmp_path)
    rewrite(
        tmp_path,
        "p1 v0.png normal rsna",
        "a patient with spaces v1.png COVID-19 cohen",  # more fields because of the id
        "p2 v2.png normal",  # older lists have no source
        "two words v3.png pneumonia",
        "",
        "p4.png v4.png Normal",  # an id that looks like a file
        "p5 v5.png COVID-19 fig1",
    )
    items = covidx(tmp_path).items["val"]
    assert [i.path.name for i in items] == [f"v{i}.png" for i in range(6)]
    assert [i.kind for i in items] == ["normal", "COVID-19", "normal", "pneumonia", "normal", "COVID-19"]
    assert [i.label for i in items] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "line", ["v1.png normal", "p1 v1.png", "normal", "p1 v1.png normal rsna again", "p1,v1.png,normal,rsna"]
)
def test_a_line_that_is_none_is_named(tmp_path, line):
    make_covidx(tmp_path)
    rewrite(tmp_path, "p0 v0.png normal rsna", line)
    with pytest.raises(DataError, match=r"val_squid.txt, line 2: must be 'patient_id filename label source'"):
        _ = covidx(tmp_path).items


@pytest.mark.parametrize("label", ["positive", "negative"])
def test_lists_of_the_other_task_are_refused(tmp_path, label):
    make_covidx(tmp_path)
    rewrite(tmp_path, f"p0 t0.png {label} rsna", name="test_COVIDx9A")
    with pytest.raises(DataError, match=f"test_COVIDx9A.txt, line 1: the label is '{label}'.*normal, pneumonia and"):
        _ = covidx(tmp_path).items


def test_numbered_files_may_be_renamed_on_disk(tmp_path):
    make_covidx(tmp_path)
    write_image(tmp_path / "train" / "COVID-12.png")
    write_image(tmp_path / "train" / "COVID(3).png")
    rewrite(tmp_path, "p0 v0.png normal r", "p1 COVID(12).png COVID-19 r", "p2 COVID(3).png COVID-19 r")
    names = [i.path.name for i in covidx(tmp_path).items["val"]]
    assert names == ["v0.png", "COVID-12.png", "COVID(3).png"]


def test_missing_images_are_counted_and_too_many_are_an_error(tmp_path, capsys):
    make_covidx(tmp_path, normal=40)
    for i in (7, 20):
        (tmp_path / "train" / f"n{i}.png").unlink()
    data = covidx(tmp_path)
    assert len(data.training_images(0)) == 38
    assert data.record()["missing_files"] == {"train_squid.txt": ["n7.png", "n20.png"]}
    assert "train_squid.txt: 2 listed images are missing: n7.png, n20.png" in capsys.readouterr().err
    (tmp_path / "train" / "n1.png").unlink()
    with pytest.raises(DataError, match=r"train_squid.txt: 3 of 40 listed images are missing, more than 5%: n1.png"):
        _ = covidx(tmp_path).items


def test_missing_lists_and_folders_say_how_to_get_them(tmp_path):
    with pytest.raises(DataError, match="no such folder. Get COVIDx"):
        _ = covidx(tmp_path / "absent").items
    make_covidx(tmp_path)
    (tmp_path / "train_squid_abnormal.txt").unlink()
    assert len(covidx(tmp_path).training_images(0)) == 10  # only contaminated training needs it
    (tmp_path / "val_squid.txt").unlink()
    with pytest.raises(DataError, match="val_squid.txt: no such list"):
        _ = covidx(tmp_path).items


def test_an_experiment_on_covidx_records_what_it_trained_on(workspace):
    make_covidx(workspace / "data" / "covidx")
    tiny = [o for o in TINY["simsid"][1] if not o.startswith(("dataset", "digit", "image_size", "epochs"))]
    tiny += ["image_size=48", "epochs=1", "batch_size=5"]
    assert command("main", "--exp", "c", "--config", "simsid_covidx", "--device", "cpu", "--set", *tiny,
                   "train_normal_fraction=0.7") == 0  # fmt: skip
    assert '"7 normal, 3 anomalous"' in (workspace / "checkpoints" / "c" / "data.json").read_text()
    assert command("eval", "--exp", "c", "--device", "cpu") == 0
    assert (workspace / "checkpoints" / "c" / "results.json").exists()
