"""What memories and skips do to a reconstruction, against the same by hand."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, command
from torch import nn

import configs
from dataloader import Split, build_dataset
from evaluation import scoring
from experiments.folder import Experiment
from methods import METHODS
from system.device import to_float
from tools import influence

CPU = torch.device("cpu")
HIERARCHICAL = ["hierarchical=true", "skip_weights="]
BOTTLENECK = {"bottleneck of another image", "bottleneck zero"}
INPAINTING = {"in-painting bypassed", "inpaint.memory bypassed"}
DECODER = {"student.memories.0 bypassed", "student.memories.1 bypassed"}
SKIPS = {f"{which} of another image" for which in ("skips", "skip 1", "skip 2")}
VARIANTS = {  # → the interventions that it allows
    "squid": ("squid", [], BOTTLENECK | INPAINTING | DECODER | SKIPS),
    "no teacher": ("squid", ["teacher=false"], BOTTLENECK | INPAINTING | DECODER | SKIPS),
    "V2, V4": (
        "squid", ["decoder_memory=V2,none,V4"],
        BOTTLENECK | INPAINTING | SKIPS | {"student.memories.0 bypassed", "student.memories.2 bypassed"},
    ),
    "no skips": ("squid", ["ops=none,none,none"], BOTTLENECK | INPAINTING | DECODER),
    "shallow skip": (
        "squid", ["ops=none,none,concat"],
        BOTTLENECK | INPAINTING | DECODER | {"skips of another image", "skip 0 of another image"},
    ),
    "simsid": ("simsid", [], BOTTLENECK | INPAINTING | DECODER | SKIPS),
    "matrix": (
        "simsid", ["bottleneck=matrix", "dim_reduce=true", "slot_dim=6"], BOTTLENECK | INPAINTING | DECODER | SKIPS
    ),
    "no block": ("simsid", ["bottleneck=none"], BOTTLENECK | DECODER | SKIPS),
    "no memory": ("simsid", ["bottleneck=none", "decoder_memory=none,none,none"], BOTTLENECK | SKIPS),
    "hierarchical": (
        "simsid", HIERARCHICAL, BOTTLENECK | SKIPS | {f"memories.{i} bypassed" for i in range(3)},
    ),
}  # fmt: skip


def build(name, *overrides):
    torch.manual_seed(0)
    method = METHODS[name](configs.build(TINY[name][0], [*TINY[name][1], *overrides]))
    with torch.no_grad():
        for parameter in method.generator.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)  # so that untrained weights let the input through to the image
    return method.eval()


@pytest.fixture
def images():
    return torch.randint(256, (10, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def measured(method, images, other=None):
    other = influence.partners(len(images)) if other is None else other
    return influence.measure(method, images, other, influence.slot_weights(method, images, CPU), CPU)


def check(found, method, images, x_hat):
    """``found`` is what a network with this reconstruction, in the network's range, is measured and scored as."""
    untouched = method.score(images).reconstruction
    x = method.to_images(x_hat)
    expected = (x - untouched).abs().mean().item()
    assert expected > 1e-6, "too small a change to tell right from wrong"
    assert found.change == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(found.scores["reconstruction"], (x - images).square().mean((1, 2, 3)), rtol=1e-5)
    logit = method.discriminator(x_hat, per_image=True).squeeze(1)
    np.testing.assert_allclose(found.scores["discriminator"], (method.mu - logit) / method.sigma, rtol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 40])
def test_every_image_has_another_as_its_partner(n):
    other = influence.partners(n)
    assert sorted(other.tolist()) == list(range(n)) and not (other == torch.arange(n)).any()
    assert torch.equal(other, influence.partners(n))


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_their_interventions_and_the_yardstick_is_plain_scoring(name, images, monkeypatch):
    monkeypatch.setattr(scoring, "SCORE_BATCH", 4)  # batches of 4, 4 and 2
    method_name, overrides, expected = VARIANTS[name]
    method = build(method_name, *overrides)
    before = method.score(to_float(images, CPU))
    found = measured(method, images)
    assert set(found) == expected | {"untouched", "another image"}
    assert found["untouched"].change == 0
    other = method.score(to_float(images[influence.partners(10)], CPU))
    change = (other.reconstruction - before.reconstruction).abs().mean().item()
    assert found["another image"].change == pytest.approx(change, rel=1e-3, abs=1e-8)
    for score, values in found["another image"].scores.items():
        np.testing.assert_allclose(values, other.image[score], rtol=1e-4)
    assert torch.equal(method.score(to_float(images, CPU)).reconstruction, before.reconstruction)  # no hook is left


@pytest.mark.parametrize("name", ["squid", "hierarchical"])
def test_what_an_image_is_given_of_itself_changes_nothing(name, images):
    method_name, overrides, _ = VARIANTS[name]
    found = measured(build(method_name, *overrides), images, other=torch.arange(10))
    exchanges = {name: each for name, each in found.items() if name.endswith("another image")}
    assert len(exchanges) == 5 and all(each.change == 0 for each in exchanges.values())
    for each in exchanges.values():
        for score, values in each.scores.items():
            assert (values == found["untouched"].scores[score]).all()


@pytest.mark.parametrize("overrides", [[], ["decoder_memory=none,none,none"]])
@pytest.mark.parametrize("name", ["squid", "simsid"])
@torch.no_grad()
def test_what_the_decoder_is_given(name, overrides, images):
    method = build(name, *overrides)
    found = measured(method, images)
    generator, student = method.generator, method.generator.student
    x = to_float(images, CPU)
    other = influence.partners(10)
    bottleneck, skips = generator.encoder(method.to_network(x))
    rebuilt = generator.inpaint(bottleneck)
    theirs, their_skips = generator.encoder(method.to_network(x[other]))
    by_hand = {
        "bottleneck of another image": (generator.inpaint(theirs), skips),
        "bottleneck zero": (torch.zeros_like(rebuilt), skips),
        "in-painting bypassed": (bottleneck, skips),
        "skips of another image": (rebuilt, their_skips),
        "skip 1 of another image": (rebuilt, [skips[0], their_skips[1], skips[2]]),
        "skip 2 of another image": (rebuilt, [skips[0], skips[1], their_skips[2]]),
    }
    for intervention, given in by_hand.items():
        check(found[intervention], method, x, student(*given)[0])


@pytest.mark.parametrize(
    ("name", "overrides", "module"),
    [("squid", [], "student.memories.0"), ("squid", [], "student.memories.1"), ("squid", [], "inpaint.memory"),
     ("squid", ["decoder_memory=V2,none,V4"], "student.memories.0"), ("simsid", HIERARCHICAL, "memories.1")],
)  # fmt: skip
@torch.no_grad()
def test_a_bypassed_memory_is_the_identity(name, overrides, module, images):
    method = build(name, *overrides)
    found = measured(method, images)[f"{module} bypassed"]
    x = to_float(images, CPU)
    without = build(name, *overrides)
    same = nn.Identity()
    same.slots = getattr(without.generator.get_submodule(module), "slots", None)  # says how many places share them
    without.generator.set_submodule(module, same)
    check(found, method, x, without.generator(method.to_network(x)).x_hat)


def test_without_skips_the_bottleneck_is_all_that_the_decoder_sees(images):
    method = build("squid", "ops=none,none,none", "decoder_memory=none,none,none")
    found = measured(method, images)
    assert found["another image"].change > 1e-3
    rows = {row["intervention"]: row for row in influence.figures(found, np.arange(10) % 2, {}, "images")}
    assert rows["bottleneck of another image"]["relative_change"] == pytest.approx(1, abs=1e-5)
    alike = found["bottleneck zero"].scores["discriminator"]
    np.testing.assert_allclose(alike, alike[0], rtol=1e-5)


def test_figures_are_relative_to_the_yardstick_and_the_untouched_network(tmp_path):
    scores = {"untouched": [1, 2, 3, 4], "another image": [4, 3, 2, 1], "x": [1, 3, 2, 4]}
    changes = {"untouched": 0.0, "another image": 0.25, "x": 0.5}
    found = {
        name: influence.Measured(changes[name], dict.fromkeys(influence.SCORES, np.array(values, float)))
        for name, values in scores.items()
    }
    labels = np.array([0, 0, 1, 1])
    usage = {"x": torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [0.9, 0.0999, 0.0001]])}
    untouched, yardstick, x = influence.figures(found, labels, usage, "images")
    assert untouched["relative_change"] == 0 and yardstick["relative_change"] == 1 and x["relative_change"] == 2
    assert yardstick["reconstruction_auc"] == ""
    assert untouched["reconstruction_auc"] == 1 and untouched["reconstruction_auc_points"] == 0
    assert x["discriminator_auc"] == 0.75 and x["discriminator_auc_points"] == -25
    assert (x["slots_in_use"], x["slots"]) == (2, 3) and untouched["slots"] == ""
    found["another image"] = found["untouched"]
    collapsed = influence.figures(found, labels, {}, "images")
    assert collapsed[2]["relative_change"] == ""  # nothing to relate it to
    influence.draw([row | {"experiment": "a"} for row in collapsed], tmp_path / "influence.png")
    assert (tmp_path / "influence.png").exists()


def test_the_first_images_of_each_class_are_taken():
    split = Split(torch.arange(6).view(6, 1, 1), torch.tensor([1, 0, 1, 1, 0, 0]), [], [])
    assert influence.chosen(split, 2)[0].flatten().tolist() == [1, 4, 0, 2]
    assert influence.chosen(split, None)[1].tolist() == [0, 0, 0, 1, 1, 1]


def save_experiment(exp, name, *overrides):
    """An untrained experiment, as main.py leaves a trained one."""
    method = build(name, *overrides) if name != "ae" else METHODS["ae"](configs.build(*TINY["ae"]))
    experiment = Experiment(exp)
    experiment.save_config(TINY[name][0], method.config, build_dataset(method.config).fingerprint())
    experiment.save_checkpoint("best.pt", {"method": method.state_dict(), "epoch": 7})
    return method


def test_the_command_writes_csv_tables_and_figure_and_keeps_the_other_rows(workspace, capsys):
    method = save_experiment("b", "squid")
    save_experiment("a", "simsid", *HIERARCHICAL)
    assert command("influence", "--exp", "b", "a", "--device", "cpu", "--images", 5, module=influence) == 0
    screen = capsys.readouterr().out

    def read():
        with open(workspace / "results" / "influence.csv", newline="") as file:
            return list(csv.DictReader(file))

    first = read()
    assert [row["experiment"] for row in first] == ["a"] * 10 + ["b"] * 11
    rows = {row["intervention"]: row for row in first if row["experiment"] == "b"}
    assert rows["untouched"]["images"] == "5 normal, 5 anomalous" and rows["untouched"]["epoch"] == "7"
    images, labels = influence.chosen(build_dataset(method.config).split("test"), 5)
    found = measured(method, images)
    for name, each in found.items():
        assert float(rows[name]["change"]) == each.change  # to the last digit
    assert rows["inpaint.memory bypassed"]["slots"] == "16"
    text = (workspace / "results" / "influence.md").read_text()
    for part in ("## a", "## b", "best checkpoint of epoch 7; test: 5 normal, 5 anomalous", "--exp b a"):
        assert part in text and part in screen
    assert text.index("## a") < text.index("## b")
    for given in (["--data-root", "/of/mine"], ["--data-root=/of/mine"]):
        assert influence.elsewhere(["--exp", "b", *given, "--images", "5"]) == ["--exp", "b", "--images", "5"]
    for exp in "ab":
        assert Image.open(workspace / "checkpoints" / exp / "figures" / "influence_best.png").size[0] > 300

    arguments = ["--exp", "b", "--device", "cpu", "--split", "val", "--images", 3]
    assert command("influence", *arguments, "--data-root", workspace, module=influence) == 0
    second = read()
    assert second[10]["command"] == f"python tools/influence.py {' '.join(map(str, arguments))}"
    assert second[:10] == first[:10] and len(second) == 21
    assert {(row["split"], row["images"]) for row in second[10:]} == {("val", "3 normal, 3 anomalous")}
    images, _ = influence.chosen(build_dataset(method.config).split("val"), 3)
    assert float(second[11]["change"]) == measured(method, images)["another image"].change

    shutil.copy(workspace / "checkpoints/b/best.pt", workspace / "checkpoints/b/last.pt")
    assert command("influence", "--exp", "b", "--device", "cpu", "--images", 3, "--checkpoint", "last",
                   module=influence) == 0  # fmt: skip
    third = read()
    assert third[:21] == second and [row["checkpoint"] for row in third[21:]] == ["last"] * 11
    text = (workspace / "results" / "influence.md").read_text()
    assert text.count("## b") == 2 and text.index("best checkpoint of") < text.index("last checkpoint of")


def test_seeds_that_are_alike_share_a_table(workspace):
    def row(experiment, intervention, auc, **other):
        return dict.fromkeys(influence.FIELDS, "") | {
            "experiment": experiment, "checkpoint": "last", "epoch": 9, "commit": "c", "intervention": intervention,
            "change": 0.25, "reconstruction_auc": auc, "reconstruction_auc_points": 100 * auc - 90, **other,
        }  # fmt: skip

    influence.write_results([row("a_s0", "x", 0.9, slots_in_use=3, slots=8), row("a_s0", "y", 0.5)])
    influence.write_results([row("a_s1", "x", 0.8, slots_in_use=6, slots=8), row("a_s1", "y", 0.5, change="")])
    influence.write_results([row("a_s2", "x", 0.1, commit="d")])
    text = (workspace / "results" / "influence.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## a_s0, a_s1", "## a_s2"]
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:3] in ("| x", "| y")
    ]
    assert cells == [
        ["x", "0.25 ± 0", "–", "–", "–", "85.00% ± 7.07%", "-5.00 ± 7.07", "4.5 ± 2.12 of 8"],
        ["y", "–", "–", "–", "–", "50.00% ± 0.00%", "-40.00 ± 0.00", ""],
        ["x", "0.25", "–", "–", "–", "10.00%", "-80.00", ""],
    ]


def test_errors_say_what_to_do(workspace, capsys):
    save_experiment("a", "ae")
    for arguments, message in (
        (["--exp", "a"], "checkpoints/a: ae has no space-aware memory whose influence could be measured; squid and"),
        (["--exp", "none"], "Train it first: python main.py --exp none"),
        (["--exp", "a", "--images", 0], "--images 0: at least 1 of each class"),
        (["--exp", "a", "--checkpoint", "last"], "--checkpoint best"),
    ):
        assert command("influence", *arguments, "--device", "cpu", module=influence) == 1
        assert message in capsys.readouterr().err
    assert not (workspace / "results").exists()
