"""MemAE on ZhangLab chest X-rays, as SQUID's rows read them (quoted in SQUID's table 1)."""

from configs.autoencoder import MemAeConfig


class Config(MemAeConfig):
    """How SQUID's authors set MemAE is not known; network and training are those of DDAD's comparison."""

    dataset = "zhang"
    image_size = 128
    resize = "bicubic"
