"""SimSID on ZhangLab chest X-rays, as published (TPAMI 2024)."""

from configs.simsid import SimSidConfig


class Config(SimSidConfig):
    """The released file trains on normal images alone, as this does."""

    dataset = "zhang"
    epochs = 1000
    bottleneck = "queue"
