"""Decoded images that are kept: read as from their files, decoded once, and never in anybody's way."""

import errno
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from forks import start
from PIL import Image

import configs
from dataloader import DataError, build_dataset, cache, images
from dataloader.cache import VARIABLE, Kept
from dataloader.images import read_images

SIDE = 32  # so that the images of training are more than zipfile reads at once
COUNTS = {"train": 6, "val": 4, "test": 5}


def write(path, value):
    """An image of noise that ``value`` decides; all files have the same size and time of change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(value).randint(0, 256, (30, 20), np.uint8)).save(path)
    os.utime(path, ns=(0, 0))
    return path


@pytest.fixture
def root(tmp_path):
    for k, (split, count) in enumerate(COUNTS.items()):
        for i in range(count):
            write(tmp_path / "data" / split / "good" / f"{i}.bmp", 10 * k + i)
    return tmp_path / "data"


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of the cache, which keeps as few images as one."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LEAST", 1)
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded, to be cleared."""
    names, read = [], images.read_image

    def counted(path, *arguments):
        names.append(f"{path.parent.parent.name}/{path.name}")
        return read(path, *arguments)

    monkeypatch.setattr(images, "read_image", counted)
    return names


def opened(root, *overrides):
    settings = ["dataset=folder", f"image_size={SIDE}", *overrides]
    return build_dataset(configs.build("ae_brain", settings), str(root))


def read(root, *overrides):
    """As another start: training, validation and test images."""
    data = opened(root, *overrides)
    return torch.cat([data.training_images(0), data.split("val").images, data.split("test").images])


def read_plainly(root, *overrides):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "off")
        return read(root, *overrides)


def test_a_second_start_decodes_nothing_and_reads_the_same_to_the_last_bit(root, kept, decoded):
    plain = read_plainly(root)
    assert len(decoded) == 15 and not kept.exists()
    assert torch.equal(read(root), plain) and len(decoded) == 30
    again = read(root)
    assert torch.equal(again, plain) and again.dtype == torch.uint8 and again.shape == (15, SIDE, SIDE)
    assert len(decoded) == 30
    again[:] = 0  # what a start does with its images is its own
    assert torch.equal(read(root), plain) and len(decoded) == 30
    sizes = [ZipFile(file).getinfo("pixels").file_size for file in kept.glob("data-*-32-*.zip")]
    assert sorted(sizes) == [n * SIDE**2 for n in (4, 5, 6)]


def test_duplicates_are_looked_for_without_decoding_again(root, kept, decoded):
    (root / "test" / "good" / "3.bmp").write_bytes((root / "train" / "good" / "2.bmp").read_bytes())
    found = opened(root).duplicates()
    assert found == {"test/good/3.bmp": "identical"} and len(decoded) == 15
    assert opened(root).duplicates() == found and len(decoded) == 15


def test_a_changed_file_alone_is_decoded_again(root, kept, decoded):
    read(root)
    decoded.clear()
    changed = write(root / "train" / "good" / "2.bmp", 99)
    os.utime(changed, ns=(1, 1))  # of the same size
    assert torch.equal(read(root), read_plainly(root)) and decoded.count("train/2.bmp") == 2
    assert len(decoded) == 16
    decoded.clear()
    assert torch.equal(read(root)[2], torch.from_numpy(images.read_image(changed, SIDE, "bilinear")))
    assert decoded == ["train/2.bmp"]  # by the line above
    size = changed.stat().st_size
    Image.new("L", (50, 50)).save(changed)
    os.utime(changed, ns=(1, 1))  # of the same time
    assert changed.stat().st_size != size and (read(root)[2] == 0).all()


@pytest.mark.parametrize("changed", ["st_size", "st_mtime_ns", "st_ctime_ns"])
def test_each_number_alone_tells_that_a_file_changed(tmp_path, monkeypatch, changed):
    path = write(tmp_path / "a.bmp", 1)
    stat, before = path.stat(), cache.mark_of(path)
    numbers = {name: getattr(stat, name) for name in ("st_size", "st_mtime_ns", "st_ctime_ns")}
    # A program that restores the time of change leaves the inode's; where that is of the creation, the others tell.
    numbers[changed] += 1
    monkeypatch.setattr(Path, "stat", lambda self: SimpleNamespace(**numbers))
    after = cache.mark_of(path)
    assert after != before and cache.path_of(after) == cache.path_of(before) == path


def test_files_that_differ_in_nothing_but_their_path_are_told_apart(tmp_path, monkeypatch):
    paths = [write(tmp_path / name, 1) for name in ("a.bmp", "b.bmp")]
    stat = paths[0].stat()
    monkeypatch.setattr(Path, "stat", lambda self: stat)
    first, second = map(cache.mark_of, paths)
    assert first != second


def test_new_files_are_decoded_and_removed_ones_forgotten(root, kept, decoded):
    read(root)
    decoded.clear()
    (root / "train" / "good" / "1.bmp").unlink()
    shorter = read(root)
    assert decoded == [] and torch.equal(shorter, read_plainly(root)) and len(shorter) == 14
    decoded.clear()
    write(root / "train" / "good" / "0new.bmp", 77)  # in the midst of the order
    assert torch.equal(read(root), read_plainly(root)) and decoded.count("train/0new.bmp") == 2
    (file,) = kept.glob("data-train-*.zip")
    with ZipFile(file) as archive:
        names = [os.path.basename(mark) for mark in json.loads(archive.read("index.json"))["marks"]]
        assert sorted(names) == ["0.bmp", "0new.bmp", "2.bmp", "3.bmp", "4.bmp", "5.bmp"]
        assert archive.getinfo("pixels").file_size == 6 * SIDE**2


def test_lists_that_share_files_keep_what_each_of_them_needs(root, kept, decoded):
    files = sorted((root / "train" / "good").iterdir())

    def taken(chosen):
        found = read_images([files[i] for i in chosen], SIDE, "train", "box", root=root).numpy()
        expected = [np.array(Image.open(files[i]).resize((SIDE, SIDE), Image.Resampling.BOX)) for i in chosen]
        assert np.array_equal(found, expected)

    taken([0, 1, 2, 3])
    taken([5, 3, 0])  # as anomalous images that another seed draws
    assert len(decoded) == 5
    taken([3, 2, 1, 0, 3])
    taken([5])
    assert len(decoded) == 5


@pytest.mark.parametrize("other", ["image_size=16", "resize=bicubic", "fit=pad"])
def test_other_settings_are_read_anew_and_kept_beside(root, kept, decoded, other):
    read(root)
    assert torch.equal(read(root, other), read_plainly(root, other)) and len(decoded) == 45
    read(root)
    read(root, other)
    assert len(decoded) == 45


def test_another_reader_or_root_finds_nothing(root, kept, decoded, monkeypatch):
    read(root)
    monkeypatch.setattr(images, "READER", images.READER + 1)
    read(root)
    assert len(decoded) == 30 and len(list(kept.glob("*.zip"))) == 3
    root.rename(root.with_name("elsewhere"))
    read(root.with_name("elsewhere"))
    assert len(decoded) == 45


def test_few_changes_are_decoded_every_time_and_few_images_leave_no_file(root, kept, decoded, monkeypatch):
    monkeypatch.setattr(cache, "LEAST", 6)  # the training images and no others
    plain = read(root)
    (file,) = kept.glob("*.zip")
    before = file.read_bytes()
    for name in ("0.bmp", "4.bmp"):
        os.utime(root / "train" / "good" / name, ns=(1, 1))
    decoded.clear()
    for _ in range(2):
        assert torch.equal(read(root), plain)
    assert len(decoded) == 2 * (2 + 9) and file.read_bytes() == before
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, str(kept / "none"))
    read(root)
    assert not (kept / "none").exists()


@pytest.mark.parametrize("value", ["", "off", "OFF"])
def test_it_can_be_turned_off(root, kept, decoded, monkeypatch, value, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, value)
    read(root)
    read(root)
    assert len(decoded) == 30 and {path.name for path in tmp_path.iterdir()} == {"data"}


def test_without_a_name_they_lie_in_data_cache(root, kept, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE)
    read(root)
    assert len(list((tmp_path / "data" / "cache").glob("*.zip"))) == 3 and not kept.exists()


# -- what goes wrong --------------------------------------------------------------------------------------------------


def cut(file):
    file.write_bytes(file.read_bytes()[:900])


def flip(file):
    content = bytearray(file.read_bytes())
    content[700] ^= 1  # a pixel
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def foreign(file):
    with ZipFile(file, "w") as archive:
        archive.writestr("else.txt", "text")


def short(file):
    with ZipFile(file) as archive:
        index = archive.read("index.json")
    with ZipFile(file, "w") as archive:
        archive.writestr("pixels", bytes(SIDE**2 + 3))
        archive.writestr("index.json", index)


@pytest.mark.parametrize("damage", [cut, flip, empty, foreign, short])
def test_a_damaged_file_is_made_anew_with_a_note(root, kept, decoded, capsys, monkeypatch, damage):
    monkeypatch.setattr(cache, "LEAST", 3)  # more than the last image, before which the checksum is not looked at
    plain = read(root)
    (file,) = kept.glob("data-train-*.zip")
    damage(file)
    decoded.clear()
    assert torch.equal(read(root), plain) and len(decoded) == 6
    said = capsys.readouterr().err
    assert said.startswith(f"note: {file}: not a whole file of decoded images") and said.count("\n") == 1
    assert torch.equal(read(root), plain) and len(decoded) == 6 and capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_written_is_named_once(root, kept, capsys, tmp_path):
    kept.write_text("a file")
    plain = read_plainly(root)
    for _ in range(2):
        assert torch.equal(read(root), plain)
    said = capsys.readouterr().err
    assert said.startswith(f"note: {kept}: decoded images cannot be kept there") and said.count("\n") == 1
    assert f"Name another folder with ${VARIABLE}" in said and kept.read_text() == "a file"


def test_a_full_disk_ends_nothing_and_leaves_nothing(root, kept, capsys, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache.ZipFile, "writestr", full)
        assert torch.equal(read(root), read_plainly(root))
    said = capsys.readouterr().err
    assert "No space left on device" in said and said.count("\n") == 1
    assert not [path for path in kept.iterdir() if path.suffix != ".lock"]


def test_a_read_only_folder_is_read_from(root, kept, decoded, capsys, monkeypatch):
    """As root may write everywhere, by the errors of one."""
    plain = read(root)

    def refused(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "FileLock", refused)
    monkeypatch.setattr("system.files.os.replace", refused)
    assert torch.equal(read(root), plain) and len(decoded) == 15 and capsys.readouterr().err == ""
    write(root / "test" / "good" / "9.bmp", 9)
    assert len(read(root)) == 16 and decoded[15:] == ["test/9.bmp"]
    assert "Read-only file system" in capsys.readouterr().err


def test_of_an_unreadable_file_nothing_is_kept(root, kept, decoded):
    wrong = root / "train" / "good" / "3.bmp"
    content = wrong.read_bytes()
    wrong.write_bytes(content[:100])
    with pytest.raises(DataError, match="3.bmp: not a readable image"):
        read(root)
    assert not list(kept.glob("*.zip"))
    wrong.write_bytes(content)
    read(root)
    decoded.clear()
    data = opened(root)
    _ = data.items
    wrong.unlink()
    with pytest.raises(DataError, match="3.bmp: no such file"):
        data.training_images(0)


# -- several processes ------------------------------------------------------------------------------------------------


def read_beside_another(root, folder, log, out):
    """In a process of its own: every file that is decoded is a line of the log, which the processes share."""
    os.environ[VARIABLE], cache.LEAST, torch_read = str(folder), 1, images.read_image

    def logged(path, *arguments):
        with open(log, "a") as file:
            file.write(f"{path.name}\n")
        return torch_read(path, *arguments)

    images.read_image = logged
    files = sorted((root / "train" / "good").iterdir())
    found = read_images(files, SIDE, "train", "bilinear", root=root)
    out.write_text(hashlib.sha256(found.numpy().tobytes()).hexdigest())


def test_of_two_processes_one_decodes(root, kept, tmp_path):
    outs = [tmp_path / f"{k}.txt" for k in range(2)]
    processes = [start(read_beside_another, root, kept, tmp_path / "log", out) for out in outs]
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    plain = hashlib.sha256(read_plainly(root)[:6].numpy().tobytes()).hexdigest()
    assert [out.read_text() for out in outs] == [plain] * 2
    assert sorted((tmp_path / "log").read_text().split()) == [f"{i}.bmp" for i in range(6)]


def test_a_process_that_waited_too_long_decodes_itself(root, kept, decoded, monkeypatch):
    monkeypatch.setattr(cache, "WAIT", 0)
    files = sorted((root / "train" / "good").iterdir())
    with Kept(kept / images.kept_name(root, "train", SIDE, "box", "stretch", False), images.reader())._alone():
        first = read_images(files, SIDE, "train", "box", root=root)
    assert torch.equal(read_images(files, SIDE, "train", "box", root=root), first) and len(decoded) == 6
