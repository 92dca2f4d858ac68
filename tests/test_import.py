"""The released programs' weight files become experiments."""

import csv

import numpy as np
import pytest
import torch
from conftest import Golden, assert_close, fill
from PIL import Image
from tiny import command

import configs
from dataloader.images import read_image
from experiments.folder import Experiment
from methods import METHODS
from tools import import_official, official_names


def write_official(folder, case):
    for part, name in (("model", "model.pth"), ("disc", "discriminator.pth")):
        torch.save(case.filled_state(part), folder / name)


GOLDEN_SETTINGS = [
    "image_size=48", "base_channels=4", "queue_slots=15", "matrix_slots=12", "decoder_memory=none,none,none",
    "ops=concat,concat,none", "statistics_images=8", "digits_per_epoch=16",
]  # fmt: skip


def run_import(workspace, exp, *arguments):
    settings = [pair for pair in GOLDEN_SETTINGS if "dataset=zhang" not in arguments or not pair.startswith("digit")]
    return command("import_official", "--config", "digit_quick", "--set", *settings, *arguments, "--exp", exp,
                   "--model", workspace / "model.pth", "--discriminator", workspace / "discriminator.pth",
                   module=import_official)  # fmt: skip


def test_released_weights_become_an_experiment(workspace, capsys):
    case = Golden("squid/squid_9patch")
    write_official(workspace, case)
    assert run_import(workspace, "released") == 0
    capsys.readouterr()
    assert command("eval", "--exp", "released") == 0
    assert "of imported weights it is not known which images" in capsys.readouterr().err
    experiment = Experiment("released")
    _, config, _ = experiment.load_config()
    method = METHODS[config.method](config)
    experiment.load_weights("best", method)
    logits = method.score(case.batches()[0].float()).columns["logit"]
    assert_close(logits, case["score_before"].squeeze(1), 1e-4)
    assert method.sigma > 0 and method.sigma != 1

    Image.new("L", (48, 48), 90).save(workspace / "x.png")
    assert command("predict", "--exp", "released", workspace / "x.png") == 0
    assert run_import(workspace, "released") == 1
    assert "exists already" in capsys.readouterr().err


def test_weights_with_other_entries_are_refused_with_the_list(workspace, capsys):
    case = Golden("squid/squid_9patch")
    write_official(workspace, case)
    state = case.filled_state("model")
    state["extra.weight"] = torch.ones(2)
    state["out_conv.conv.bias"] = torch.ones(3)
    del state["in_conv.conv.conv1.0.weight"]
    torch.save(state, workspace / "model.pth")
    assert run_import(workspace, "released") == 1
    error = capsys.readouterr().err
    for line in ("missing: in_conv.conv.conv1.0.weight [4, 1, 3, 3]", "extra: extra.weight [2]",
                 "wrong shape: out_conv.conv.bias is [3], not [1]"):  # fmt: skip
        assert line in error
    (workspace / "model.pth").write_text("no weights")
    assert run_import(workspace, "released") == 1
    assert "model.pth: not a weight file" in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "released").exists()


def test_an_imported_experiment_is_not_trained_over(workspace, capsys):
    write_official(workspace, Golden("squid/squid_9patch"))
    assert run_import(workspace, "released") == 0
    before = (workspace / "checkpoints" / "released" / "best.pt").read_bytes()
    assert command("main", "--exp", "released") == 1
    assert "training data: imported weights → sklearn-" in capsys.readouterr().err
    assert (workspace / "checkpoints" / "released" / "best.pt").read_bytes() == before


def test_imports_with_a_wrong_data_root_or_damaged_numbers_leave_nothing(workspace, capsys):
    write_official(workspace, Golden("squid/squid_9patch"))
    assert run_import(workspace, "released", "--set", "dataset=zhang", "--data-root", "nowhere") == 1
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert run_import(workspace, "noted", "--set", "dataset=zhang") == 0
    assert "note: no training images" in capsys.readouterr().out
    state = torch.load(workspace / "model.pth", weights_only=True)
    state["out_conv.conv.bias"].fill_(torch.nan)
    torch.save(state, workspace / "model.pth")
    assert run_import(workspace, "released") == 1
    assert "out_conv.conv.bias holds values that are not finite" in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "released").exists()


@pytest.mark.slow
def test_simsid_weights_at_full_size_are_imported_and_score_images(workspace, capsys):
    """The released names are those of the recorded case, the sizes simsid_zhang's."""
    recorded = Golden("simsid/simsid_queue").info["official_state"]
    method = METHODS["simsid"](configs.build("simsid_zhang"))
    files = {}
    for part, network, targets in (
        ("model", method.generator, official_names.simsid_generator(method.generator.state_dict())),
        ("disc", method.discriminator, official_names.discriminator(method.discriminator.state_dict())),
    ):
        state = network.state_dict()
        shapes = {k: list((state[o] if j is None else state[o][j]).shape) for k, (o, j) in targets.items()}
        if part == "model":
            shapes |= {"inpaint_block.conv.weight": [2048, 2048, 3, 3], "inpaint_block.conv.bias": [2048]}
        assert set(shapes) == {k for k in recorded[part] if not k.endswith("num_batches_tracked")}
        files[part] = {name: fill(name, shape) for name, shape in shapes.items()}
    assert sum(v.numel() for k, v in files["model"].items() if "running" not in k) == pytest.approx(84e6, rel=0.01)
    torch.save(files["model"], "model.pth")
    torch.save(files["disc"], "discriminator.pth")
    assert command("import_official", "--config", "simsid_zhang", "--exp", "full", "--model", "model.pth",
                   "--discriminator", "discriminator.pth", module=import_official) == 0  # fmt: skip
    for i in range(3):
        Image.fromarray(np.random.RandomState(i).randint(0, 256, (150, 130), np.uint8)).save(f"{i}.png")
    capsys.readouterr()
    assert command("predict", "--exp", "full", *(f"{i}.png" for i in range(3)), "--csv", "out.csv") == 0
    with open("out.csv") as file:
        logits = [float(row["logit"]) for row in csv.DictReader(file)]

    experiment = Experiment("full")
    experiment.load_weights("best", method)
    method.eval().discriminator.train()  # as the released program scores: one image at a time, its own statistics
    for i, logit in enumerate(logits):
        x = 2 * torch.from_numpy(read_image(workspace / f"{i}.png", 128, "bicubic")).float()[None, None] / 255 - 1
        with torch.no_grad():
            x_hat = method.generator(x).x_hat
            assert x_hat.min() >= -1 and x_hat.max() <= 1 and x_hat.min() < 0
            assert method.discriminator(x_hat).item() == pytest.approx(logit, rel=1e-3, abs=1e-4)
