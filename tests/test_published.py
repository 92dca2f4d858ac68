"""The published rows as the papers and released programs have them, written down here and not read back from configs/.

Every setting of every row is here: one that is not, new ones too, makes a test fail until its published value is
given, or its value of OURS where it is none of the papers'.
"""

from itertools import pairwise

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

import configs
from configs.base import Stage
from configs.squid import SquidConfig
from methods import METHODS
from models.blocks import MaskedShortcut
from models.memory import Addressing, Memory

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")

# where things lie, how they are computed, and what a row does not read unless it says so
OURS = {
    "data_root": "", "seed": 0, "precision": "fp32", "sync_batch_norm": False, "save_seconds": 60.0, "val_every": 1,
    "average_decay": 0.0, "record_scores": False,
    "contamination": "drawn", "train_normal_fraction": 1.0, "max_batches": 0, "lr_steps": (200, 300), "lr_factor": 0.2,
    "cosine_epochs": 300, "cosine_min": 1e-5, "best_tolerance": 0.5, "checkpoint": "best",
}  # fmt: skip

INPAINTING = {
    "main_score": "discriminator", "image_size": 128, "augment": True, "resize": "bicubic", "batch_size": 16,
    "learning_rate": 1e-4, "lr_schedule": "cosine", "base_channels": 32, "patches_per_side": 2, "levels": 4,
    "initial_combine": 2, "ops": ("concat", "concat", "none", "none"), "decoder_memory": ("V1", "V1", "none", "none"),
    "gumbel_top_k": 5, "shrink_threshold": 0.0, "dropout": 0.0, "teacher": True, "n_critic": 2, "recon_weight": 10.0,
    "teacher_weight": 0.01, "distill_weight": 0.001, "adversarial_weight": 0.005, "discriminator_weight": 0.005,
    "score_statistics": "image", "statistics_images": 201, "statistics_draw": "fixed", "reestimate_batch_norm": False,
    "cosine_addressing": False, "skip_dropout": 0.0, "r1_weight": 0.0, "fit": "stretch", "bottleneck": "queue",
    "inpaint_attention": True, "space_aware": True,
}  # fmt: skip
SQUID = {
    **INPAINTING, "method": "squid", "best_rule": "tolerance", "epochs": 200, "queue_slots": 200, "matrix_slots": 200,
    "mask_ratio": 0.95,
}  # fmt: skip
SIMSID = {
    **INPAINTING, "method": "simsid", "best_rule": "strict", "tanh": True,
    "bottleneck_slots": 200, "mask_ratio": 1.0, "decoder_slots": 200, "decoder_top_k": 5, "decoder_threshold": 0.0,
    "decoder_mask_ratio": 1.0, "dim_reduce": False, "slot_dim": 256, "teacher_gradient": False,
    "skip_weights": (0.0, 0.0, 1.0, 1.0), "num_layers": 4, "hierarchical": False, "hierarchical_slots": 20,
}  # fmt: skip
SIMSID_ZHANG = {**SIMSID, "dataset": "zhang", "epochs": 1000, "bottleneck": "queue"}
AUTO_ENCODER = {
    "main_score": "", "image_size": 64, "augment": False, "resize": "bilinear", "epochs": 250, "batch_size": 64,
    "learning_rate": 5e-4, "lr_schedule": "steps", "lr_steps": (), "best_rule": "last", "multiplier": 1.0,
    "latent_size": 16, "hidden_size": 2048, "num_slots": 25, "latent_threshold": 0.0, "entropy_weight": 0.0002,
    "fit": "stretch",
}  # fmt: skip
# MedIAnomaly's
SHARED_AUTO_ENCODER = {
    "main_score": "", "image_size": 64, "augment": False, "resize": "bilinear", "epochs": 250, "batch_size": 64,
    "learning_rate": 1e-3, "lr_schedule": "steps", "lr_steps": (), "best_rule": "last", "multiplier": 1.0,
    "latent_size": 16, "hidden_size": 1024, "fit": "stretch",
}  # fmt: skip
DDAD = {
    **AUTO_ENCODER, "method": "ddad", "members": 3, "refine_epochs": 100, "refine_batch_size": 8,
    "refine_learning_rate": 1e-4, "refine_weight_decay": 1e-4,
}  # fmt: skip
DIGITS = {"dataset": "digit", "digit_source": "auto", "digits_per_epoch": 1600, "digit_crop": "redrawn"}
EXTRA_DATA = {"rsna": 4000, "vindr": 4000, "brain": 1000, "lag": 1500}
BACKBONES = ("ae", "aeu", "memae")

PUBLISHED = {
    "zhang_best": {**SQUID, "dataset": "zhang"},
    "chexpert_best": {**SQUID, "dataset": "chexpert", "cosine_min": 5e-5, "max_batches": 85},
    "digit_best": {
        **SQUID, **DIGITS, "image_size": 96, "patches_per_side": 3, "levels": 3, "initial_combine": 1,
        "ops": ("concat", "concat", "none"), "decoder_memory": ("V3", "V3", "none"), "cosine_min": 1e-6, "n_critic": 1,
        "recon_weight": 1.0, "augment": False, "statistics_images": 101,
    },
    "simsid_zhang": SIMSID_ZHANG,
    "simsid_chexpert": {
        **SIMSID, "dataset": "chexpert", "epochs": 600, "cosine_min": 5e-5, "bottleneck": "matrix", "mask_ratio": 0.9,
        "train_normal_fraction": 0.9,
    },
    "simsid_covidx": {
        **SIMSID, "dataset": "covidx", "epochs": 300, "bottleneck": "matrix", "train_normal_fraction": 0.7,
    },
    "simsid_hierarchical": {**SIMSID_ZHANG, "hierarchical": True, "skip_weights": ()},
    **{
        f"ddad_{dataset}_{backbone}": {
            **DDAD, "dataset": dataset, "extra_data": extra, "anomaly_rate": 0.6, "backbone": backbone, "held_out": 0.0,
        }
        for dataset, extra in EXTRA_DATA.items() for backbone in BACKBONES
    },
    **{
        f"{backbone}_{dataset}": {**AUTO_ENCODER, "dataset": dataset, "method": backbone, "held_out": 0.0}
        for dataset in EXTRA_DATA for backbone in BACKBONES
    },
    **{  # the datasets, size and reading of SQUID's table; the rest, not known of it, is DDAD's
        f"memae_{dataset}": {
            **AUTO_ENCODER, "dataset": dataset, "method": "memae", "image_size": 128, "resize": "bicubic",
        }
        for dataset in ("zhang", "chexpert")
    },
}  # fmt: skip
BASELINE = {
    **DIGITS, "main_score": "", "resize": "bilinear", "augment": False, "best_rule": "last", "lr_schedule": "steps",
    "lr_steps": (), "fit": "stretch",
}  # fmt: skip
FEATURES = {**BASELINE, "weights": "imagenet"}
COLOURED = {**FEATURES, "colour": False}
BASELINES = {  # methods without rows: their settings as they stand, on digits unless the dataset is given
    "cutpaste": {
        **BASELINE, "image_size": 224, "epochs": 100, "batch_size": 64, "learning_rate": 0.03, "lr_schedule": "cosine",
        "cosine_epochs": 100, "cosine_min": 0.0, "steps_per_epoch": 256, "momentum": 0.9, "weight_decay": 3e-5,
        "bandwidth": 1.0,
    },
    "fae_ssim": {
        **FEATURES, "image_size": 128, "epochs": 100, "epoch_steps": 100, "batch_size": 64, "learning_rate": 5e-4,
        "backbone": "resnet18", "layers": ("stem", "layer1", "layer2"), "preprocessing": "imagenet",
        "channels": (100, 150, 200, 300), "dropout": 0.1, "window": 5, "window_sigma": 1.5,
    },
    "ganomaly": {
        **BASELINE, "image_size": 64, "batch_size": 64, "learning_rate": 2e-4, "base_channels": 64, "latent_size": 100,
        "feature_weight": 1.0, "recon_weight": 50.0, "latent_weight": 1.0, "redraw_below": 1e-5,
        "epochs": 100,  # ours; published: 15, of 32 × 32 pixels
    },
    "igd": {
        **FEATURES, "image_size": 256, "epochs": 256, "lr_steps": (200, 300), "batch_size": 16, "local_epochs": 256,
        "local_batch_size": 2, "learning_rate": 1e-4, "lr_schedule": "poly", "poly_epochs": 256, "poly_power": 0.9,
        "weight_decay": 1e-6, "backbone": "resnet18", "layers": ("layer4",), "latent_size": 128, "base_channels": 64,
        "local_side": 32, "local_stride": 16, "ssim_weight": 0.85, "critic_weight": 0.1, "real_share": 0.2,
        "refresh_every": 10, "least_centre": 0.1,
    },
    "implicit_field": {
        **BASELINE, "batch_size": 6, "learning_rate": 5e-4, "lr_factor": 0.5, "bins": 10, "code_size": 256,
        "frequencies": 10, "width": 512, "dropout": 0.2, "code_learning_rate": 1e-3, "prior_weight": 1e-4,
        "prior_epochs": 100, "fit_learning_rate": 1e-3,
        # how much is trained and fitted is ours
        "image_size": 64, "epochs": 100, "lr_steps": (25, 50, 75), "val_every": 100, "points": 1024,
        "fit_iterations": (100,), "fit_points": (512,),
    },
    "padim": {
        **COLOURED, "image_size": 224, "epochs": 1, "batch_size": 16, "learning_rate": 1e-4, "lr_steps": (200, 300),
        "backbone": "resnet18", "layers": ("layer1", "layer2", "layer3"), "dimensions": 100, "ridge": 0.01, "blur": 4.0,
    },
    "dn2": {
        **COLOURED, "image_size": 224, "epochs": 1, "batch_size": 32, "learning_rate": 1e-4, "lr_steps": (200, 300),
        "backbone": "resnet152", "layers": ("layer4",), "neighbours": 2,
    },
    "panda": {
        **COLOURED, "image_size": 224, "epochs": 15, "batch_size": 32, "learning_rate": 1e-2, "backbone": "resnet152",
        "layers": ("layer2", "layer4"), "neighbours": 2, "weight_decay": 5e-5, "gradient_norm": 1e-3,
        "ewc_weight": 0.0, "fisher_images": 1000,
    },
    "patchcore": {
        **COLOURED, "image_size": 224, "epochs": 1, "batch_size": 8, "learning_rate": 1e-4, "lr_steps": (200, 300),
        "backbone": "wide_resnet50_2", "layers": ("layer2", "layer3"), "pooled": 1024, "projected": 128, "blur": 4.0,
        "bank_ratio": 0.01, "candidates": 200_000,  # ours; published: 0.1 of all patches
    },
    "vae": {**DIGITS, **SHARED_AUTO_ENCODER, "kl_weight": 0.005, "gradient_scores": False},
    "ae_pl": {
        **DIGITS, **SHARED_AUTO_ENCODER, "backbone": "vgg19", "weights": "imagenet", "layers": ("relu4_2",),
        "variance_floor": 0.01,
    },
    "rd4ad": {
        **COLOURED, "image_size": 256, "epochs": 200, "batch_size": 16, "learning_rate": 5e-3,
        "backbone": "wide_resnet50_2", "layers": ("layer1", "layer2", "layer3"), "cosine": "map", "blur": 4.0,
    },
    "mkd": {
        **COLOURED, "image_size": 128, "epochs": 201, "batch_size": 64, "learning_rate": 1e-3,
        "backbone": "vgg16", "layers": ("layer1", "layer2", "layer3", "layer4"), "width": 16, "value_weight": 0.01,
        "smooth_draws": 0, "smooth_noise": 0.1, "blur": 4.0, "opening": 3,  # these four are ours
    },
    "fanogan": {
        **BASELINE, "image_size": 64, "batch_size": 64, "learning_rate": 1e-4,
        "encoder_learning_rate": 5e-5, "base_channels": 64, "latent_size": 128, "n_critic": 5,
        "penalty_weight": 10.0, "feature_weight": 1.0,
        "epochs": 200, "encoder_epochs": 40, "epoch_batches": 500,  # ours: 20,000 steps of generator and encoder
    },
}  # fmt: skip
OF_THIS_REPOSITORY = {"digit_quick", "zhang_steady"}
INPAINTING_ROWS = [name for name in PUBLISHED if PUBLISHED[name]["method"] in ("squid", "simsid")]
SQUID_BASE = {
    **SQUID, "dataset": "digit", "epochs": 400, "lr_schedule": "steps", "queue_slots": 1000, "matrix_slots": 500,
    "gumbel_top_k": 0, "shrink_threshold": 0.0005, "n_critic": 1, "recon_weight": 1.0, "teacher_weight": 0.5,
    "distill_weight": 0.1, "adversarial_weight": 0.0005, "discriminator_weight": 1.0,
}  # fmt: skip


def built(name):
    """A row's method at its full size, without memory for its weights."""
    config = configs.build(name)
    with torch.device("meta"):
        return METHODS[config.method](config)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_every_row_is_written_down():
    assert set(configs.ROWS) == set(PUBLISHED) | OF_THIS_REPOSITORY
    assert set(configs.names()) == set(configs.ROWS) | set(METHODS)
    assert set(METHODS) == {row["method"] for row in PUBLISHED.values()} | set(BASELINES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_setting_is_the_published_one(name):
    assert vars(configs.build(name)) == {**OURS, **PUBLISHED[name]}


@pytest.mark.parametrize("name", BASELINES)
def test_every_setting_of_a_baseline_is_the_published_one(name):
    assert vars(configs.build(name)) == {**OURS, **BASELINES[name], "method": name}


def test_pandas_optimizer():
    method = built("panda")
    assert set(method.optimizers) == {"tuned"}
    optimizer = method.optimizers["tuned"]
    assert type(optimizer) is torch.optim.SGD
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-2, 0.9, 5e-5)
    assert (group["dampening"], group["nesterov"]) == (0, False)
    assert list(map(id, group["params"])) == list(map(id, method.tuned.parameters()))
    assert learning_rates(method, 15) == {"tuned": [1e-2] * 15}
    # layer3 and layer4 of ResNet-152, a batch norm's scale and shift after every convolution
    blocks = [(512, 256, 1024, 36), (1024, 512, 2048, 3)]
    expected = sum(
        c_in * out + 2 * out  # the shortcut of the first block
        + c_in * width + (n - 1) * out * width + n * (9 * width**2 + width * out + 2 * (2 * width + out))
        for c_in, width, out, n in blocks
    )  # fmt: skip
    assert count(method.tuned) == expected
    assert method.centre.shape == (2048,)


def test_the_base_of_squid():
    assert vars(SquidConfig()) == {**OURS, **SQUID_BASE}


def test_stages():
    for name in INPAINTING_ROWS:
        assert configs.build(name).stages() == (Stage("train", PUBLISHED[name]["epochs"], 16),), name
    for dataset in EXTRA_DATA:
        for backbone in BACKBONES:
            (single,) = configs.build(f"{backbone}_{dataset}").stages()
            assert single == Stage("train", 250, 64, drop_last=True, least=single.least)
            ndm, udm, refine = configs.build(f"ddad_{dataset}_{backbone}").stages()
            same = {"drop_last": True, "orders": 3, "least": udm.least}
            assert udm == Stage("udm", 250, 64, unlabeled=True, settings=udm.settings, **same)
            assert ndm == Stage("ndm", 250, 64, **same)
            assert (refine.name, refine.epochs, refine.batch_size) == ("refine", 100, 8)
            assert (refine.unlabeled, refine.drop_last, refine.orders) == (False, True, 1)


# -- optimizers and schedules as built --------------------------------------------------------------------------------

ADAM = {"lr": 1e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "maximize": False,
        "decoupled_weight_decay": False}  # fmt: skip


def assert_steps(optimizer, networks, **adam):
    """One group with these constants, of all parameters of these networks and of no other."""
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert {key: group[key] for key in ADAM} == {**ADAM, **adam}
    expected = [id(parameter) for network in networks for parameter in network.parameters()]
    assert sorted(map(id, group["params"])) == sorted(expected)


@pytest.mark.parametrize("name", INPAINTING_ROWS)
def test_the_two_players_optimizers(name):
    method = built(name)
    assert set(method.optimizers) == {"generator", "discriminator"}
    assert_steps(method.optimizers["generator"], [method.generator], eps=1e-7, weight_decay=1e-5)
    assert_steps(method.optimizers["discriminator"], [method.discriminator])
    assert set(method.schedulers) == {"generator"}
    scheduler = method.schedulers["generator"]
    assert type(scheduler) is CosineAnnealingLR and scheduler.optimizer is method.optimizers["generator"]
    floors = {"chexpert_best": 5e-5, "simsid_chexpert": 5e-5, "digit_best": 1e-6}
    assert (scheduler.T_max, scheduler.eta_min) == (300, floors.get(name, 1e-5))


def test_the_base_of_squid_steps_its_learning_rate_down():
    with torch.device("meta"):
        scheduler = METHODS["squid"](SquidConfig()).schedulers["generator"]
    assert type(scheduler) is MultiStepLR and scheduler.gamma == 0.2 and sorted(scheduler.milestones) == [200, 300]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_auto_encoders_optimizers(backbone):
    single = built(f"{backbone}_brain")
    assert set(single.optimizers) == {"network"}
    assert_steps(single.optimizers["network"], [single.network], lr=5e-4)
    method = built(f"ddad_brain_{backbone}")
    assert list(method.members) == ["udm_0", "udm_1", "udm_2", "ndm_0", "ndm_1", "ndm_2"]
    for module in ("udm", "ndm"):
        method.start_stage(module)
        (optimizer,) = method.optimizers.values()
        assert_steps(optimizer, [method.members[f"{module}_{k}"] for k in range(3)], lr=5e-4)
    method.start_stage("refine")
    (optimizer,) = method.optimizers.values()
    assert_steps(optimizer, [method.refinement["dual"], method.refinement["intra"]], lr=1e-4, weight_decay=1e-4)


def test_the_distilled_students_optimizers():
    for name in ("rd4ad", "mkd"):
        config = configs.build(name)
        assert config.stages() == (Stage("train", config.epochs, config.batch_size),)
    method = built("rd4ad")
    assert set(method.optimizers) == set(method.schedulers) == {"student"}
    assert_steps(method.optimizers["student"], [method.bottleneck, method.decoder], lr=5e-3)
    assert learning_rates(method, 200) == {"student": [5e-3] * 200}
    method = built("mkd")
    assert set(method.optimizers) == set(method.schedulers) == {"student"}
    assert_steps(method.optimizers["student"], [method.student], lr=1e-3, betas=(0.9, 0.999))
    assert learning_rates(method, 201) == {"student": [1e-3] * 201}


def test_ganomalys_optimizers_and_stage():
    method = built("ganomaly")
    assert set(method.optimizers) == {"generator", "discriminator"}
    for player in method.optimizers:
        assert_steps(method.optimizers[player], [getattr(method, player)], lr=2e-4, betas=(0.5, 0.999))
    assert method.stages == (Stage("train", 100, 64, drop_last=True),)
    assert learning_rates(method, 100) == {"generator": [2e-4] * 100, "discriminator": [2e-4] * 100}


def test_the_feature_auto_encoders_optimizer():
    method = built("fae_ssim")
    assert set(method.optimizers) == {"network"}
    assert_steps(method.optimizers["network"], [method.network], lr=5e-4, betas=(0.9, 0.999))
    assert learning_rates(method, 100) == {"network": [5e-4] * 100}


def test_fanogans_optimizers():
    method = built("fanogan")
    assert [(s.name, s.epochs * s.batches, s.batch_size) for s in method.stages] == [
        ("gan", 100_000, 64), ("encoder", 20_000, 64),
    ]  # fmt: skip
    assert set(method.optimizers) == {"generator", "critic"}
    for player in ("generator", "critic"):
        assert_steps(method.optimizers[player], [getattr(method, player)], betas=(0, 0.9))
    assert learning_rates(method, 200) == {"generator": [1e-4] * 200, "critic": [1e-4] * 200}
    method.start_stage("encoder")
    ((name, optimizer),) = method.optimizers.items()
    assert name == "encoder" and type(optimizer).__name__ == "TensorFlowRMSProp"
    (group,) = optimizer.param_groups
    assert (group["lr"], group["decay"], group["eps"]) == (5e-5, 0.9, 1e-10)
    assert [id(p) for p in group["params"]] == [id(p) for p in method.encoder.parameters()]
    assert learning_rates(method, 40) == {"encoder": [5e-5] * 40}


@pytest.mark.parametrize("name", ["vae", "ae_pl"])
def test_the_shared_auto_encoders_optimizer_and_stage(name):
    method = built(name)
    assert set(method.optimizers) == {"network"}
    assert_steps(method.optimizers["network"], [method.network], lr=1e-3, betas=(0.9, 0.999))
    (stage,) = method.stages
    assert stage == Stage("train", 250, 64, least=2)  # the last partial batch counts, but for a single image
    assert learning_rates(method, 250) == {"network": [1e-3] * 250}


def learning_rates(method, epochs):
    """{optimizer: its rate in every epoch}."""
    found = {name: [] for name in method.optimizers}
    for _ in range(epochs):
        for name, optimizer in method.optimizers.items():
            found[name].append(optimizer.param_groups[0]["lr"])
        method.end_epoch()
    return found


@pytest.mark.parametrize("name", INPAINTING_ROWS)
def test_the_learning_rate_of_every_epoch(name):
    epochs = {"simsid_zhang": 1000, "simsid_hierarchical": 1000, "simsid_chexpert": 600, "simsid_covidx": 300}
    floor = {"chexpert_best": 5e-5, "simsid_chexpert": 5e-5, "digit_best": 1e-6}.get(name, 1e-5)
    epoch = torch.arange(epochs.get(name, 200), dtype=torch.float64)
    cosine = floor + (1e-4 - floor) * (1 + torch.cos(torch.pi * epoch / 300)) / 2
    found = learning_rates(built(name), len(epoch))
    assert found["generator"] == pytest.approx(cosine.tolist(), rel=1e-6)
    assert found["discriminator"] == [1e-4] * len(epoch)


def test_the_learning_rate_of_every_epoch_of_squids_base_and_of_the_auto_encoders():
    with torch.device("meta"):
        found = learning_rates(METHODS["squid"](SquidConfig()), 400)
    assert found["generator"] == pytest.approx([1e-4] * 200 + [2e-5] * 100 + [4e-6] * 100)
    assert found["discriminator"] == [1e-4] * 400
    assert learning_rates(built("memae_lag"), 250) == {"network": [5e-4] * 250}
    method = built("ddad_rsna_aeu")
    for stage, epochs, rate in (("udm", 250, 5e-4), ("ndm", 250, 5e-4), ("refine", 100, 1e-4)):
        method.start_stage(stage)
        assert learning_rates(method, epochs) == {stage: [rate] * epochs}


# -- networks as built ------------------------------------------------------------------------------------------------


def count(network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(c_in, c_out, side, bias=True) -> int:
    return side**2 * c_in * c_out + bias * c_out


def linear(d_in, d_out) -> int:
    return d_in * d_out + d_out


def residual(c_in, c_out) -> int:
    """Three convolutions 3 × 3 with biases, a batch norm after each."""
    return convolution(c_in, c_out, 3) + 2 * convolution(c_out, c_out, 3) + 3 * 2 * c_out


def encoder(channels) -> int:
    return residual(1, channels[0]) + sum(residual(a, b) for a, b in pairwise(channels))


def decoder(channels, concatenated) -> int:
    """The first ``concatenated`` up blocks have a skip of as many channels as they give."""
    steps = list(pairwise(channels[::-1]))
    blocks = [residual(a + b if i < concatenated else a, b) for i, (a, b) in enumerate(steps)]
    return sum(blocks) + convolution(channels[0], 1, 1)


def inpainting(channels, d, bits) -> int:
    """Reduce, attention (four projections), feed-forward, two layer norms, expand; the queue is no parameter."""
    reduced = channels // 4
    ends = convolution(channels, reduced, 1, bias=False) + 2 * reduced
    ends += convolution(reduced + bits, channels, 1) + 2 * channels
    return ends + 4 * linear(d, d) + linear(d, d // 4) + linear(d // 4, d) + 2 * 2 * d


def discriminator(channels, side) -> int:
    convolutions = sum(convolution(a, b, 5) for a, b in pairwise((1, *channels)))
    return convolutions + sum(2 * c for c in channels[1:]) + linear(channels[-1] * side**2, 1)


C4, C3 = (32, 64, 128, 256, 512), (32, 64, 128, 256)
SQUID_D, SIMSID_D = (16, 32, 64, 128, 128), (16, 32, 64, 128, 256)
V1 = 4 * 200 * (4 * 4 * 256 + 8 * 8 * 128)  # places · slots · d of the two memories of 128 px images
V3 = 9 * 200 * (128 * 8 * 8 + 64 * 16 * 16)
BOTH = {"128": encoder(C4) + 2 * decoder(C4, 2), "96": encoder(C3) + 2 * decoder(C3, 2)}  # student and teacher
MATRIX = 4 * 200 * 2048
# four levels' memories of 2 × 2 … 16 × 16 places with 20 slots, each of 128 channels of 4 × 4 pixels
LEVELS = sum(
    2 * convolution(c, 128, 1, bias=False) + 2 * 128 + 2 * c + 4 ** (i + 1) * 20 * 2048 + 2 * 2048 * 256
    for i, c in enumerate((512, 256, 128, 64))
)
PARAMETERS = {  # of generator and discriminator
    "zhang_best": (BOTH["128"] + inpainting(512, 2048, 3) + V1, discriminator(SQUID_D, 4)),
    "chexpert_best": (BOTH["128"] + inpainting(512, 2048, 3) + V1, discriminator(SQUID_D, 4)),
    "digit_best": (BOTH["96"] + inpainting(256, 1024, 4) + V3, discriminator(SQUID_D, 3)),
    "simsid_zhang": (BOTH["128"] + inpainting(512, 2048, 3) + V1, discriminator(SIMSID_D, 4)),
    "simsid_chexpert": (BOTH["128"] + inpainting(512, 2048, 3) + V1 + MATRIX, discriminator(SIMSID_D, 4)),
    "simsid_covidx": (BOTH["128"] + inpainting(512, 2048, 3) + V1 + MATRIX, discriminator(SIMSID_D, 4)),
    "simsid_hierarchical": (BOTH["128"] + LEVELS, discriminator(SIMSID_D, 4)),
}


@pytest.mark.parametrize("name", INPAINTING_ROWS)
def test_the_networks_have_as_many_parameters_as_the_papers(name):
    method = built(name)
    assert (count(method.generator), count(method.discriminator)) == PARAMETERS[name]
    channels = SQUID_D if PUBLISHED[name]["method"] == "squid" else SIMSID_D
    assert tuple(conv.out_channels for conv in method.discriminator.convs) == channels


SLOTS = {  # (places, slots, d) of every memory
    "zhang_best": [(4, 200, 2048), (4, 200, 4096), (4, 200, 8192)],
    "chexpert_best": [(4, 200, 2048), (4, 200, 4096), (4, 200, 8192)],
    "digit_best": [(9, 200, 1024), (9, 200, 8192), (9, 200, 16384)],
    "simsid_zhang": [(4, 200, 2048), (4, 200, 4096), (4, 200, 8192)],
    "simsid_chexpert": [(4, 200, 2048), (4, 200, 4096), (4, 200, 8192)],
    "simsid_covidx": [(4, 200, 2048), (4, 200, 4096), (4, 200, 8192)],
    "simsid_hierarchical": [(4, 20, 2048), (16, 20, 2048), (64, 20, 2048), (256, 20, 2048)],
}
QUEUES = {"zhang_best", "chexpert_best", "digit_best", "simsid_zhang"}  # the others learn their bottleneck's slots
SHORTCUTS = {  # the share of positions that take a memory's output in training: bottleneck, then decoder
    **dict.fromkeys(("zhang_best", "chexpert_best", "digit_best"), [0.95, 0.95, 0.95]),
    "simsid_zhang": [1.0, 1.0, 1.0], "simsid_covidx": [1.0, 1.0, 1.0], "simsid_chexpert": [0.9, 1.0, 1.0],
    "simsid_hierarchical": [],
}  # fmt: skip


@pytest.mark.parametrize("name", INPAINTING_ROWS)
def test_the_memories_as_built(name):
    modules = list(built(name).generator.modules())
    memories = [module for module in modules if isinstance(module, Memory)]
    assert [tuple(memory.slots.shape) for memory in memories] == SLOTS[name]
    learned = [isinstance(memory.slots, torch.nn.Parameter) for memory in memories]
    assert learned == [name not in QUEUES, *[True] * (len(memories) - 1)]
    assert [module.ratio for module in modules if isinstance(module, MaskedShortcut)] == SHORTCUTS[name]
    if name != "simsid_hierarchical":  # a softmax reads its slots
        assert [memory.addressing for memory in memories] == [Addressing(gumbel_top_k=5)] * 3


def test_the_base_of_squid_as_built():
    with torch.device("meta"):
        generator = METHODS["squid"](SquidConfig()).generator
    memories = [module for module in generator.modules() if isinstance(module, Memory)]
    assert [tuple(memory.slots.shape) for memory in memories] == [(4, 1000, 2048), (4, 500, 4096), (4, 500, 8192)]
    assert [memory.addressing for memory in memories] == [Addressing(threshold=0.0005)] * 3


def auto_encoder(out_channels, hidden=2048, side=4, latents=1) -> int:
    widths = (16, 32, 64, 64)
    down = sum(convolution(a, b, 4, bias=False) + 2 * b for a, b in pairwise((1, *widths)))
    up = sum(convolution(a, b, 4, bias=False) + 2 * b for a, b in pairwise(widths[::-1]))
    flat = 64 * side**2
    latent = linear(flat, hidden) + linear(hidden, latents * 16) + linear(16, hidden) + linear(hidden, flat)
    return down + latent + 2 * 2 * hidden + up + convolution(16, out_channels, 4, bias=False)


@pytest.mark.parametrize(
    ("backbone", "expected"), [("ae", auto_encoder(1)), ("aeu", auto_encoder(2)), ("memae", auto_encoder(1) + 25 * 16)]
)
def test_the_auto_encoders_have_as_many_parameters_as_the_papers(backbone, expected):
    assert count(built(f"{backbone}_brain").network) == expected
    method = built(f"ddad_brain_{backbone}")
    assert [count(network) for network in method.members.values()] == [expected] * 6
    for name, maps in (("dual", 2), ("intra", 1)):
        layers = convolution(maps, 128, 3) + convolution(128, 128, 3) + convolution(128, 2, 3) + 2 * 2 * 128
        assert count(method.refinement[name]) == layers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vae", auto_encoder(1, hidden=1024, latents=2)),
        ("ae_pl", auto_encoder(1, hidden=1024)),
        ("memae_zhang", auto_encoder(1, side=8) + 25 * 16),
        ("memae_chexpert", auto_encoder(1, side=8) + 25 * 16),
    ],
)
def test_the_shared_auto_encoders_parameters(name, expected):
    assert count(built(name).network) == expected
