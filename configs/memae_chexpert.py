"""MemAE on CheXpert, as SQUID's rows read it (quoted in SQUID's table 2)."""

from configs.autoencoder import MemAeConfig


class Config(MemAeConfig):
    """How SQUID's authors set MemAE is not known; network and training are those of DDAD's comparison."""

    dataset = "chexpert"
    image_size = 128
    resize = "bicubic"
