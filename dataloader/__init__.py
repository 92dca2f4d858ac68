"""Datasets by name, one file each."""

from configs import BaseConfig, ConfigError
from dataloader.base import DATA_ROOT_VARIABLE, Dataset, FileDataset, Item, Split, find_root, in_colour
from dataloader.chexpert import CheXpert
from dataloader.covidx import Covidx
from dataloader.digit import DigitAnatomy
from dataloader.errors import DataError
from dataloader.folder import Folder
from dataloader.medad import MedAd
from dataloader.medmnist import PneumoniaMnist
from dataloader.zhang import ZhangLab
from system import distributed

DATASETS: dict[str, type[Dataset]] = {
    "digit": DigitAnatomy, "zhang": ZhangLab, "chexpert": CheXpert, "covidx": Covidx, "rsna": MedAd, "vindr": MedAd,
    "brain": MedAd, "lag": MedAd, "pneumoniamnist": PneumoniaMnist, "folder": Folder,
}  # fmt: skip


def build_dataset(config: BaseConfig, data_root: str | None = None) -> Dataset:
    """The configured dataset at --data-root, $ANOMALY_DATA_ROOT or the configuration's root, in that order.

    Raises:
        ConfigError: for an unknown dataset.
        DataError: where the data is missing or unreadable.
    """
    if config.dataset not in DATASETS:
        raise ConfigError(f"dataset = {config.dataset!r}: unknown; known are {', '.join(DATASETS)}.")
    dataset = DATASETS[config.dataset]
    if in_colour(config) and not issubclass(dataset, FileDataset):
        raise ConfigError(f"colour = true: the images of dataset = {config.dataset} are gray. Leave it out.")
    with distributed.main_process_first():  # a dataset may download its files
        return dataset(config, dataset.root_from(config, data_root))


__all__ = [
    "DATASETS", "DATA_ROOT_VARIABLE", "DataError", "Dataset", "FileDataset", "Item", "Split", "build_dataset",
    "find_root",
]  # fmt: skip
