"""SimSID on COVIDx, as published (TPAMI 2024)."""

from configs.simsid import SimSidConfig


class Config(SimSidConfig):
    """The released file trains on 70 % normal images: for that, --set train_normal_fraction=0.7."""

    dataset = "covidx"
    epochs = 300
