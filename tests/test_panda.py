"""DN2 and PANDA: nearest images, what is tuned and what stays, the loss, the steps, the centre, EWC."""

import copy

import pytest
import torch
from conftest import assert_same_run
from forks import kill_in_training
from PIL import Image
from test_methods import build, images_of, train_a_bit
from tiny import command, train
from torch import nn

import configs
from dataloader.images import DataError
from dataloader.loader import Batch
from evaluation import plots
from models.features import BACKBONES, FrozenFeatures
from models.panda import LayersBetween

EWC = ["ewc_weight=1e4", "fisher_images=3"]


def training_images(loader):
    return torch.cat(list(loader.unaugmented()))


def vector(parameters):
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def pooled(method, images):
    """The points by hand: the whole network's deepest layer, averaged over the image."""
    last = method.config.layers[-1]
    with torch.no_grad():
        return method.pretrained(last).to(images)(images)[last].mean((2, 3))


# -- the part that is tuned -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0", "vgg16"])
def test_a_network_cut_in_two_is_the_network(backbone):
    whole, images = FrozenFeatures(backbone, ("layer2", "layer4")), torch.rand(2, 1, 64, 64)
    found = whole(images)
    part = LayersBetween(whole, "layer2", "layer4").train()
    assert torch.equal(part(found["layer2"]), found["layer4"])
    assert not any(module.training for module in part.modules())
    names = [name for name, _ in part.named_parameters()]
    first = {"resnet18": "layer3.0", "efficientnet_lite0": "_blocks.5", "vgg16": "features.17"}[backbone]
    assert names[0].startswith(f"network.{first}.") and not any("fc" in name for name in names)
    other = FrozenFeatures(backbone, ("layer2", "layer4"))
    part.take(other)
    expected = other(images)
    assert torch.equal(part(expected["layer2"]), expected["layer4"])


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_the_classifier_is_what_follows_the_deepest_layer(backbone):
    torch.manual_seed(0)
    whole, images = BACKBONES[backbone].build().eval(), torch.rand(2, 3, 64, 64)
    frozen = FrozenFeatures(backbone, ("layer4", "logits"))
    frozen.network.load_state_dict(whole.state_dict())
    deepest = frozen.network(images)["layer4"]
    torch.testing.assert_close(LayersBetween(frozen, "layer4", "logits")(deepest), whole(images))


def test_training_moves_the_deeper_layers_alone_and_no_running_statistics():
    method, loader = build("panda", "learning_rate=1", "layers=layer2,layer4")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for step in range(2):
        method.training_step(Batch.of(images_of(loader), step))
    moved = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"tuned.{name}" for name, _ in method.tuned.named_parameters()}
    assert {name.split(".")[2] for name in moved} == {"layer3", "layer4"}
    norms = [module for module in method.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)


# -- the points and their distances -----------------------------------------------------------------------------------


def test_dn2_measures_squared_distances_to_the_two_nearest_images():
    method, loader = build("dn2", "batch_size=5", "augment=true")
    method.fit(loader)
    bank, images = pooled(method, training_images(loader)), torch.rand(3, 1, 48, 48)
    torch.testing.assert_close(method.bank.rows, bank)  # unaugmented, in order
    distances = torch.cdist(pooled(method, images).double(), bank.double()).square()
    expected = distances.sort(1).values[:, :2].sum(1)
    found = method.score(images)
    torch.testing.assert_close(found.image["distance"], expected, rtol=1e-4, atol=0)
    assert not found.maps and found.reconstruction is None


def test_more_neighbours_are_found_through_all_parts_of_the_bank(monkeypatch):
    monkeypatch.setattr("models.bank.ROWS_AT_ONCE", 7)
    method, loader = build("dn2", "neighbours=9")
    method.double().fit(loader)
    queries = torch.randn(4, 512, dtype=torch.float64)
    expected = torch.cdist(queries, method.bank.rows).square().sort(1).values[:, :9].sum(1)
    torch.testing.assert_close(method.bank.nearest(queries, 9), expected)
    torch.testing.assert_close(method.bank.nearest(queries, 1), torch.cdist(queries, method.bank.rows).square().amin(1))


@pytest.mark.parametrize("name", ["dn2", "panda"])
def test_training_images_are_at_no_distance_from_themselves(name):
    method, loader = build(name, "neighbours=1")
    train_a_bit(method, loader)
    method.fit(loader)
    scale = method.bank.rows.var(0).sum()
    assert method.score(training_images(loader)).image["distance"].max() < 1e-4 * scale
    assert method.score(torch.rand(4, 1, 48, 48)).image["distance"].min() > 1e-2 * scale


def test_panda_before_it_is_tuned_is_dn2():
    images, scores = torch.rand(4, 1, 48, 48), []
    for name, layers in (("dn2", "layer4"), ("panda", "layer2,layer4")):
        method, loader = build(name, f"layers={layers}")
        method.start_epoch(loader, 0)
        method.fit(loader)
        scores.append(method.score(images).image["distance"])
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=0)


def test_fewer_images_than_neighbours_are_refused():
    method, loader = build("dn2", "digits_per_epoch=2", "neighbours=3")
    with pytest.raises(DataError, match="2 training images, fewer than neighbours = 3"):
        method.fit(loader)


# -- the centre, the loss and the steps -------------------------------------------------------------------------------


def test_the_centre_is_where_the_training_images_lie_before_anything_is_tuned():
    method, loader = build("panda", "learning_rate=100", "augment=true")
    method.start_epoch(loader, 0)
    expected = pooled(method, training_images(loader)).mean(0)
    torch.testing.assert_close(method.centre, expected)
    centre = method.centre.clone()
    method.training_step(Batch.of(images_of(loader)))
    method.start_epoch(loader, 1)
    assert torch.equal(method.centre, centre)


def test_the_loss_is_the_mean_squared_distance_to_the_centre_a_dimension():
    method, loader = build("panda")
    images = images_of(loader)
    method.centre.normal_()
    expected = (pooled(method, images) - method.centre).square().sum(1).mean() / 256
    found = method.training_step(Batch.of(images))
    assert set(found) == {"compactness"}
    torch.testing.assert_close(found["compactness"], expected)


def test_the_loss_is_zero_where_an_image_is_the_centre_and_only_there():
    method, loader = build("panda")
    images = images_of(loader)[:1]
    method.centre.copy_(pooled(method, images)[0])
    before = vector(method.tuned.parameters())
    method.config.weight_decay = method.optimizers["tuned"].param_groups[0]["weight_decay"] = 0.0
    assert method.training_step(Batch.of(images))["compactness"] < 1e-8
    torch.testing.assert_close(vector(method.tuned.parameters()), before, rtol=1e-6, atol=1e-6)
    assert method.training_step(Batch.of(1 - images))["compactness"] > 1e-3


@pytest.mark.parametrize("longest", [1e-3, 1e6])
def test_steps_are_sgds_with_the_gradient_cut_to_its_longest(longest):
    method, loader = build("panda", f"gradient_norm={longest}")
    method.double()
    method.start_epoch(loader, 0)
    tuned, velocity = copy.deepcopy(method.tuned), 0
    for step in range(2):
        images = images_of(loader)[:2].double()
        f = method.features(images)["layer2"]
        loss = (tuned(f).mean((2, 3)) - method.centre).square().mean()
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(tuned.parameters()))])
        gradient *= min(1, longest / gradient.norm())
        weights = vector(tuned.parameters())
        velocity = 0.9 * velocity + gradient + 5e-5 * weights
        nn.utils.vector_to_parameters(weights - 1e-2 * velocity, tuned.parameters())
        method.training_step(Batch.of(images, step))
        found = vector(method.tuned.parameters()) - weights
        torch.testing.assert_close(found, -1e-2 * velocity, rtol=1e-4, atol=1e-10)


def test_tuning_draws_the_training_images_together():
    method, loader = build("panda", "gradient_norm=1e6", "learning_rate=0.03")
    method.start_epoch(loader, 0)
    images = images_of(loader)
    found = [method.training_step(Batch.of(images, step))["compactness"] for step in range(8)]
    assert found[-1] < 0.8 * found[0]


# -- elastic weight consolidation -------------------------------------------------------------------------------------


def test_the_fisher_information_is_the_mean_square_of_gradients_of_drawn_classes(monkeypatch):
    method, loader = build("panda", *EWC, "batch_size=2")
    drawn, multinomial = [], torch.multinomial

    def noted(p, count, generator):
        y = multinomial(p, count, generator=generator)
        drawn.append((p, y))
        return y

    monkeypatch.setattr(torch, "multinomial", noted)
    method.start_epoch(loader, 0)
    assert len(drawn) == 3
    expected = 0
    whole = method.pretrained("layer3", "logits").requires_grad_(True)
    deeper = dict(whole.network.named_parameters())
    deeper = [deeper[name] for name, _ in method.tuned.network.named_parameters()]
    for image, (p, y) in zip(training_images(loader)[:3], drawn, strict=True):
        log_p = whole(image.unsqueeze(0))["logits"].log_softmax(1)
        torch.testing.assert_close(log_p.exp().detach(), p)
        gradient = torch.autograd.grad(log_p[0, y.item()], deeper)
        expected += torch.cat([g.flatten() for g in gradient]).square() / 3
    torch.testing.assert_close(method.fisher, expected, rtol=1e-3, atol=1e-8)
    assert torch.equal(method.anchor, vector(method.tuned.parameters()))
    again, loader = build("panda", *EWC, "batch_size=2")
    again.start_epoch(loader, 0)
    assert torch.equal(again.fisher, method.fisher)


def test_leaving_the_weights_that_matter_costs_as_their_information_says():
    method, loader = build("panda", *EWC)
    method.start_epoch(loader, 0)
    images = images_of(loader)
    assert method.training_step(Batch.of(images))["ewc"] == 0
    method.fisher.zero_()[5] = 2.0
    method.anchor.copy_(vector(method.tuned.parameters()))
    method.anchor[5] -= 0.1
    method.anchor[6] -= 10  # which does not matter
    found = method.training_step(Batch.of(images, 1))
    assert found["ewc"].item() == pytest.approx(0.5 * 1e4 * 2 * 0.1**2, rel=1e-4)
    weights = vector(method.tuned.parameters())
    method.fisher[5] = 2e9  # stronger than all else
    method.training_step(Batch.of(images, 2))
    assert (weights - vector(method.tuned.parameters()))[5] > 5e-6


def test_what_it_holds_on_to_is_saved(trained, workspace):
    folder = trained("a", "panda", ["epochs=1", *EWC])
    last = torch.load(folder / "last.pt", weights_only=True)["method"]
    assert {name.split(".")[0] for name in last} == {"tuned", "centre", "classifier", "anchor", "fisher", "bank"}
    assert last["fisher"].max() > 0 and last["centre"].abs().max() > 0
    assert not torch.equal(last["anchor"], vector(v for k, v in last.items() if k.startswith("tuned.")))
    assert command("eval", "--exp", "a", "--device", "cpu") == 0


# -- weights of a file ------------------------------------------------------------------------------------------------


def test_all_parts_take_the_weights_of_the_file(workspace):
    torch.manual_seed(1)
    whole = BACKBONES["resnet18"].build()
    torch.save(whole.state_dict(), "w.pth")
    method, _ = build("panda", "weights=w.pth", *EWC)
    assert method.load_pretrained()["features"]["source"] == "w.pth"
    state = whole.state_dict()
    for part in (method.features, method.tuned, method.classifier):
        found = part.network.state_dict()
        assert found and all(torch.equal(value, state.pop(name)) for name, value in found.items())
    assert not state
    assert all(parameter.requires_grad for parameter in method.tuned.parameters())
    assert not any(parameter.requires_grad for parameter in method.classifier.parameters())


def test_weights_without_a_classifier_are_enough_but_for_ewc(workspace, capsys):
    torch.save({k: v for k, v in BACKBONES["resnet18"].build().state_dict().items() if "fc." not in k}, "w.pth")
    assert train("a", method="panda", overrides=["weights=w.pth", *EWC]) == 1
    assert "w.pth: not the weights of a resnet18: fc.weight is missing" in capsys.readouterr().err
    method, _ = build("panda", "weights=w.pth")
    method.load_pretrained()


# -- settings and runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("dn2", "epochs=2", "DN2 is fitted once"),
        ("dn2", "layers=layer3,layer4", "DN2 takes the features of one"),
        ("panda", "layers=layer4", "so give two"),
        ("panda", "gradient_norm=0", "must be above 0"),
        ("panda", "neighbours=0", "at least 1"),
        ("panda", "image_size=31", "at least 32"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, setting, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.build(name, [setting])
    with pytest.raises(configs.ConfigError, match="EWC needs a classifier, and vgg16 has none"):
        configs.build("panda", ["backbone=vgg16", "ewc_weight=1"])


@pytest.mark.slow  # as test_patchcore.py's
def test_a_fit_that_is_killed_is_made_again(workspace, trained_once):
    kill_in_training(workspace, "methods.panda.Dn2", "training_points", 1, "dn2", [])
    assert train("killed", method="dn2") == 0
    assert_same_run(workspace / "checkpoints" / "killed", trained_once("dn2"))


def test_without_maps_and_reconstructions_there_is_still_all_else(workspace, trained):
    trained("a", "dn2")
    assert command("eval", "--exp", "a", "--device", "cpu", "--save-maps") == 0
    Image.new("L", (60, 60), 90).save("x.png")
    assert command("predict", "--exp", "a", "x.png", "--images", "out", "--device", "cpu") == 0
    assert Image.open("out/x.png").size[0] // (plots.DPI * plots.PANEL) == 1  # the input alone
