"""What SQUID and SimSID estimate from training images before they score: mu and sigma, and batch norm's statistics."""

import json

import pytest
import torch
from conftest import assert_same_run, same
from tiny import TINY, command, train
from torch import nn

import configs
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from methods.simsid import SimSid
from methods.squid import Squid

BATCH, IMAGES = 8, 20  # two whole batches and one of 4


def trained(cls, *overrides):
    name = cls.__name__.lower()
    settings = [*TINY[name][1], f"digits_per_epoch={IMAGES}", "augment=true", *overrides]
    config = configs.build(TINY[name][0], settings)
    torch.manual_seed(0)
    method = cls(config)
    loader = TrainLoader(build_dataset(config), config, torch.device("cpu"))
    for batch in loader.epoch(0).batches():
        method.training_step(batch)
    return method, loader


@pytest.mark.parametrize("cls", [Squid, SimSid])
def test_statistics_are_of_the_same_images_every_time_or_drawn_anew(cls):
    method, loader = trained(cls)

    def fitted(epoch, **settings):
        vars(method.config).update(settings)
        method.fit(loader, epoch)
        return method.mu.item(), method.sigma.item()

    def by_hand(epoch):
        logits = torch.cat([method.score(images).columns["logit"] for images in loader.in_order(epoch, 8)])
        return pytest.approx((logits.mean().item(), logits.std(correction=0).item() + method.sigma_epsilon), rel=1e-4)

    assert fitted(1, statistics_draw="fixed") == fitted(5) == by_hand(0)
    assert fitted(5, statistics_draw="redrawn") == by_hand(5) != by_hand(0)
    assert fitted(5) != fitted(6)


@pytest.mark.parametrize("cls", [Squid, SimSid])
def test_batch_norm_is_estimated_over_the_whole_batches_of_all_training_images(cls):
    method, loader = trained(cls, "reestimate_batch_norm=true")
    conv, norm, _ = method.generator.encoder.input_block.project
    outputs = []
    hook = conv.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        method.eval()
        for images in loader.in_order(0):
            method.generate(method.to_network(images), with_teacher=False)
    hook.remove()
    of_batch = BATCH * method.config.patches_per_side**2
    maps = torch.cat(outputs).split(of_batch)[:2]
    weights = {name: p.clone() for name, p in method.named_parameters()}
    discriminator = {k: v.clone() for k, v in method.discriminator.state_dict().items()}

    method.fit(loader)
    torch.testing.assert_close(norm.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0))
    assert same(weights, dict(method.named_parameters()))
    assert same(discriminator, dict(method.discriminator.state_dict()))
    norms = [m for m in method.generator.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.momentum == 0.1 and not m.training for m in norms)

    state = {k: v.clone() for k, v in method.generator.state_dict().items()}
    method.fit(loader)  # nothing is drawn, and nothing of before is left in it
    assert all(torch.equal(v, state[k]) for k, v in method.generator.state_dict().items() if "teacher" not in k)


def test_batch_norm_is_left_alone_by_default():
    method, loader = trained(Squid)
    before = {k: v.clone() for k, v in method.generator.state_dict().items()}
    method.fit(loader)
    assert same(before, dict(method.generator.state_dict()))


def test_a_run_with_estimated_batch_norm_resumes_exactly(workspace):
    on = ["reestimate_batch_norm=true", "statistics_draw=redrawn", "epochs=1"]
    assert train("a", overrides=on) == 0
    assert train("a", overrides=[*on[:2], "epochs=2"]) == 0
    assert train("b", overrides=[*on[:2], "epochs=2"]) == 0
    assert_same_run(*(workspace / "checkpoints" / name for name in "ab"))


def test_evaluation_estimates_batch_norm_anew_on_demand(workspace, capsys):
    assert train("plain", overrides=["epochs=1"]) == 0
    assert train("estimated", overrides=["epochs=1", "reestimate_batch_norm=true"]) == 0
    found = {}
    for name, arguments in (("plain", []), ("plain", ["--reestimate-batch-norm"]), ("estimated", [])):
        assert command("eval", "--exp", name, "--device", "cpu", *arguments) == 0
        results = json.loads((workspace / "checkpoints" / name / "results.json").read_text())
        found[(name, *arguments)] = results["scores"], results["settings"]
    # one training step after another was the same, so that the two have the same weights
    assert found["plain", "--reestimate-batch-norm"] == found["estimated",] != found["plain",]
    assert "reestimate_batch_norm: false → true" in found["estimated",][1]
    assert train("ae", method="ae", overrides=["epochs=1"]) == 0
    assert command("eval", "--exp", "ae", "--reestimate-batch-norm") == 1
    assert "--reestimate-batch-norm: ae has no such setting" in capsys.readouterr().err
