"""Wrong inputs by the hundred: each ends with an exit code, one error that names the file or key and says what to do,
no traceback, and every file as it was. Beside them odd inputs that are right and must work.

Commands run in this process, in a copy of a folder with three tiny experiments: ``a`` (an auto-encoder on digits, with
recorded scores), ``own`` (the same on the folder ``mine``) and ``s`` (SQUID on digits); the first two are evaluated.
"""

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_folder import link, make_mvtec, mark, write, write_csv
from test_medad import needs_pydicom, noise, write_dicom
from tiny import COMMANDS, FEW, TINY, command, train

import system.files
from methods import METHODS
from tools import batch, compare, import_official, influence, make_tables, prepare_data, rules, show_memory

MODULES = COMMANDS | {
    "batch": batch, "compare": compare, "import_official": import_official, "influence": influence,
    "make_tables": make_tables, "prepare_data": prepare_data, "rules": rules, "show_memory": show_memory,
}  # fmt: skip
SIDE = 32
AE = ["--config", "ae_brain", "--device", "cpu", "--set", *TINY["ae"][1]]
OWN = ["--config", "ae_brain", "--device", "cpu", "--set", "dataset=folder", f"image_size={SIDE}", "epochs=1",
       "multiplier=0.25", "hidden_size=64", "batch_size=4"]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that every case gets a copy of."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("ANOMALY_DATA_ROOT", raising=False)
        patch.setattr("dataloader.digit.COUNTS", FEW)
        make_mvtec(place / "mine", train=6)
        assert train("a", method="ae", overrides=["epochs=1", "record_scores=true", "average_decay=0.5"]) == 0
        assert command("main", "--exp", "own", "--data-root", "mine", *OWN) == 0
        assert train("s", overrides=["epochs=1"]) == 0
        for exp in ("a", "own"):
            assert command("eval", "--exp", exp, "--device", "cpu") == 0
    return place


@pytest.fixture
def place(made, workspace):
    """The copy; experiments know its folder of images."""
    shutil.copytree(made, workspace, dirs_exist_ok=True)
    edit(lambda content: content["settings"].update(data_root=str(workspace / "mine")))(workspace / OWN_CONFIG)
    return workspace


@pytest.fixture
def pictured(workspace):
    """An empty folder but for the images ``mine``."""
    make_mvtec(workspace / "mine", train=6)
    return workspace


OWN_CONFIG, CONFIG = Path("checkpoints/own/config.json"), Path("checkpoints/a/config.json")


def content_of(folder):
    """Every file below a folder, but locks, with what is in it."""
    paths = [Path(here) / name for here, _, names in os.walk(folder) for name in names if name != ".lock"]
    return {os.fsencode(p): os.readlink(p) if p.is_symlink() else p.read_bytes() for p in paths}


def check_refused(place, capsys, arguments, message, codes=(1,), remedy=None):
    """The command fails with one error that has the message and a remedy, and no file is other than before."""
    before = content_of(place)
    capsys.readouterr()
    name, *rest = arguments
    code = command(name, *rest, module=MODULES[name])
    error = capsys.readouterr().err
    assert code in codes, (code, error)
    assert "Traceback" not in error
    said = [line for line in error.splitlines() if re.search(r"(^| )error: ", line)]
    assert len(said) == 1 or name == "predict", error
    assert re.search(message, error, re.DOTALL), error
    assert (remedy or REMEDY).search(error), error
    after = content_of(place)
    assert after.keys() == before.keys() and all(after[file] == before[file] for file in after)


REMEDY = re.compile(
    r"\b(give|take|restore|train|remove|replace|rename|must|use|mend|save|put|move|fetch|write|leave|leaves|make|known|"
    r"add|keep|mean|name|choose|required|expected|between|evaluate|install|unpack|download|look|unrecognized|wait|run|"
    r"start|draw|at least|there are|stages of|these|go together|close|shut|compare|set|change|lower|fill|among|have|"
    r"it has|are the|is DDAD's)\b",
    re.IGNORECASE,
)  # what a message that says what to do has one of


def cases(*tables):
    """(arrangement or None, arguments, message) by name, of several tables: pytest's parameters."""
    return [pytest.param(*case, id=name) for table in tables for name, case in table.items()]


def edit(change):
    """An arrangement: JSON in a file, changed in place."""

    def arrange(path):
        content = json.loads(path.read_text())
        content = change(content) or content
        path.write_text(json.dumps(content, indent=2) + "\n")

    return arrange


# -- the command line and configurations ------------------------------------------------------------------------------

NEW = ["main", "--exp", "n"]
LINES = {
    "no experiment": (["main", "--config", "ae"], "required: --exp"),
    "no configuration": ([*NEW], "Experiment n is new: give --config, one of"),
    "unknown configuration": ([*NEW, "--config", "zang_best"], "Unknown configuration 'zang_best'. Did you mean zhang"),
    "a configuration that is a path": ([*NEW, "--config", "../evil.py"], "Unknown configuration"),
    "an empty configuration": ([*NEW, "--config", ""], "give --config|Unknown configuration"),
    "unknown option": ([*NEW, "--config", "ae", "--epochs", "3"], "unrecognized arguments: --epochs"),
    "unknown device": ([*NEW, "--config", "ae", "--device", "gpu"], "invalid choice: 'gpu'"),
    "seeds that are no numbers": ([*NEW, "--config", "ae", "--seeds", "a,b"], "--seeds a,b: write whole numbers"),
    "no seeds": ([*NEW, "--config", "ae", "--seeds", ""], "--seeds : write whole numbers"),
    "half a seed": ([*NEW, "--config", "ae", "--seeds", "0,1.5"], "write whole numbers"),
    "equal seeds": ([*NEW, "--config", "ae", "--seeds", "1,1"], "the seeds must be different"),
    "negative seeds": ([*NEW, "--config", "ae", "--seeds=-1,0"], "the seeds must be different, and at least 0"),
    "seeds and a seed": ([*NEW, "--config", "ae", "--seeds", "0,1", "--seed", "2"], "leave out --seed"),
    "seeds and seed=": ([*NEW, "--config", "ae", "--seeds", "0,1", "--set", "seed=2"], "leave out --seed"),
    "seeds of an unknown configuration": ([*NEW, "--config", "zang", "--seeds", "0,1"], "Unknown configuration 'zang'"),
    "seeds with a bad setting": ([*NEW, "--config", "ae", "--set", "epocs=1", "--seeds", "0,1"], "did you mean epochs"),
    "a seed that is no number": ([*NEW, "--config", "ae", "--seed", "one"], "argument --seed: invalid int"),
    "a negative seed": ([*NEW, "--config", "ae", "--seed", "-1"], "seed = -1: must be at least 0"),
    "from without a stage": ([*NEW, "--from", "a"], "--from ID and --stage NAME go together"),
    "a stage without from": ([*NEW, "--stage", "refine"], "--from ID and --stage NAME go together"),
    "from with a configuration": ([*NEW, "--from", "a", "--stage", "train", "--config", "ae"], "go together"),
    "from nowhere": ([*NEW, "--from", "b", "--stage", "train"], "checkpoints/b is not an experiment. .* a, own, s"),
    "from a path": ([*NEW, "--from", "../a", "--stage", "train"], "--exp '../a': use at most 200 letters"),
    "from an unknown stage": ([*NEW, "--from", "a", "--stage", "refine"], "--stage refine: the stages of .* are train"),
    "try alone": ([*NEW, "--try"], "--try goes with --config"),
    "set without a value": ([*NEW, "--config", "ae", "--set"], "expected at least one argument"),
    "set of no key": ([*NEW, "--config", "ae", "--set", "=3"], "Unknown configuration key ''"),
    "set of no pair": ([*NEW, "--config", "ae", "--set", "epochs"], "--set epochs: write key=value"),
    "spaces around =": ([*NEW, "--config", "ae", "--set", "epochs", "=", "3"], "--set epochs: write key=value"),
    "unknown checkpoint": (["eval", "--exp", "a", "--checkpoint", "first"], "invalid choice: 'first'"),
    "unknown precision": (["eval", "--exp", "a", "--precision", "fp16"], "invalid choice: 'fp16'"),
    "unknown split": (["eval", "--exp", "a", "--split", "train"], "invalid choice: 'train'"),
    "no such checkpoint": (["eval", "--exp", "s", "--checkpoint", "best_averaged"], "best_averaged.pt: no such"),
    "no averaged weights": (["eval", "--exp", "s", "--checkpoint", "averaged"], "trained without average_decay"),
    "diseases of digits": (["eval", "--exp", "a", "--by", "disease"], "disease"),
    "something else than diseases": (["eval", "--exp", "a", "--by", "age"], "--by age"),
    "batch norm of an auto-encoder": (["eval", "--exp", "a", "--reestimate-batch-norm"], "ae has no such setting"),
    "eval of nothing": (["eval", "--exp", "none"], "none is not an experiment. Experiments there: a, own, s"),
    "predict of nothing": (["predict", "--exp", "none", "x.png"], "Train it first: python main.py --exp none"),
    "predict without files": (["predict", "--exp", "a"], "required: PATH"),
    "going on with another configuration": (["main", "--exp", "a", "--config", "zhang_best"], '"digit" → "zhang"'),
    "going on with another setting": (["main", "--exp", "a", "--set", "batch_size=4"], "batch_size: 8 → 4"),
    "going on with fewer epochs": (["main", "--exp", "a", "--set", "epochs=0"], "epochs = 0: must be at least 1"),
    "data that are not there": ([*NEW, "--config", "zhang_best", "--data-root", "absent"],
        "absent: no such folder. Get"),
    "digits from nowhere": ([*NEW, "--config", "digit_quick", "--data-root", "absent"], "--data-root absent: no such"),
    "overwriting with a bad setting": (["main", "--exp", "a", "--overwrite", *AE, "epochs=x"], "epochs = 'x'"),
    "overwriting, the data not being there": (
        ["main", "--exp", "a", "--overwrite", "--config", "zhang_best", "--data-root", "absent"], "absent: no such"
    ),
}  # fmt: skip
NAMES = {
    "a path": "../x", "an absolute path": "/tmp/x", "nothing": "", "a folder in a folder": "a/b", "a dot": ".",
    "two dots": "..", "a hidden folder": ".x", "a space": "a b", "a line": "a\nb", "an umlaut": "ü", "an option": "-x",
    "a wildcard": "*", "a tilde": "~", "a NUL": "a\0b", "no end": "x" * 300,
}  # fmt: skip
LINES |= {
    f"an experiment called {what}": (
        ["main", f"--exp={name}", *AE],
        "use at most 200 letters|required: --exp|expected one",
    )
    for what, name in NAMES.items()
}


@pytest.mark.parametrize(("arguments", "message"), cases(LINES))
def test_a_wrong_command_line_is_refused(place, capsys, arguments, message):
    check_refused(place, capsys, arguments, message, codes=(1, 2))


SETTINGS = {
    "epocs=3": "did you mean epochs", "Epochs=3": "did you mean epochs", "zzz=3": "known are",
    "epochs=three": "'three': must be of type int", "epochs=1.5": "must be of type int", "epochs=": "epochs = ''",
    "epochs=true": "must be of type int", "epochs=[1]": "must be of type int", "epochs=None": "must be of type int",
    "epochs=-3": "at least 1", "epochs=1e3": "must be of type int", "epochs=0x": "must be of type int",
    "batch_size=0": "at least 1", "batch_size=1": "at least 2", "max_batches=-1": "at least 0",
    "val_every=0": "least 1",
    "learning_rate=nan": "learning_rate", "learning_rate=inf": "finite|type float", "learning_rate=-1": "at least 0",
    "learning_rate=1e999": "finite", "learning_rate=fast": "type float", "save_seconds=-1": "at least 0",
    "average_decay=1": r"\[0, 1\)", "average_decay=-0.1": r"\[0, 1\)", "best_tolerance=-1": "at least 0",
    "train_normal_fraction=0": r"\(0, 1\]", "train_normal_fraction=1.1": r"\(0, 1\]",
    "train_normal_fraction=0.001": "leaves no normal image",
    "best_rule=loosest": "must be one of", "precision=fp16": "must be one of fp32", "lr_schedule=cosin": "mean cosine",
    "fit=zoom": "must be one of stretch", "resize=nearest": "must be one of", "augment=1": "type bool",
    "augment=yes": "type bool", "lr_steps=1,b": "lr_steps = 'b'", "dataset=mars": "alone, and the dataset is mars",
    "held_out=0.1": "a setting of dataset = folder, rsna, vindr, brain, lag alone", "seed=-1": "at least 0",
    "seed=x": "type int", "digit_source=usps": "must be one of", "digits_per_epoch=0": "at least 1",
    "digits_per_epoch=3": "fewer than its batch of 8. Give --set batch_size=3, or add images",
    "digits_per_epoch=1": "fewer than its batch of 8. Add images", "image_size=33": "take 32 or 48",
    "image_size=-16": "at least 1", "multiplier=0": "multiplier = 0", "multiplier=-1": "multiplier = -1",
    "latent_size=0": "at least 1", "num_slots=0": "at least 1", "entropy_weight=-1": "at least 0",
    "main_score=logit": "main_score = 'logit': must be one of", "method=squid": "method", "lr_factor=nan": "lr_factor",
    "lr_factor=-1": "at least 0", "cosine_epochs=0": "at least 1", "lr_steps=-1": "lr_steps", "lr_steps=0": "lr_steps",
    "cosine_min=-1": "at least 0", "image_size=16000000": "image_size = 16000000: must be at most 8192",
    "latent_size=100000000000": "not enough memory",
}  # fmt: skip


def of_setting(setting):
    """What the error must name: the key, or that there is no such key."""
    return re.compile(rf"\b{setting.split('=')[0]}\b|Unknown configuration key|not enough memory|fewer than its batch")


@pytest.mark.parametrize(("setting", "message"), SETTINGS.items(), ids=SETTINGS)
def test_a_wrong_setting_is_refused(workspace, capsys, setting, message):
    check_refused(workspace, capsys, [*NEW, *AE, setting], message, remedy=of_setting(setting))


SMALL = {"implicit_field": 0, "patchcore": 7, "ganomaly": 8, "fanogan": 4, "dn2": 16, "panda": 16, "cutpaste": 16}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_size", None, "image_size"), ("image_size", 1, "image_size"), ("main_score", "nonsense", "main_score"),
        ("batch_size", -1, "batch_size = -1: must be at least"), ("epochs", 0, "epochs = 0: "),
        ("learning_rate", "nan", "learning_rate"), ("best_rule", "first", "best_rule = 'first': must be one of"),
    ],
)  # fmt: skip
def test_a_wrong_setting_of_any_method_is_refused(workspace, capsys, method, key, value, message):
    value = SMALL.get(method, 15) if value is None else value
    if method == "implicit_field" and (key, value) == ("image_size", 1):
        pytest.skip("a field has a value at a single point too")
    name, settings = TINY[method]
    check_refused(workspace, capsys,
        [*NEW, "--config", name, "--device", "cpu", "--set", *settings, f"{key}={value}"], message,
                  remedy=of_setting(key))  # fmt: skip


PAIRS = {
    "squid": ["gumbel_top_k=99", "ops=concat", "decoder_memory=V3,V3,V3", "levels=9", "queue_slots=0", "n_critic=0",
              "mask_ratio=2", "skip_dropout=1", "initial_combine=4", "base_channels=0", "statistics_images=1",
              "patches_per_side=5"],
    "simsid": ["hierarchical=true", "skip_weights=1", "decoder_top_k=99", "slot_dim=0", "num_layers=9",
               "gumbel_top_k=-1", "decoder_mask_ratio=0"],
    "ddad": ["members=1", "extra_data=0", "anomaly_rate=2", "refine_epochs=-1", "refine_batch_size=1",
             "refine_batch_size=99", "extra_data=-5"],
    "igd": ["local_side=64", "local_stride=5", "poly_epochs=1", "layers=layer1,layer2", "ssim_weight=2",
            "local_batch_size=0", "latent_size=0"],
    "fanogan": ["n_critic=2", "epoch_batches=0", "encoder_epochs=0", "latent_size=0"],
    "cutpaste": ["steps_per_epoch=0", "bandwidth=0", "momentum=-1"],
    "implicit_field": ["bins=1", "width=4", "fit_iterations=3", "average_decay=0.5", "dropout=1", "points=0"],
    "patchcore": ["bank_ratio=0", "epochs=2", "layers=layer3,layer2", "layers=stem9", "pooled=0", "candidates=0",
                  "backbone=alexnet", "weights=absent.pth"],
    "padim": ["dimensions=0", "dimensions=100000", "epochs=2", "blur=-1", "layers="],
    "dn2": ["neighbours=0", "layers=layer1,layer2"],
    "panda": ["layers=layer2", "gradient_norm=0", "ewc_weight=-1", "fisher_images=0"],
    "rd4ad": ["layers=layer1", "cosine=sine", "blur=-1"],
    "mkd": ["opening=2", "width=0", "layers=layer1"],
    "fae_ssim": ["channels=", "window=4", "dropout=1", "channels=0"],
    "ae_pl": ["layers=layer1,layer2", "variance_floor=0"],
    "vae": ["kl_weight=-1", "main_score=kl_gradient"],
    "ganomaly": ["latent_size=0", "base_channels=0"],
    "memae": ["latent_threshold=-1", "num_slots=0"],
}  # fmt: skip
PAIRS_FLAT = [(method, setting) for method, settings in PAIRS.items() for setting in settings]


@pytest.mark.parametrize(("method", "setting"), PAIRS_FLAT, ids=map(" ".join, PAIRS_FLAT))
def test_settings_that_do_not_go_together_are_refused(workspace, capsys, method, setting):
    name, settings = TINY[method]
    arguments = [*NEW, "--config", name, "--device", "cpu", "--set", *settings, setting]
    check_refused(workspace, capsys, arguments, "error: ", remedy=of_setting(setting))


# -- image files ------------------------------------------------------------------------------------------------------


def png_bomb(path):
    """A PNG header of 100000 × 100000 pixels, and next to nothing after it."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)))


def saved(path, image, **options):
    image.save(path, **options)


def cut(path, share, **options):
    write(path)
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * share)])


def frames(path, form):
    shades = [Image.new("L", (8, 8), value) for value in (0, 128, 255)]
    shades[0].save(path, format=form, save_all=True, append_images=shades[1:])


FLOAT = Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
IMAGES = {  # name → (how it is made, what is said of it)
    "empty.png": (Path.touch, "not a readable image"),
    "empty.jpg": (Path.touch, "not a readable image"),
    "empty.tif": (Path.touch, "not a readable image"),
    "cut.png": (lambda p: cut(p, 0.5), "not a readable image"),
    "cut.jpg": (lambda p: cut(p, 0.3), "not a readable image"),
    "cut.tif": (lambda p: cut(p, 0.5), "not a readable image"),
    "cut.bmp": (lambda p: cut(p, 0.5), "not a readable image"),
    "header.png": (lambda p: cut(p, 0.02), "not a readable image"),
    "bomb.png": (png_bomb, "decompression bomb"),
    "float.tif": (lambda p: saved(p, FLOAT), "floating-point pixels"),
    "deep.tif": (lambda p: saved(p, Image.fromarray(np.full((8, 8), 70_000, np.int32))), "32-bit pixels outside"),
    "negative.tif": (lambda p: saved(p, Image.fromarray(np.full((8, 8), -1, np.int32))), "32-bit pixels outside"),
    "animated.png": (lambda p: frames(p, "GIF"), "3 frames"),
    "pages.tif": (lambda p: frames(p, "TIFF"), "3 frames"),
    "text.png": (lambda p: p.write_text("no image"), "not a readable image"),
    "web.jpg": (lambda p: p.write_text("<html>404</html>"), "not a readable image"),
    "zip.png": (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100)), "not a readable image"),
    "zeros.png": (lambda p: p.write_bytes(bytes(4096)), "not a readable image"),
    "noise.png": (lambda p: p.write_bytes(np.random.RandomState(0).bytes(4096)), "not a readable image"),
    "lines.dcm": (lambda p: p.write_text("no DICOM"), "not a readable DICOM|needs pydicom"),
    "renamed.dcm": (lambda p: saved(p, Image.new("L", (8, 8)), format="PNG"), "not a readable DICOM|needs pydicom"),
    "empty.dcm": (Path.touch, "not a readable DICOM|needs pydicom"),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_cannot_be_read_is_named_by_training(pictured, capsys, name):
    make, message = IMAGES[name]
    make(pictured / "mine" / "train" / "good" / name)
    check_refused(pictured, capsys, [*NEW, *OWN, "--data-root", "mine"], f"{name}: .*{message}")


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_cannot_be_read_is_named_by_predict(place, capsys, name):
    make, message = IMAGES[name]
    make(place / name)
    check_refused(place, capsys, ["predict", "--exp", "a", name, "--device", "cpu"], f"{name}: .*{message}")


def encapsulated():
    from pydicom.encaps import encapsulate

    return encapsulate([bytes(100)])


def dicom(**tags):
    return lambda path: write_dicom(path, noise(0), **tags)


DICOM = {
    "no pixels": (lambda p: write_dicom(p, None), "holds no pixel data"),
    "several frames": (
        lambda p: write_dicom(p, noise(0), NumberOfFrames=2, PixelData=noise(0).tobytes() * 2), "several frames or col"
    ),
    "an unknown transfer syntax": (dicom(syntax="1.2.3.4"), "pixels cannot be read|not a readable|decoder"),
    "compressed": (
        lambda p: write_dicom(p, noise(0), syntax="1.2.840.10008.1.2.4.90", PixelData=encapsulated()),
        "decoder|cannot be"
    ),
    "too few pixels": (dicom(PixelData=b"12"), "pixels cannot be read"),
    "no size": (dicom(Rows=0), "pixels cannot be read|shape"),
    "a window of no width": (dicom(WindowCenter="40", WindowWidth="0"), "window"),
    "truncated": (lambda p: (write_dicom(p, noise(0)), p.write_bytes(p.read_bytes()[:400])), "cannot be read|readable"),
}  # fmt: skip


@needs_pydicom
@pytest.mark.parametrize("what", DICOM)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dicom_file_that_cannot_be_read_is_named(place, capsys, what):
    make, message = DICOM[what]
    make(place / "x.dcm")
    check_refused(place, capsys, ["predict", "--exp", "a", "x.dcm", "--device", "cpu"], f"x.dcm: .*({message})")


WRITTEN = {
    "the same folder": (["mine/train/good", "--images", "mine/train/good"], "would write among the images"),
    "the folder of an image": (["mine/train/good/000.png", "--images", "mine/train/good"],
        "would write among the images"),
    "a folder within": (["mine", "--images", "mine/pictures"], "would write among the images"),
    "a file for a folder": (["mine", "--images", "mine.txt"], "mine.txt"),
    "a folder for a table": (["mine", "--csv", "mine"], "mine: is a folder or a device"),
    "a device for a table": (["mine", "--csv", "/dev/null"], "/dev/null: is a folder or a device"),
    "an experiment's file for a table": (
        ["mine", "--csv", "checkpoints/s/best.pt"], "best.pt: lies in an experiment's own folder"),
    "a table below a file": (["mine", "--csv", "mine.txt/x.csv"], "x.csv: cannot be written .*who may write there"),
    "a file that is not there": (["absent.png"], "absent.png: no such file"),
    "a folder without images": (["checkpoints/s/figures", "mine"], "holds no PNG|no such file"),
    "a name that is too long": (["x" * 300], "no such file|too long"),
    "a dangling link": (["dangling.png"], "dangling.png: no such file"),
    "a loop": (["loop.png"], "loop.png: "),
    "a file of another kind": (["mine.txt"], "mine.txt: not a readable image"),
    "a device file": (["/dev/null"], "/dev/null: "),
    "the table over an image": (["mine/train/good", "--csv", "mine/train/good/000.png"], "000.png"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), cases(WRITTEN))
def test_predict_refuses_wrong_paths(place, capsys, given, message):
    (place / "mine.txt").write_text("text")
    link(place / "dangling.png", "nowhere.png")
    link(place / "loop.png", "loop.png")
    check_refused(place, capsys, ["predict", "--exp", "a", *given, "--device", "cpu"], message)


# -- folders and lists ------------------------------------------------------------------------------------------------


def text(path, content="no image"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


FOLDERS = {
    "nothing": (lambda r: None, "holds no PNG, JPEG, BMP, TIFF or DICOM"),
    "text alone": (lambda r: text(r / "train" / "good" / "notes.txt"), "holds no PNG"),
    "one image": (lambda r: write(r / "a.png"), "images are one, or one person's"),
    "test alone": (lambda r: write(r / "test" / "good" / "a.png"), "train has no images"),
    "train is empty": (lambda r: ((r / "train").mkdir(), write(r / "test" / "good" / "a.png")), "train has no images"),
    "several data sets": (lambda r: [write(r / c / "train" / "good" / "a.png") for c in "xy"], "lies in a split"),
    "masks alone": (lambda r: write(r / "ground_truth" / "x" / "a.png"), "lies in a split or among masks"),
    "classes without splits": (
        lambda r: (write(r / "normal" / "a.png"), write(r / "pneumonia" / "b.png")),
        r"normal and .*pneumonia: which of them are the normal images\? Put",
    ),
    "masks in a folder of theirs": (
        lambda r: (make_mvtec(r), mark(r / "test/scratch/masks/0.png")), "0.png: lies in a folder masks, but masks are"
    ),
    "masks among normal images": (
        lambda r: (write(r / "a.png"), write(r / "a_Mask.png")), "a_Mask.png: looks like the mask of a, among"
    ),
    "masks beside normal images": (lambda r: (write(r / "x/a.png"), write(r / "gt/a.png")), "lies in a folder gt"),
    "a mask of two": (
        lambda r: (make_mvtec(r), write(r / "test/scratch/000.bmp")), "is the mask of 2 images of test/scratch"
    ),
    "healthy as an anomaly": (
        lambda r: (make_mvtec(r), write(r / "test/Healthy/p/0.png")), "test/Healthy: would be a kind of anomaly"
    ),
    "good and normal": (
        lambda r: [write(r / "train" / c / "a.png") for c in ("good", "normal")],
        "train/good and train/normal are the same split or class",
    ),
    "good and normal, without splits": (lambda r: [write(r / c / "a.png") for c in ("good", "normal")], "which of"),
    "a class and its split": (
        lambda r: (write(r / "train" / "a.png"), write(r / "train" / "good" / "b.png")),
        "train and train/good are the same",
    ),
    "a kind named twice": (
        lambda r: (make_mvtec(r), write(r / "test" / "Scratch" / "9.png")), "test/Scratch and test/scratch are the same"
    ),
    "val and valid": (
        lambda r: (make_mvtec(r), write(r / "valid" / "good" / "a.png")), "val and valid are the same split"
    ),
    "no class in test": (lambda r: (make_mvtec(r), write(r / "test" / "a.png")), "test/a.png: is in no class. Put"),
    "an empty class": (lambda r: (make_mvtec(r), (r / "test" / "hole").mkdir()), "test/hole: holds no PNG.*Fill"),
    "an empty split": (lambda r: (make_mvtec(r), (r / "validation").mkdir()), "validation: holds no PNG"),
    "anomalous training": (
        lambda r: write(r / "train" / "hole" / "a.png"), r"a.png: is anomalous \(hole\), and training images are to be"
    ),
    "no normal validation": (
        lambda r: (write(r / "train" / "good" / "a.png"), write(r / "val" / "hole" / "a.png")),
        "val has no normal images",
    ),
    "twice, as two kinds": (
        lambda r: (make_mvtec(r), link(r / "test" / "hole" / "a.png", r / "test" / "scratch" / "000.png")),
        "is in test as scratch, and in test as hole|is in test as hole, and in test as scratch",
    ),
    "in two splits": (
        lambda r: (make_mvtec(r), link(r / "test" / "good" / "a.png", r / "train" / "good" / "000.png")),
        "test/good/a.png: is in test as normal, and in train as normal .*train/good/000.png.*Keep it once",
    ),
    "a missing mask": (
        lambda r: (make_mvtec(r), write(r / "test" / "scratch" / "9.png")), "scratch/9.png: has no mask, and others"
    ),
    "the mask of nothing": (
        lambda r: (make_mvtec(r), mark(r / "ground_truth" / "scratch" / "9.png")), "9.png: is the mask of no image of"
    ),
    "two masks": (
        lambda r: (make_mvtec(r), mark(r / "ground_truth" / "scratch" / "000.png")), "is a mask of the same image"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), cases(FOLDERS))
def test_a_wrong_folder_is_refused(workspace, capsys, make, message):
    (workspace / "new").mkdir()
    make(workspace / "new")
    check_refused(workspace, capsys, [*NEW, *OWN, "--data-root", "new"], message)


LISTS = {
    "two columns of a name": (["path,label,label", "a.png,good,hole"], "has two columns label"),
    "no label": (["path,label,split", "a.png,nan,test"], "line 2: label 'nan' would be a kind of anomaly"),
    "another word for normal": (["path,label", "a.png,No Finding"], "line 2: label 'No Finding' would be .*Write good"),
    "no column path": (["file,label", "a.png,good"], "images.csv: has no column path. Its first line, 'file,label'"),
    "semicolons": (["path;label", "a.png;good"], "has no column path"),
    "empty": ([], "has no column path"),
    "no rows": (["path"], "train has no normal images"),
    "a missing file": (["path", "a.png", "gone.png"], r"1 files that it names are not there, .*gone.png \(line 3\)"),
    "a missing mask": (["path,mask", "a.png,gone.png"], "the first .*gone.png"),
    "a folder": (["path", "sub"], "sub .*line 2"),
    "no path": (["path,label", ",good"], "line 2: names no path"),
    "an unknown split": (["path,split", "a.png,trains"], "line 2: split 'trains' is none of train, val"),
    "too many fields": (["path,label", "a.png,good,3"], "line 2: has more fields than columns"),
    "labels that disagree": (
        ["path,label,split", "a.png,good,test", "a.png,hole,test"], "a.png: is in test as hole, and in test as normal"
    ),
    "two splits": (["path,split", "a.png,train", "sub/../a.png,test"], "is in test as normal, and in train"),
    "a label that the folder denies": (
        ["path,label,split", "good/b.png,hole,test"], "good/b.png lies among normal images, and its label is 'hole'"
    ),
    "anomalous training": (["path,label", "a.png,1"], r"a.png: is anomalous \(anomalous\), and training"),
    "one person": (["path,person", "a.png,p", "good/b.png,p"], "are one, or one person's, and some are held out"),
}  # fmt: skip

BYTES = {
    "no UTF-8": "path\nü.png\n".encode("latin-1"), "UTF-16": "path\na.png\n".encode("utf-16"),
    "an image": b"\x89PNG\r\n\xff",
    "NUL": b"path\na\0.png\n",
}  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), cases(LISTS))
def test_a_wrong_list_is_refused(workspace, capsys, lines, message):
    for name in ("a.png", "good/b.png", "sub/c.png"):
        write(workspace / "new" / name)
    write_csv(workspace / "new" / "images.csv", *lines)
    check_refused(workspace, capsys, [*NEW, *OWN, "--data-root", "new"], message)


@pytest.mark.parametrize("what", BYTES)
def test_a_list_in_another_encoding_is_refused(workspace, capsys, what):
    write(workspace / "new" / "a.png")
    (workspace / "new" / "images.csv").write_bytes(BYTES[what])
    check_refused(workspace, capsys, [*NEW, *OWN, "--data-root", "new"], "images.csv: .*(UTF-8|not there|no column)")


EVALUATED = {  # what is found when an experiment is evaluated
    "a mask of another size": (lambda m: mark(m / "ground_truth/scratch/000_mask.png", (9, 9)), "is 9 × 9 pixels, and"),
    "a mask that is no image": (lambda m: text(m / "ground_truth/scratch/000_mask.png"),
        "000_mask.png: not a readable"),
    "a mask of a normal image": (lambda m: mark(m / "ground_truth/good/000.png"), "marks pixels of .*a normal image"),
    "a test image cut off": (lambda m: cut(m / "test/good/000.png", 0.5), "000.png: not a readable image"),
    "a validation image cut off": (lambda m: cut(m / "val/scratch/000.png", 0.5), "000.png: not a readable image"),
    "the folder is gone": (shutil.rmtree, "mine: no such folder or file"),
    "the folder is empty": (lambda m: (shutil.rmtree(m), m.mkdir()), "mine: holds no PNG"),
    "the folder is a file": (lambda m: (shutil.rmtree(m), text(m)), "mine: (not a CSV file|has no column path)"),
    "no training images": (lambda m: shutil.rmtree(m / "train"), "train has no images"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), cases(EVALUATED))
def test_data_that_cannot_be_evaluated_are_named(place, capsys, make, message):
    make(place / "mine")
    check_refused(place, capsys, ["eval", "--exp", "own", "--device", "cpu"], message)


def test_going_on_with_other_images_is_refused(place, capsys):
    write(place / "mine/train/good/new.png")
    check_refused(place, capsys, ["main", "--exp", "own", "--set", "epochs=2", "--device", "cpu"], "training data: ")


FORM = {
    "train": {"0": ["n.png"], "unlabeled": {"0": ["u.png"], "1": ["v.png"]}},
    "test": {"0": ["t.png"], "1": ["s.png"]},
}
MEDAD = {
    "nothing": "", "no JSON": "{", "a list": "[]", "null": "null", "a number": "3", "a string": '"x"',
    "no train": json.dumps({"test": FORM["test"]}), "no test": json.dumps({"train": FORM["train"]}),
    "no label": json.dumps({**FORM, "test": {"0": ["t.png"]}}),
    "half of the unlabeled": json.dumps({**FORM, "train": {"0": ["n.png"], "unlabeled": {"0": []}}}),
    "a name alone": json.dumps({**FORM, "test": {"0": "t.png", "1": ["s.png"]}}),
    "a number for a name": json.dumps({**FORM, "test": {"0": [1], "1": ["s.png"]}}),
    "null for a list": json.dumps({**FORM, "test": {"0": None, "1": ["s.png"]}}),
    "an object for a list": json.dumps({**FORM, "test": {"0": {"t.png": 1}, "1": ["s.png"]}}),
    "a name twice": json.dumps({**FORM, "test": {"0": ["t.png", "t.png"], "1": ["s.png"]}}),
    "a name in two lists": json.dumps({**FORM, "test": {"0": ["n.png"], "1": ["s.png"]}}),
    "a file that is not there": json.dumps({**FORM, "test": {"0": ["x.png"], "1": ["s.png"]}}),
    "a file outside": json.dumps({**FORM, "test": {"0": ["../data.json"], "1": ["s.png"]}}),
    "a folder": json.dumps({**FORM, "test": {"0": ["sub"], "1": ["s.png"]}}),
    "an empty name": json.dumps({**FORM, "test": {"0": [""], "1": ["s.png"]}}),
    "no normal test image": json.dumps({**FORM, "test": {"0": [], "1": ["s.png"]}}),
    "no training image": json.dumps({**FORM, "train": {**FORM["train"], "0": []}}),
    "another encoding": "\udcff",
}  # fmt: skip


def medad(root, content):
    for name in "nuvts":
        write(root / "images" / f"{name}.png")
    (root / "images" / "sub").mkdir()
    (root / "data.json").write_text(content, errors="surrogateescape")


@pytest.mark.parametrize("what", MEDAD)
def test_a_wrong_data_json_is_refused(workspace, capsys, what):
    medad(workspace / "new", MEDAD[what])
    arguments = [*NEW, *[a for a in AE if not a.startswith("digit")], "dataset=brain", "--data-root", "new"]
    check_refused(
        workspace, capsys, [a for a in arguments if a != "dataset=digit"], "data.json|No (train|test) normal image"
    )


def zhang(root):
    for split in ("train", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            for i in range(6):
                write(root / split / name / f"{name}{i}.png")


VAL = {"val": {"NORMAL": ["NORMAL1.png"], "PNEUMONIA": ["PNEUMONIA1.png"]}}
SPLITS = {
    "nothing": "", "no JSON": "{", "a list": "[]", "null": "null", "no val": "{}", "a list for val": '{"val": []}',
    "no class": '{"val": {"NORMAL": []}}', "null for a list": '{"val": {"NORMAL": null, "PNEUMONIA": []}}',
    "a name alone": '{"val": {"NORMAL": "NORMAL1.png", "PNEUMONIA": []}}',
    "a name that is none": json.dumps({"val": {**VAL["val"], "NORMAL": ["x.png"]}}),
    "names of numbers": json.dumps({"val": {**VAL["val"], "NORMAL": [1]}}),
    "names in lists": json.dumps({"val": {**VAL["val"], "NORMAL": [["x"]]}}),
    "no names": '{"val": {"NORMAL": [], "PNEUMONIA": []}}',
    "all of them": json.dumps({"val": {**VAL["val"], "NORMAL": [f"NORMAL{i}.png" for i in range(6)]}}),
    "another encoding": "\udcff",
}  # fmt: skip


@pytest.mark.parametrize("what", SPLITS)
def test_a_wrong_val_split_is_refused(workspace, capsys, what):
    zhang(workspace / "new")
    (workspace / "new" / "val_split.json").write_text(SPLITS[what], errors="surrogateescape")
    check_refused(workspace, capsys, on("zhang"), r"val_split.json: |No (train|val) \w+ image")


def on(dataset, *settings):
    """Training the auto-encoder on the folder ``new``."""
    kept = [word for word in AE if not word.startswith(("digit", "dataset"))]
    return [*NEW, *kept, f"dataset={dataset}", *settings, "--data-root", "new"]


COVIDX = {
    "no list": (lambda r: (r / "val_squid.txt").unlink(), "val_squid.txt: no such list"),
    "no label": (lambda r: text(r / "val_squid.txt", "p x.png\n"), "val_squid.txt, line 1: must be 'patient_id"),
    "another label": (lambda r: text(r / "val_squid.txt", "p b0.png positive\n"), "label is 'positive'"),
    "missing images": (lambda r: text(r / "val_squid.txt", "p x.png normal\n"), "1 of 1 listed images are missing"),
    "an empty list": (lambda r: text(r / "val_squid.txt", ""), "No val normal image"),
    "another encoding": (lambda r: (r / "val_squid.txt").write_bytes(b"\xff\xfe\xff"), "val_squid.txt: .*UTF-8"),
    "no train": (lambda r: shutil.rmtree(r / "train"), "train: no such folder"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), cases(COVIDX))
def test_a_wrong_covidx_list_is_refused(workspace, capsys, make, message):
    root = workspace / "new"
    for split, where in (("train", "train"), ("val", "train"), ("test", "test")):
        rows = [f"p{split}{i} {split[1]}{i}.png {'normal' if i < 9 else 'COVID-19'} src" for i in range(12)]
        for i in range(12):
            write(root / where / f"{split[1]}{i}.png")
        text(root / ("test_COVIDx9A.txt" if split == "test" else f"{split}_squid.txt"), "\n".join(rows))
    make(root)
    check_refused(workspace, capsys, on("covidx"), message)


CHEST = {
    "no column": ("Path,Age\nx,3\n", "has no column Frontal/Lateral"), "empty": ("", "has no column Path"),
    "a label that is none": ("Path,Frontal/Lateral,AP/PA,No Finding\npatient1/a.png,Frontal,PA,yes\n",
        "line 2: No Find"),
    "no patient": ("Path,Frontal/Lateral,AP/PA,No Finding\na.png,Frontal,PA,1\n",
        "names no patient|which is not below"),
    "no frontal": ("Path,Frontal/Lateral,AP/PA,No Finding\npatient1/a.png,Lateral,,1\n", "lists no frontal PA"),
    "too few fields": ("Path,Frontal/Lateral,AP/PA,No Finding\npatient1/a.png,Frontal\n", "line 2: has too few"),
    "a missing file": ("Path,Frontal/Lateral,AP/PA,No Finding\npatient1/x.png,Frontal,PA,1\n", "which is not below"),
    "one image": ("Path,Frontal/Lateral,AP/PA,No Finding\npatient1/a.png,Frontal,PA,1\n", "No (train|val|test) "),
}  # fmt: skip


@pytest.mark.parametrize("what", CHEST)
def test_a_wrong_chexpert_list_is_refused(workspace, capsys, what):
    content, message = CHEST[what]
    write(workspace / "new" / "patient1" / "a.png")
    write(workspace / "new" / "a.png")
    text(workspace / "new" / "train.csv", content)
    check_refused(workspace, capsys, on("chexpert"), message)


@pytest.mark.parametrize("dataset", ["zhang", "covidx", "chexpert", "rsna", "digit"])
def test_ones_own_images_are_told_where_they_belong(workspace, capsys, dataset):
    for i in range(3):
        write(workspace / "new" / f"{i}.png")
    check_refused(workspace, capsys, on(dataset), "For your own images: --set dataset=folder")


OTHERS = {
    "ddad on one's own images": (
        ["ddad_brain_ae", "dataset=folder", "image_size=32"],
        "which ddad trains on too. .* all but ddad train on normal images alone",
    ),
    "anomalous training images that are not there": (
        ["simsid_chexpert", "dataset=folder", "image_size=64", "train_normal_fraction=0.5"],
        "Give --set train_normal_fraction=1 to train on normal images alone",
    ),
    "a batch that is too large": (
        ["ae_brain", "dataset=folder", "image_size=32"],
        "on 6 images, fewer than its batch of 64. Give --set batch_size=6"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), cases(OTHERS))
def test_a_method_that_does_not_suit_ones_own_images_says_what_does(pictured, capsys, given, message):
    config, *settings = given
    arguments = [*NEW, "--config", config, "--device", "cpu", "--set", *settings, "--data-root", "mine"]
    check_refused(pictured, capsys, arguments, message)


IDX = {
    "damaged": lambda r: (r / "train-images-idx3-ubyte").write_bytes(b"damaged"),
    "no labels": lambda r: (r / "train-labels-idx1-ubyte").unlink(),
    "other labels": lambda r: (r / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5])),
    "cut": lambda r: (r / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 28, 0, 0])),
    "no digits at all": lambda r: (
        (r / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 28])),
        (r / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 0])),
    ),
    "one digit": lambda r: None,
}


@pytest.mark.parametrize("what", IDX)
def test_wrong_mnist_files_are_refused(workspace, capsys, what):
    (workspace / "new").mkdir()
    image = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(784)
    (workspace / "new" / "train-images-idx3-ubyte").write_bytes(image)
    (workspace / "new" / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 5]))
    IDX[what](workspace / "new")
    arguments = [*NEW, *AE, "digit_source=mnist", "--data-root", "new"]
    check_refused(workspace, capsys, arguments, "idx3-ubyte: not|labels|too few|digits")


# -- experiments ------------------------------------------------------------------------------------------------------


def put(entry, value):
    return edit(lambda content: content["settings"].update({entry: value}))


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return edit(change)


CONFIGS = {
    "gone": Path.unlink, "empty": lambda p: p.write_text(""), "cut": lambda p: p.write_text(p.read_text()[:99]),
    "{}": lambda p: p.write_text("{}"), "a list": lambda p: p.write_text("[]"), "null": lambda p: p.write_text("null"),
    "binary": lambda p: p.write_bytes(b"\xff\xfe"), "a folder": lambda p: (p.unlink(), p.mkdir()),
    "no settings": without("settings"), "settings of a list": edit(lambda c: {**c, "settings": []}),
    "no configuration": without("config"),
    "a number for a configuration": edit(lambda c: {**c, "config": 3}), "no fingerprint": without("data"),
    "other data": edit(lambda c: {**c, "data": "mnist-0123"}),
    "no method": without("settings", "method"), "an unknown method": put("method", "gan9"),
    "a newer key": put("warp", 3), "a wrong type": put("epochs", "two"), "a wrong value": put("batch_size", 0),
    "NaN": put("learning_rate", float("nan")), "other sizes": put("latent_size", 3),
    "an unknown dataset": put("dataset", "x"),
    "another method": put("method", "squid"), "a list for a number": put("image_size", [32]),
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
@pytest.mark.parametrize("name", ["eval", "main"])
def test_a_damaged_config_is_refused(place, capsys, name, what):
    if (name, what) == ("eval", "other data"):
        pytest.skip("other data can be evaluated")
    CONFIGS[what](place / CONFIG)
    check_refused(
        place, capsys, [name, "--exp", "a", "--device", "cpu"], "config|settings|is not an experiment|new: give|unkn"
    )


def rewritten(change):
    def arrange(path):
        content = torch.load(path, weights_only=True)
        torch.save(change(content) or content, path)

    return arrange


def entry(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return rewritten(change)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def spoil(content):
    next(v for v in content["method"].values() if v.is_floating_point()).fill_(torch.nan)


CHECKPOINTS = {
    "gone": Path.unlink, "empty": lambda p: p.write_bytes(b""), "text": lambda p: p.write_text("no weights"),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:2000]), "a folder": lambda p: (p.unlink(), p.mkdir()),
    "foreign": lambda p: torch.save({"state_dict": {}}, p), "a list": lambda p: torch.save([1, 2], p),
    "a tensor": lambda p: torch.save(torch.ones(2), p),
    "code": lambda p: torch.save({"format": 1, "method": Evil()}, p),
    "a newer format": rewritten(lambda c: {**c, "format": 99}), "no format": entry("format"),
    "no weights": entry("method"),
    "other weights": rewritten(lambda c: {**c, "method": {"a": torch.ones(1)}}), "not finite": rewritten(spoil),
    "weights that are none": rewritten(lambda c: {**c, "method": [1]}),
    "a number for a tensor": rewritten(lambda c: {**c, "method": dict.fromkeys(c["method"], 1)}),
    "another experiment's": lambda p: shutil.copy(p.parent.parent / "s" / p.name, p),
}  # fmt: skip


@pytest.mark.parametrize("what", CHECKPOINTS)
@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_damaged_checkpoint_is_refused(place, capsys, checkpoint, what):
    CHECKPOINTS[what](place / "checkpoints" / "a" / f"{checkpoint}.pt")
    arguments = ["predict", "--exp", "a", "--checkpoint", checkpoint, "mine/train/good/000.png", "--device", "cpu"]
    check_refused(place, capsys, arguments, f"{checkpoint}.pt: ")
    assert not (place / "evil").exists()


LASTS = {
    "no position": entry("position"), "a position of a list": rewritten(lambda c: {**c, "position": [1]}),
    "no epoch": entry("position", "epoch"), "no optimizers": entry("optimizers"),
    "optimizers of another": rewritten(lambda c: {**c, "optimizers": {}}), "no losses": entry("loss_sums"),
    "no best AUC": entry("best_auc"), "no average": entry("average"), "no seconds": entry("seconds"),
    "an optimizer that is none": rewritten(lambda c: {**c, "optimizers": dict.fromkeys(c["optimizers"], 3)}),
    "a text for an epoch": rewritten(lambda c: {**c, "position": {**c["position"], "epoch": "one"}}),
}  # fmt: skip


@pytest.mark.parametrize("what", [*LASTS, *(what for what in CHECKPOINTS if what not in LASTS)])
def test_a_damaged_last_pt_is_not_gone_on_with(place, capsys, what):
    (LASTS | CHECKPOINTS)[what](place / "checkpoints" / "a" / "last.pt")
    check_refused(place, capsys, ["main", "--exp", "a", "--device", "cpu"], r"last.pt(:| is gone)")


METRICS = {
    "a list": "[1]\n", "a number": "3\n", "no epoch": '{"losses": {}}\n', "text": '"x"\n',
    "no losses": '{"epoch": 1}\n',
    "an epoch of text": '{"epoch": "x"}\n', "binary": '\udcff\n{"epoch": 2}\n',
}  # fmt: skip


@pytest.mark.parametrize("what", METRICS)
@pytest.mark.parametrize("name", ["eval", "main"])
def test_a_damaged_metrics_file_is_refused(place, capsys, name, what):
    (place / "checkpoints/a/metrics.jsonl").write_text(METRICS[what], errors="surrogateescape")
    check_refused(place, capsys, [name, "--exp", "a", "--device", "cpu"], "metrics.jsonl")


PLACES = {
    "checkpoints is a file": lambda r: text(r / "checkpoints"),
    "its folder is a file": lambda r: text(r / "checkpoints" / "n"),
    "its lock is a folder": lambda r: (r / "checkpoints" / "n" / ".lock").mkdir(parents=True),
    "config.json is a folder": lambda r: (r / "checkpoints" / "n" / "config.json").mkdir(parents=True),
}


@pytest.mark.parametrize("what", PLACES)
def test_a_folder_that_cannot_be_written_is_named(workspace, capsys, what):
    PLACES[what](workspace)
    check_refused(workspace, capsys, [*NEW, *AE], "checkpoints")


@pytest.mark.parametrize("name", ["main", "eval", "predict", "compare", "make_tables", "rules"])
def test_a_full_disk_loses_nothing(place, capsys, monkeypatch, name):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(system.files.os, "fsync", full)
    more = {
        "main": ["--exp", "a", "--set", "epochs=2", "--device", "cpu"], "eval": ["--exp", "a", "--device", "cpu"],
        "predict": ["--exp", "a", "--device", "cpu", "mine", "--csv", "x.csv"],
        "compare": ["a", "b", "--out", "x.md"], "make_tables": ["a"], "rules": ["--exp", "a"],
    }[name]  # fmt: skip
    if name == "compare":
        shutil.copytree(place / "checkpoints/a", place / "checkpoints/b")
    check_refused(place, capsys, [name, *more], "could not be written .*No space left.*make room")


@pytest.mark.parametrize("name", ["main", "eval", "predict"])
def test_a_read_only_folder_loses_nothing(place, capsys, monkeypatch, name):
    """Permissions do not bind root, so that files are refused at their opening."""
    real = io.open

    def closed(file, mode="r", *rest, **named):
        if set(mode) & set("wax+") and "checkpoints" in str(file) or str(file).endswith(".part"):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, mode, *rest, **named)

    monkeypatch.setattr("builtins.open", closed)
    monkeypatch.setattr("io.open", closed)
    more = {"main": ["--set", "epochs=2"], "eval": [], "predict": ["mine", "--csv", "x.csv"]}[name]
    check_refused(
        place, capsys, [name, "--exp", "a", "--device", "cpu", *more], "could not be written|Permission denied"
    )


# -- tools ------------------------------------------------------------------------------------------------------------

RESULTS = {
    "gone": Path.unlink, "empty": lambda p: p.write_text(""), "cut": lambda p: p.write_text(p.read_text()[:99]),
    "{}": lambda p: p.write_text("{}"), "a list": lambda p: p.write_text("[]"), "no scores": without("scores"),
    "scores of a list": edit(lambda c: {**c, "scores": []}), "no classes": without("classes"),
    "older": without("epochs_trained"),
    "no trained": without("trained"), "binary": lambda p: p.write_bytes(b"\xff"),
    "no main score": without("main_score"),
}  # fmt: skip


@pytest.mark.parametrize("what", RESULTS)
@pytest.mark.parametrize("name", ["make_tables", "compare"])
def test_damaged_results_are_refused(place, capsys, name, what):
    shutil.copytree(place / "checkpoints/own", place / "checkpoints/b")
    RESULTS[what](place / "checkpoints/a/results.json")
    check_refused(place, capsys, [name, "a", "b"], "results.json: ")


def scores(change):
    def arrange(place):
        path = place / "checkpoints/b/scores.csv"
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        rows = change(rows) or rows
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(rows)

    return arrange


COMPARED = {
    "one experiment": (None, ["a"], "nothing to compare it with"), "nothing": (None, [], "required: EXP"),
    "itself": (None, ["a", "x=a"], "named more than once"), "a name twice": (None, ["a", "a"], "there is a a already"),
    "no experiment": (None, ["a", "none"], "none/results.json: not there. Evaluate it first"),
    "not evaluated": (None, ["a", "s"], "s/results.json: not there. Evaluate it first"),
    "a path": (None, ["a", "../b"], "use at most 200 letters"),
    "no members": (None, ["a", "x="], "write an experiment"),
    "an empty member": (None, ["a", "x=b,"], "write an experiment"), "an unknown score": (
        None, ["a", "b", "--score", "logit"], "has no score 'logit'. It has"),
    "a score of none": (None, ["a", "b", "--score", "c=reconstruction"], "no 'c' among a, b"),
    "another ending": (None, ["a", "b", "--out", "x.pdf"], "must end in .md"),
    "no samples": (None, ["a", "b", "--samples", "0"], "at least 1 sample"),
    "a negative seed": (None, ["a", "b", "--seed", "-1"], "a seed of 0 or more"),
    "other data": (None, ["a", "own"], "of another (dataset|split)"),
    "equal seeds": (None, ["x=a,b", "own"], "has the seed of another"),
    "no table": (lambda r: (r / "checkpoints/b/scores.csv").unlink(), ["a", "b"], "scores.csv: not there, or empty"),
    "an empty table": (lambda r: text(r / "checkpoints/b/scores.csv", ""), ["a", "b"],
        "scores.csv: not there, or empty"),
    "a table of bytes": (lambda r: (r / "checkpoints/b/scores.csv").write_bytes(b"\xff\xff"), ["a", "b"],
        "scores.csv: "),
    "text for a score": (scores(lambda rows: [rows[0], *[[*row[:-1], "x"] for row in rows[1:]]]), ["a", "b"],
        "damaged"),
    "a score of nan": (scores(lambda rows: [rows[0], *[[*row[:-1], "nan"] for row in rows[1:]]]), ["a", "b"], "finite"),
    "a line twice": (scores(lambda rows: [*rows, rows[-1]]), ["a", "b"], "lines of"),
    "a line too few": (scores(lambda rows: rows[:-1]), ["a", "b"], "other images|different evaluations"),
    "no id": (scores(lambda rows: [["x", *rows[0][1:]], *rows[1:]]), ["a", "b"], "damaged"),
    "one class": (scores(lambda rows: rows[:10]), ["a", "b"], "scores.csv"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "message"), cases(COMPARED))
def test_compare_refuses(place, capsys, make, arguments, message):
    shutil.copytree(place / "checkpoints/a", place / "checkpoints/b")
    if make:
        make(place)
    check_refused(place, capsys, ["compare", *arguments], message, codes=(1, 2))


EPOCH = Path("checkpoints/a/epochs/0001.csv")
TOOLS = {
    "tables of nothing": (None, ["make_tables"], "name experiments that eval.py has evaluated"),
    "tables of no experiment": (None, ["make_tables", "none"], "none/results.json: not there"),
    "tables of a path": (None, ["make_tables", "../a"], "use at most 200 letters"),
    "a results.csv of other columns": (lambda r: text(r / "results/results.csv", "a,b\n1,2\n"), ["make_tables", "a"],
                                       "results.csv: has other columns"),
    "a results.csv of bytes": (lambda r: (text(r / "results/results.csv"),
        (r / "results/results.csv").write_bytes(b"\xff")),
                               ["make_tables", "a"], "results.csv: "),
    "a published figure without its source": (
        lambda r: text(r / "results/published.csv", ",".join(make_tables.PUBLISHED) + ",ours,target\nzhang,x,90\n"),
        ["make_tables", "a"], "line 2: x on zhang has no source"),
    "a published.csv of other columns": (lambda r: text(r / "results/published.csv", "a\n"), ["make_tables", "a"],
                                         "published.csv: has no column"),
    "results is a file": (lambda r: text(r / "results"), ["make_tables", "a"], "results"),
    "rules of no experiment": (None, ["rules", "--exp", "none"], "is not an experiment"),
    "rules without recorded scores": (None, ["rules", "--exp", "s"], "no scores are recorded there"),
    "rules, a table cut off": (lambda r: (r / EPOCH).write_text("split,id\nval,x\n"), ["rules", "--exp", "a"],
        "0001.csv: "),
    "rules, an empty table": (lambda r: (r / EPOCH).write_text(""), ["rules", "--exp", "a"], "0001.csv: "),
    "rules, text for a score": (
        lambda r: (r / EPOCH).write_text((r / EPOCH).read_text().replace("0.", "x")), ["rules", "--exp", "a"],
        "0001.csv: "),
    "rules, a table of other images": (lambda r: write_csv(r / "checkpoints/a/epochs/0002.csv",
        "split,id,label,person"),
                                       ["rules", "--exp", "a"], "0002.csv: "),
    "rules, bytes": (lambda r: (r / EPOCH).write_bytes(b"\xff"), ["rules", "--exp", "a"], "0001.csv: "),
    "memory of an auto-encoder": (None, ["show_memory", "--exp", "a", "--device", "cpu"],
        "ae has no space-aware memory"),
    "memory of nothing": (None, ["show_memory", "--exp", "none"], "is not an experiment"),
    "memory, a path that is not there": (None, ["show_memory", "--exp", "s", "x.png", "--device", "cpu"],
        "x.png: no such"),
    "memory, a folder": (None, ["show_memory", "--exp", "s", "mine", "--device", "cpu"], "mine: "),
    "influence of an auto-encoder": (None, ["influence", "--exp", "a", "--device", "cpu"], "squid and simsid have"),
    "influence of no images": (None, ["influence", "--exp", "s", "--images", "0"], "--images 0: at least 1"),
    "influence of nothing": (None, ["influence", "--exp", "none"], "is not an experiment"),
    "influence, a split that is not there": (None, ["influence", "--exp", "s", "--split", "train"], "invalid choice"),
    "prepare nothing": (None, ["prepare_data"], "give a dataset with --source and --out, or --check"),
    "prepare an unknown dataset": (None, ["prepare_data", "mars", "--source", "x", "--out", "y"], "invalid choice"),
    "prepare from nowhere": (None, ["prepare_data", "brain", "--source", "x", "--out", "y"],
        "no such folder. Name the unp"),
    "prepare from nowhere, a list": (None, ["prepare_data", "rsna", "--source", "x", "--out", "y"],
        "no such list. Name"),
    "prepare, a list of other columns": (
        lambda r: [text(r / "x" / f"stage_2_{n}.csv", "a,b\n1,2\n") for n in ("detailed_class_info", "train_labels")],
        ["prepare_data", "rsna", "--source", "x", "--out", "y"], "has no column class, patientId|has no column"),
    "prepare, a list of bytes": (
        lambda r: (text(r / "x/train.csv"), (r / "x/train.csv").write_bytes(b"image_id,class_id\n\xff,1\n")),
        ["prepare_data", "vindr", "--source", "x", "--out", "y"], "train.csv: "),
    "prepare, no images": (lambda r: text(r / "x/train.csv", "image_id,class_id\na,14\n"),
                           ["prepare_data", "vindr", "--source", "x", "--out", "y"], "none of the 1 listed images"),
    "prepare, an empty list": (lambda r: text(r / "x/train.csv", "image_id,class_id\n"),
                               ["prepare_data", "vindr", "--source", "x", "--out", "y"], "none of the 0 listed images"),
    "check nowhere": (None, ["prepare_data", "--check", "brain", "--data-root", "x"], "--data-root x: no such folder"),
    "check and prepare": (None, ["prepare_data", "brain", "--check", "lag"], "give a dataset with --source"),
    "check of no dataset": (None, ["prepare_data", "--check", "mars"], "invalid choice: 'mars'"),
    "check what is damaged": (lambda r: medad(r / "x", "{"), ["prepare_data", "--check", "brain", "--data-root", "x"],
                              "x/data.json: must be"),
    "prepare, lists that are damaged": (
        lambda r: ([write(r / "x" / p / c / f"{i}.png") for p in ("Training", "Testing")
                    for c in ("notumor", "glioma", "meningioma") for i in range(3)], text(r / "l.json", "[]")),
        ["prepare_data", "brain", "--source", "x", "--out", "y", "--lists", "l.json"], "l.json: must be"),
}  # fmt: skip
FILES = ["--model", "m.pth", "--discriminator", "d.pth"]
IMPORT = ["import_official", "--exp", "n", "--config", "digit_quick", *FILES]
TOOLS |= {
    "import without files": (None, IMPORT[:5], "give --model and --discriminator"),
    "import of no file": (None, IMPORT, "m.pth: no such file"),
    "import of text": (lambda r: text(r / "m.pth"), IMPORT, "m.pth: not a weight file"),
    "import of a list": (lambda r: torch.save([1], r / "m.pth"), IMPORT, "m.pth: not a weight file"),
    "import of nothing": (lambda r: torch.save({}, r / "m.pth"), IMPORT, "m.pth: not a weight file"),
    "import of a network of another": (lambda r: torch.save({"a": torch.ones(1)}, r / "m.pth"), IMPORT,
        "m.pth: its entries"),
    "import of NaN": (lambda r: torch.save({"a": torch.full((1,), torch.nan)}, r / "m.pth"), IMPORT,
        "a holds values that"),
    "import of a folder": (lambda r: (r / "m.pth").mkdir(), IMPORT, "m.pth: not a weight file"),
    "import over an experiment": (None, ["import_official", "--exp", "a", *IMPORT[3:]], "checkpoints/a exists already"),
    "import of an unknown configuration": (None, [*IMPORT[:4], "x", *FILES], "Unknown configuration 'x'"),
    "import of an auto-encoder": (None, [*IMPORT[:4], "ae", *FILES], "--folder is DDAD's"),
    "import of DDAD without its folder": (None, [*IMPORT[:4], "ddad_brain_ae", *FILES], "give --folder"),
    "import of DDAD from nowhere": (None, [*IMPORT[:4], "ddad_brain_ae", "--folder", "x"], "holds no .pth files"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "arguments", "message"), cases(TOOLS))
def test_a_tool_refuses(place, capsys, make, arguments, message):
    if make:
        make(place)
    check_refused(place, capsys, arguments, message, codes=(1, 2))


LISTED = {
    "an unknown configuration": ("X zang", [], "X: Unknown configuration 'zang'"),
    "a bad setting": ("X ae epocs=1", [], "X: Unknown configuration key 'epocs'"),
    "no configuration": ("X", [], "no configuration"),
    "a name twice": ("X ae\nX vae", [], "a second line of that name"),
    "a quotation mark": ('X ae "', [], "quotation|closing"), "nothing": ("", [], "list of experiments is empty"),
    "a line that is none": ("X ae", ["--lines", "Y"], "no line Y; there are X"),
    "a seed that is none": ("X ae", ["--seeds", "x"], "write whole numbers"),
    "an experiment that is none": ("X ae", ["--only", "9"], "--only 9: there are"),
    "no jobs": ("X ae", ["--jobs", "0"], "--jobs 0: must be at least 1"),
    "negative jobs": ("X ae", ["--jobs", "-1"], "--jobs -1"),
    "no data": ("X ae dataset=zhang", ["--data-root", "absent"], "absent: no such folder"),
    "a name that is a path": ("X ae", ["--name", "../t"], "use at most 200 letters"),
    "no quick settings": ("X ae", ["--quick"], "for it"),
}  # fmt: skip


@pytest.mark.parametrize("what", LISTED)
def test_a_wrong_list_of_experiments_is_refused(workspace, capsys, monkeypatch, what):
    lines, more, message = LISTED[what]
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    arguments = ["batch", "--name", "t", "--script", "t.sh", "--device", "cpu", *more]
    check_refused(workspace, capsys, arguments, message, codes=(1, 2))


# -- odd, but right ---------------------------------------------------------------------------------------------------

ODD = {
    "a space.png": lambda p: write(p), "ü.png": lambda p: write(p), "new\nline.png": lambda p: write(p),
    "a,b.png": lambda p: write(p), 'quote".png': lambda p: write(p), "-dash.png": lambda p: write(p),
    "日本.png": lambda p: write(p), "UPPER.PNG": lambda p: write(p), "two.dots.png": lambda p: write(p),
    "single.png": lambda p: write(p, 7, (1, 1)), "thin.png": lambda p: write(p, 7, (1, 500)),
    "black.png": lambda p: write(p, 0), "white.png": lambda p: write(p, 255),
    "colour.png": lambda p: write(p, mode="RGB"), "clear.png": lambda p: write(p, mode="RGBA"),
    "palette.png": lambda p: write(p, mode="P"), "bits.png": lambda p: write(p, mode="1"),
    "cmyk.jpg": lambda p: write(p, mode="CMYK"), "cmyk.tif": lambda p: write(p, mode="CMYK"),
    "sixteen.png": lambda p: saved(p, Image.fromarray(np.full((8, 8), 40_000, np.uint16))),
    "wide.tif": lambda p: saved(p, Image.fromarray(np.full((8, 8), 40_000, np.int32))),
    "a jpeg.png": lambda p: saved(p, Image.new("L", (9, 9)), format="JPEG"),
    "a png.jpg": lambda p: saved(p, Image.new("L", (9, 9)), format="PNG"),
    "still.png": lambda p: saved(p, Image.new("L", (9, 9)), format="GIF"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_trained_on_and_scored(pictured, capsys, name):
    ODD[name](pictured / "mine" / "train" / "good" / name)
    assert command("main", *NEW[1:], *OWN, "max_batches=1", "--data-root", "mine") == 0
    assert command("predict", "--exp", "n", "--device", "cpu", f"mine/train/good/{name}", "--csv", "x.csv") == 0
    with open(pictured / "x.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == f"mine/train/good/{name}" and np.isfinite(float(row["score"]))


ODD_LISTS = {
    "a byte order mark": "\ufeffpath\na b.png\nc.png\n",
    "Windows' ends of lines": "path,split\r\na b.png,\r\nc.png,train\r\n",
    "spaces after commas": "path, split, label\na b.png, train, good\nc.png, train, NORMAL\n",
    "quotation marks": 'path,label\n"a b.png","good"\n"c.png",""\n', "empty lines": "path\n\na b.png\n\n\nc.png\n",
    "an absolute path": "path\n{here}/a b.png\nc.png\n", "a path outside": "path\n../out.png\nc.png\n",
    "no last end of line": "path\na b.png\nc.png", "columns in capitals": "PATH,Label\na b.png,0\nc.png,0.0\n",
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_LISTS)
def test_odd_lists_are_read(workspace, what):
    for name in ("new/a b.png", "new/c.png", "out.png"):
        write(workspace / name)
    text(workspace / "new" / "images.csv", ODD_LISTS[what].replace("{here}", str(workspace / "new")))
    arguments = [word for word in OWN if not word.startswith("batch_size")]
    assert command("main", *NEW[1:], *arguments, "batch_size=2", "held_out=0", "--data-root", "new") == 0


def test_names_that_are_no_text_are_refused(place, capsys):
    """Of a file to be scored as of one to be trained on: neither could be written down."""
    source = write(place / "x.png")
    os.rename(source, os.fsencode(place) + b"/mine/train/good/\xff.png")
    check_refused(place, capsys, ["predict", "--exp", "a", "mine", "--device", "cpu"], "UTF-8. Rename")
    check_refused(place, capsys, [*NEW, *OWN, "--data-root", "mine"], "UTF-8. Rename")


def test_links_that_lead_nowhere_or_back_are_left_out(pictured):
    link(pictured / "mine/train/good/dangling.png", "nowhere.png")
    link(pictured / "mine/train/good/loop.png", "loop.png")
    link(pictured / "mine/train/good/back", pictured / "mine" / "train")
    assert command("main", *NEW[1:], *OWN, "--data-root", "mine") == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_too_little_memory_is_said(place, capsys, monkeypatch, error):
    def full(*args):
        raise error

    monkeypatch.setattr("methods.autoencoder.SingleAutoEncoder.step", full)
    before = (place / "checkpoints/a/last.pt").read_bytes()
    capsys.readouterr()
    assert command("main", "--exp", "a", "--set", "epochs=2", "--device", "cpu") == 1
    said = capsys.readouterr().err
    assert said.startswith("error: there is not enough memory") and "Take a smaller batch_size" in said
    assert (place / "checkpoints/a/last.pt").read_bytes() == before
