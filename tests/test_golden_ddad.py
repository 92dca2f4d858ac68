"""DDAD against the numbers recorded from the released program (golden/ddad)."""

import pytest
import torch
from conftest import GOLDEN, Golden, assert_close, fill

from configs.autoencoder import AeConfig, AeUConfig, MemAeConfig
from configs.ddad import DdadConfig
from dataloader.loader import Batch
from methods.autoencoder import SingleAutoEncoder
from methods.ddad import Ddad, focal_loss
from tools.official_names import asrnet, autoencoder, translate

pytestmark = pytest.mark.usefixtures("golden_device")
CASES = ["ddad_ae", "ddad_aeu", "ddad_memae", "ddad_memaeshrink"]
BACKBONES = {"AE": "ae", "AE-U": "aeu", "MemAE": "memae", "MemAE-shrink": "memae"}
SINGLE = {"ae": AeConfig, "aeu": AeUConfig, "memae": MemAeConfig}
TERMS = {"loss": "loss", "reconstruction": "rec", "log_variance": "logvar", "entropy": "entropy"}


def settings(case: Golden) -> tuple[str, dict]:
    c = case.info["config"]
    values = {
        "image_size": c["img_size"], "latent_size": c["latent_size"], "multiplier": c["multiplier"],
        "num_slots": c["mem_dim"], "latent_threshold": c["shrink_thres"], "entropy_weight": c["entropy_loss_weight"],
    }  # fmt: skip
    return BACKBONES[case.info["network"]], values


def load(network, targets, shapes: dict, prefix: str) -> None:
    official = {name: fill(prefix + name, shape) for name, shape in shapes.items()}
    network.load_state_dict(translate(official, network.state_dict(), targets(network.state_dict())))


def ensembles(name: str, dtype=torch.float64) -> tuple[Golden, Ddad]:
    case = Golden(f"ddad/{name}")
    backbone, values = settings(case)
    method = Ddad(DdadConfig(backbone=backbone, **values))
    shapes = case.info["official_state"]
    for module, theirs in (("udm", "a"), ("ndm", "b")):
        for k, network in enumerate(method.ensemble(module)):
            load(network, autoencoder, shapes["network"], f"{theirs}{k}/")
    load(method.refinement["dual"], asrnet, shapes["refine"], "refine/")
    one_map = {**shapes["refine"], "model.0.weight": [128, 1, 3, 3]}
    load(method.refinement["intra"], asrnet, one_map, "refine_intra/")
    return case, method.to(dtype)


def single(name: str, dtype=torch.float64) -> tuple[Golden, SingleAutoEncoder]:
    case = Golden(f"ddad/{name}")
    backbone, values = settings(case)
    method = SingleAutoEncoder(SINGLE[backbone](**values))
    load(method.network, autoencoder, case.info["official_state"]["network"], "b0/")
    return case, method.to(dtype)


def images(case: Golden, batch: int, dtype=torch.float64) -> torch.Tensor:
    return ((case["images"][batch] + 1) / 2).to(dtype)  # recorded in [−1, 1]


def test_all_cases_are_tested():
    assert sorted(path.stem for path in (GOLDEN / "ddad").glob("*.json")) == CASES


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_maps_and_scores(name, dtype):
    case, method = ensembles(name, dtype)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    scores = method.score(images(case, 0, dtype))
    recorded = {"rec": "rec", "inter": "inter", "intra": "intra", "r_dual": "refine_map", "r_intra": "refine_intra_map"}
    assert set(recorded) == set(scores.image)
    for ours, theirs in recorded.items():
        assert_close(scores.maps[ours], case[theirs], tolerance)
        assert_close(scores.image[ours], case[theirs].mean((1, 2, 3)), tolerance)
    assert_close(scores.columns["ndm_0"], case["single_score"], tolerance)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_single_network_scores(name, dtype):
    case, method = single(name, dtype)
    scores = method.score(images(case, 0, dtype))
    assert_close(scores.image["reconstruction"], case["single_score"], 1e-6 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_four_training_steps(name):
    case, method = single(name)
    for i, expected in enumerate(case.info["trajectory"]):
        terms = method.training_step(Batch.of(images(case, i), i))
        for ours, value in terms.items():
            assert value.item() == pytest.approx(expected.get(TERMS[ours], expected["loss"]), rel=1e-5), (i, ours)
        assert {TERMS[ours] for ours in terms} >= set(expected)


@pytest.mark.parametrize("name", CASES)
def test_an_ensembles_member_trains_as_the_single_network(name):
    case, method = ensembles(name)
    method.start_stage("ndm")
    for i, expected in enumerate(case.info["trajectory"]):
        found = method.training_step(Batch.of(torch.cat([images(case, i)] * 3), i))
        assert found["ndm_0"].item() == pytest.approx(expected["loss"], rel=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_first_loss_in_float32(name):
    case, method = single(name, torch.float32)
    terms = method.training_step(Batch.of(images(case, 0, torch.float32)))
    assert terms["loss"].item() == pytest.approx(case.info["trajectory"][0]["loss"], rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_focal_loss_and_its_gradient(name):
    case = Golden(f"ddad/{name}")
    p = case["focal_prob"].requires_grad_()
    loss = focal_loss(p, case["focal_mask"])
    loss.backward()
    assert_close(loss, case["focal_loss"])
    assert_close(p.grad, case["focal_grad"])
