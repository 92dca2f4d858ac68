"""COVIDx: its list files, and the ways in which real copies differ from them."""

from collections import Counter

import pytest
from test_data import write_image
from tiny import TINY, command

import configs
from dataloader import DataError, build_dataset
from tools import covidx_lists, prepare_data


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


def test_what_is_listed_again_counts_once(tmp_path):
    make_covidx(tmp_path)
    lines = (tmp_path / "test_COVIDx9A.txt").read_text().splitlines()
    rewrite(tmp_path, *lines, lines[0], name="test_COVIDx9A")
    assert covidx(tmp_path).split("test").in_words() == "3 normal, 6 anomalous"


@pytest.mark.parametrize(
    ("line", "name", "said"),
    [
        ("p0 t0.png COVID-19 rsna", "test_COVIDx9A", "t0.png: is listed as normal of test, and as COVID-19 of test"),
        ("p0 n0.png normal rsna", "val_squid", "n0.png: is listed as normal of train, and as normal of val"),
    ],
)
def test_what_is_listed_as_two_things_is_named(tmp_path, line, name, said):
    make_covidx(tmp_path)
    rewrite(tmp_path, *(tmp_path / f"{name}.txt").read_text().splitlines(), line, name=name)
    with pytest.raises(DataError, match=said):
        _ = covidx(tmp_path).items


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


def test_a_comment_is_no_line(tmp_path):
    make_covidx(tmp_path)
    rewrite(tmp_path, "# ours", "p0 v0.png normal rsna", "p1 v1.png COVID-19 cohen")
    assert [i.path.name for i in covidx(tmp_path).items["val"]] == ["v0.png", "v1.png"]


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


# -- lists made of COVIDx's own ---------------------------------------------------------------------------------------


def make_official(source, version="9A", patients=60):
    """COVIDx's lists: patients of one to three images; the first two are in the test list too. Returns the lines."""
    train = []
    for p in range(patients):
        kind = ("normal", "pneumonia", "COVID-19")[p % 3]
        train += [f"patient {p} p{p}_{i}.png {kind} rsna" for i in range(1 + p // 3 % 3)]
    test = [f"t{i} t{i}.png {('normal', 'pneumonia', 'COVID-19')[i % 3]} rsna" for i in range(12)]
    test += ["patient 0 t12.png normal rsna", "patient 1 t13.png pneumonia rsna"]
    source.mkdir(parents=True, exist_ok=True)
    (source / f"train_COVIDx{version}.txt").write_text("\n".join([*train, train[-1]]) + "\n")
    (source / f"test_COVIDx{version}.txt").write_text("\n".join(test) + "\n")
    return train, test


def make_lists(*arguments, out="out"):
    return command("prepare_data", "covidx", "--source", "labels", "--out", out, *arguments, module=prepare_data)


def entries(path):
    return [line.rsplit(" ", 3) for line in path.read_text().splitlines() if line[0] != "#"]


def test_lists_are_made_by_patient(workspace, capsys):
    listed, tested = make_official(workspace / "labels")
    assert make_lists() == 0
    said = capsys.readouterr().out
    assert "2 training images whose patients are in the test list are left out" in said
    assert "These are not the lists of SQUID's authors" in said
    out = workspace / "out"
    normal, abnormal, val = (
        entries(out / f"{name}.txt") for name in ("train_squid", "train_squid_abnormal", "val_squid")
    )
    assert (out / "test_COVIDx9A.txt").read_text() == (workspace / "labels" / "test_COVIDx9A.txt").read_text()
    assert {kind for *_, kind, _ in normal} == {"normal"} and {e[2] for e in abnormal} == {"pneumonia", "COVID-19"}
    # every image once, those of patients 0 and 1 in none
    files = [name for _, name, *_ in (*normal, *abnormal, *val)]
    assert sorted(files) == sorted(line.rsplit(" ", 3)[1] for line in listed[2:])
    persons = [
        {patient for patient, *_ in part} for part in ((*normal, *abnormal), val, entries(out / "test_COVIDx9A.txt"))
    ]
    assert not persons[0] & persons[1] and not (persons[0] | persons[1]) & persons[2]
    kinds = [kind for *_, kind, _ in val]  # a tenth of 38, 38 and 39, though four or five are in the test list
    assert {kind: kinds.count(kind) for kind in kinds} == {"normal": 3, "pneumonia": 3, "COVID-19": 3}
    assert all(
        (out / f"{name}.txt").read_text().startswith("# not the authors' list") for name in ("train_squid", "val_squid")
    )


def test_lists_follow_from_the_seed_and_can_be_read(workspace):
    make_official(workspace / "out")  # beside the images, as they come
    text = (workspace / "out" / "test_COVIDx9A.txt").read_bytes()
    assert command("prepare_data", "covidx", "--source", "out", "--out", "out", module=prepare_data) == 0
    val = workspace / "out" / "val_squid.txt"
    first = val.read_text()
    assert command("prepare_data", "covidx", "--source", "out", "--out", "out", module=prepare_data) == 0
    assert val.read_text() == first and (workspace / "out" / "test_COVIDx9A.txt").read_bytes() == text
    for folder, names in (
        ("train", ("train_squid", "train_squid_abnormal", "val_squid")),
        ("test", ("test_COVIDx9A",)),
    ):
        for name in names:
            for i, (_, file, *_) in enumerate(entries(workspace / "out" / f"{name}.txt")):
                write_image(workspace / "out" / folder / file, i, (8, 8))
    items = covidx(workspace / "out").items
    assert [len(items[split]) for split in ("val", "test")] == [9, 14]
    assert command("prepare_data", "covidx", "--source", "out", "--out", "out", "--seed", "1", module=prepare_data) == 0
    assert val.read_text() != first


def test_no_more_are_held_out_than_the_test_list_has():
    listed = [
        covidx_lists.Entry("", f"{kind}{i // 2}", f"{kind}{i}.png", kind) for kind in ("normal", "b") for i in range(80)
    ]
    train, val = covidx_lists.hold_out(listed, Counter(normal=5, b=20), 0)
    assert Counter(entry.label for entry in val) == Counter(normal=4, b=8)  # patients of two images each go whole
    assert sorted(train + val) == sorted(listed)


def test_another_version_of_the_lists_is_named_in_them(workspace):
    make_official(workspace / "labels", "_CXR-3A")
    assert make_lists() == 0
    for name in ("train_squid", "val_squid", "test_COVIDx9A"):
        assert "COVIDx_CXR-3A.txt" in (workspace / "out" / f"{name}.txt").read_text().splitlines()[0]
    assert len(entries(workspace / "out" / "test_COVIDx9A.txt")) == 14


def test_lists_that_cannot_be_made_and_those_of_others(workspace, capsys):
    assert make_lists() == 1
    assert "labels: holds no training and test list of one version. Name the folder" in capsys.readouterr().err
    make_official(workspace / "labels")
    (workspace / "out").mkdir()
    (workspace / "out" / "val_squid.txt").write_text("p1 theirs.png normal rsna\n")
    assert make_lists() == 1
    assert "val_squid.txt: is there already, and not made by this tool" in capsys.readouterr().err
    assert [path.name for path in (workspace / "out").iterdir()] == ["val_squid.txt"]
    (workspace / "labels" / "train_COVIDx9A.txt").write_text("p1 a.png positive rsna\n")
    assert make_lists(out="new") == 1
    assert "train_COVIDx9A.txt, line 1: the label is 'positive'" in capsys.readouterr().err
    (workspace / "labels" / "train_COVIDx9A.txt").write_text("p1 a.png normal rsna\n")
    assert make_lists(out="new") == 1
    assert "has too few images of a class" in capsys.readouterr().err
    assert make_lists("--raw") == 2
