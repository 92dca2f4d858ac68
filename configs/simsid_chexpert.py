"""SimSID on CheXpert, as published (TPAMI 2024)."""

from configs.simsid import SimSidConfig


class Config(SimSidConfig):
    """Contaminated, as released; --set train_normal_fraction=1 for normal images alone."""

    dataset = "chexpert"
    train_normal_fraction = 0.9
    epochs = 600
    cosine_min = 5e-5
    mask_ratio = 0.9
