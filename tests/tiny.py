"""The smallest settings with which each method is still itself, and the commands run in a folder of the test's own."""

import sys

import eval as eval_command
import main as main_command
import predict as predict_command
from commands import cli

DIGITS = ["dataset=digit", "image_size=48", "digits_per_epoch=24", "digit_source=sklearn"]
SMALL = ["image_size=32", "epochs=2", "multiplier=0.25", "hidden_size=64", "batch_size=8"]
# method → (configuration, overrides): 48 px digits, a few dozen images, both phases of n_critic
TINY = {
    "squid": (
        "digit_quick",
        ["base_channels=4", "queue_slots=16", "matrix_slots=8", "digits_per_epoch=40", "batch_size=8", "n_critic=2",
         "epochs=2", "statistics_images=8", "digit_source=sklearn"],
    ),
    "simsid": (
        "simsid_zhang",
        ["dataset=digit", "image_size=48", "levels=3", "initial_combine=1", "ops=concat,concat,none",
         "decoder_memory=V1,V3,none", "skip_weights=0,1,1", "augment=false", "base_channels=4", "bottleneck_slots=16",
         "decoder_slots=8", "digits_per_epoch=40", "batch_size=8", "epochs=2", "statistics_images=8",
         "digit_source=sklearn"],
    ),
    "ae": ("ae_brain", [*DIGITS, *SMALL]),
    "aeu": ("aeu_brain", [*DIGITS, *SMALL]),
    "memae": ("memae_brain", [*DIGITS, *SMALL]),
    "ddad": (
        "ddad_brain_ae",
        [*DIGITS, *SMALL, "epochs=1", "members=2", "extra_data=8", "refine_epochs=2", "refine_batch_size=8"],
    ),
    "ganomaly": (
        "ganomaly", [*DIGITS, "image_size=32", "epochs=2", "batch_size=8", "base_channels=4", "latent_size=8"],
    ),
    "fanogan": (
        "fanogan",
        [*DIGITS, "image_size=32", "epochs=2", "encoder_epochs=2", "epoch_batches=3", "n_critic=1", "batch_size=8",
         "base_channels=4", "latent_size=8", "encoder_learning_rate=1e-2"],
    ),
    "cutpaste": (
        "cutpaste", [*DIGITS, "image_size=32", "epochs=2", "batch_size=6", "steps_per_epoch=2", "cosine_epochs=2"],
    ),
    "implicit_field": (
        "implicit_field",
        [*DIGITS, "image_size=24", "epochs=2", "batch_size=8", "code_size=8", "frequencies=4", "width=32", "points=64",
         "fit_iterations=3,2", "fit_points=64,100", "prior_epochs=4"],
    ),
    "patchcore": (
        "patchcore",
        [*DIGITS, "backbone=resnet18", "weights=random", "pooled=32", "projected=8",
         "candidates=200", "bank_ratio=0.05"],
    ),
    "rd4ad": (
        "rd4ad",
        [*DIGITS, "image_size=64", "epochs=2", "batch_size=8", "backbone=efficientnet_lite0", "weights=random"],
    ),
    "mkd": (
        "mkd",
        [*DIGITS, "image_size=32", "epochs=2", "batch_size=8", "width=4", "backbone=resnet18", "weights=random"],
    ),
    "vae": ("vae", [*DIGITS, *SMALL]),
    "ae_pl": (
        "ae_pl", [*DIGITS, *SMALL, "image_size=48", "backbone=resnet18", "layers=layer1", "weights=random"],
    ),
    "fae_ssim": (
        "fae_ssim",
        [*DIGITS, "image_size=64", "weights=random", "epochs=2", "epoch_steps=3", "batch_size=8", "channels=8,12"],
    ),
    "igd": (
        "igd",
        [*DIGITS, "image_size=32", "weights=random", "epochs=2", "local_epochs=1", "batch_size=8", "local_batch_size=6",
         "local_side=16", "local_stride=8", "base_channels=4", "latent_size=8"],
    ),
    "padim": ("padim", [*DIGITS, "weights=random", "dimensions=10"]),
    "dn2": ("dn2", [*DIGITS, "backbone=resnet18", "weights=random"]),
    "panda": (
        "panda",
        [*DIGITS, "backbone=resnet18", "layers=layer2,layer3", "weights=random", "epochs=2", "batch_size=8"],
    ),
}  # fmt: skip
FEW = {"val": 16, "test": 16}  # for dataloader.digit.COUNTS
EVERY_STEP = "save_seconds=0"  # saves last.pt
COMMANDS = {"main": main_command, "eval": eval_command, "predict": predict_command}


def command(name, *arguments, module=None):
    """Run a command in this process; returns its exit code."""
    former = sys.argv
    sys.argv = [f"{name}.py", *map(str, arguments)]
    try:
        cli.run((module or COMMANDS[name]).main)
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = former


def train(exp, *arguments, method="squid", overrides=()):
    config, settings = TINY[method]
    if any(pair.startswith("dataset=") for pair in overrides):  # another one
        settings = [pair for pair in settings if not pair.startswith("digit")]
    return command(
        "main", "--exp", exp, "--config", config, "--device", "cpu", "--set", *settings, *overrides, *arguments
    )
