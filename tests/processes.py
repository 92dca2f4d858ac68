"""What two processes must compute as one does: test_distributed.py compares them."""

import pytest
import torch
from tiny import TINY

import configs
from dataloader import DataError, build_dataset
from dataloader.loader import Batch, Epoch, TrainLoader
from evaluation.scoring import score_images
from methods import METHODS, NonFiniteLoss
from system import distributed
from training.sync_batch_norm import synchronise_batch_norm

CPU = torch.device("cpu")
BATCHES = (5, 8, 6)  # images; 5 is not even for two processes


def build(name, *overrides):
    """A tiny method in float64 that draws nothing at random, and does not move."""
    still = ["learning_rate=0"] + (["mask_ratio=1"] if name in ("squid", "simsid") else [])
    still += ["refine_learning_rate=0"] if name == "ddad" else ["batch_size=8"]
    still += ["dropout=0", "code_learning_rate=0", "digits_per_epoch=40"] if name == "implicit_field" else []
    config = configs.build(TINY[name][0], [*TINY[name][1], *still, *overrides])
    torch.manual_seed(0)
    method = METHODS[name](config).double()
    if name == "vae":  # deviations of 0
        to_log_var = slice(config.latent_size, None)
        method.network.to_latent[-1].weight.data[to_log_var] = 0
        method.network.to_latent[-1].bias.data[to_log_var] = -2000
    return method


def freeze_batch_norm(method):
    for module in method.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module


def steps(method, stage):
    """A step on this process's share of the first of the BATCHES, of all where a queue fills; the first's gradients."""
    drawn = torch.Generator().manual_seed(1)
    side = method.config.image_size
    images = torch.randint(0, 256, (40, side, side), generator=drawn, dtype=torch.uint8)
    counts = BATCHES if hasattr(method, "fill_queue") else BATCHES[:1]
    batches = [torch.randperm(40, generator=drawn)[: count * stage.orders] for count in counts]
    found = {}
    for batch in Epoch(images, batches, None, CPU, stage.orders).batches():
        batch.images, batch.step = batch.images.double(), 0
        method.training_step(batch)
        found = found or {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    return found


def fixed_squares(x):
    return x, (x[:, 0] > 0).long()


def fixed_latents(x, latent):
    return x.flatten(1)[:, :latent]


def fixed_mixture(x):
    return x[:, :, :1, :1].abs()


def fixed_points(count, points, pixels):
    return (7 * torch.arange(points) % pixels).expand(count, -1)


# a step of these is one update of one optimizer, as M-KD's is; IGD mixes the codes of a process's own images
NOT_COMPARED = ("ae_pl", "cutpaste", "fae_ssim", "panda", "rd4ad", "igd")
# what is drawn at random in training, as functions of each image
FIXED = {
    "methods.ddad.with_squares": fixed_squares,
    "methods.fanogan.draw_latents": fixed_latents,
    "methods.fanogan.draw_mixture": fixed_mixture,
    "methods.implicit_field.draw_points": fixed_points,
}


def gradients(names, frozen, *overrides):
    """Gradients of every stage of methods; the state after them, with queues and running statistics."""
    found = {}
    for name in names:
        method = build(name, *overrides)
        if frozen:
            freeze_batch_norm(method)
        elif distributed.world_size() > 1:
            synchronise_batch_norm(method)
        for stage in (stage for stage in method.stages if stage.batches != 0):
            method.start_stage(stage.name)
            method.start_epoch(TrainLoader(build_dataset(method.config), method.config, CPU), 0)
            found[f"{name} {stage.name}"] = steps(method, stage)
        found[f"{name} state"] = {name: buffer.double() for name, buffer in method.named_buffers()}
    return found


def scores():
    drawn = torch.Generator().manual_seed(2)
    method = build("squid").float()
    found = {}
    for count in (70, 5):  # three batches, and fewer than there are processes
        images = torch.randint(0, 256, (count, 48, 48), generator=drawn, dtype=torch.uint8)
        scored = score_images(method, images, CPU, "scoring", keep_maps=True)
        found[count] = {
            **scored.image,
            **scored.columns,
            **{f"map of {name}": maps for name, maps in scored.maps.items()},
        }
        found[count] = {name: torch.from_numpy(values) for name, values in found[count].items()}
    return found


def not_finite():
    """What a process says of a batch whose last image, which only the last process has, is not finite."""
    method = build("squid")
    images = torch.rand(4, 1, 48, 48, dtype=torch.float64)
    images[-1] = torch.nan
    before = {name: p.clone() for name, p in method.named_parameters()}
    try:
        method.training_step(Batch.of(distributed.shard(images)))
    except NonFiniteLoss as error:
        assert all(torch.equal(p, before[name]) for name, p in method.named_parameters())
        return str(error)


def too_small(name, stage, *overrides):
    config = configs.build(TINY[name][0], [*TINY[name][1], *overrides])
    try:
        TrainLoader(build_dataset(config), config, CPU).epoch(0, config.stages()[stage])
    except DataError as error:
        return str(error)


def results():
    """All of it, from one of several processes or from the only one."""
    with pytest.MonkeyPatch.context() as patch:
        for place, function in FIXED.items():
            patch.setattr(place, function)
        compared = {
            "frozen": gradients([name for name in METHODS if name not in NOT_COMPARED], frozen=True),
            "synchronised": gradients(("squid", "aeu"), frozen=False),
            "differentiated twice": gradients(("squid",), False, "r1_weight=10"),
        }
    return compared | {
        "scores": scores(),
        "not finite": not_finite(),
        "too small": [
            too_small("squid", 0, "batch_size=1"), too_small("squid", 0, "batch_size=3"), too_small("ae", 0),
            too_small("ae", 0, "batch_size=3"), too_small("ddad", 2, "refine_batch_size=2"),
        ],
    }  # fmt: skip
