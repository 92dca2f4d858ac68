"""What to measure of anomalib's PaDiM and PatchCore: fitting and scoring of the same images, in the same batches, with
the settings that both have."""

import torch
from torch import nn

import configs
from benchmarks.measure import Work
from benchmarks.workloads import Counts, RandomImages, Settings, random_images
from configs import BaseConfig
from dataloader.loader import TrainLoader
from evaluation.scoring import score_batches
from models.features import MEAN, STD
from system.device import to_float
from system.seeding import seed_everything


def fitting(settings: Settings, device: torch.device, count: int) -> Work:
    config, theirs, loader = set_up(settings, device, count)
    return Work(lambda: fit(theirs, config, loader))


def scoring(settings: Settings, device: torch.device, count: int, fitted: int) -> Work:
    config, theirs, loader = set_up(settings, device, fitted)
    fit(theirs, config, loader)
    theirs.eval()
    images = random_images(count, config.image_size, "scoring")

    def run() -> None:
        with torch.no_grad():
            for batch in score_batches(images, device):
                theirs(normalized(to_float(batch, device)))

    return Work(run)


def set_up(settings: Settings, device: torch.device, count: int) -> tuple[BaseConfig, nn.Module, TrainLoader]:
    """The configuration, anomalib's model of it, and ``count`` training images."""
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    config = configs.build(*settings)
    seed_everything(config.seed, "weights")
    if config.method == "padim":
        theirs = PadimModel(config.backbone, list(config.layers), pre_trained=False, n_features=config.dimensions)
    else:
        theirs = PatchcoreModel(config.layers, config.backbone, pre_trained=False)
    return config, theirs.to(device), TrainLoader(RandomImages(config, Counts(count, 2, 2)), config, device)


@torch.no_grad()
def fit(theirs: nn.Module, config: BaseConfig, loader: TrainLoader) -> None:
    theirs.train()
    for batch in loader.unaugmented():
        theirs(normalized(batch))
    if config.method == "padim":
        theirs.fit()
    else:
        theirs.subsample_embedding(config.bank_ratio)


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Gray images (B, 1, H, W) in [0, 1] → as networks trained on ImageNet take them: (B, 3, H, W)."""
    mean, std = (torch.tensor(each, device=images.device).reshape(1, 3, 1, 1) for each in (MEAN, STD))
    return (images - mean) / std
