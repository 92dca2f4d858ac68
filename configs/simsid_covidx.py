"""SimSID on COVIDx, as published (TPAMI 2024)."""

from configs.simsid import SimSidConfig


class Config(SimSidConfig):
    """Contaminated, as released; --set train_normal_fraction=1 for normal images alone."""

    dataset = "covidx"
    train_normal_fraction = 0.7
    epochs = 300
