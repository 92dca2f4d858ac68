"""SimSID on CheXpert, as published (TPAMI 2024)."""

from configs.simsid import SimSidConfig


class Config(SimSidConfig):
    """The released file trains on 90 % normal images: for that, --set train_normal_fraction=0.9."""

    dataset = "chexpert"
    epochs = 600
    cosine_min = 5e-5
    mask_ratio = 0.9
