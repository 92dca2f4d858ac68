"""The published rows on the Med-AD benchmarks: DDAD, and a single network, of each backbone on each dataset."""

from configs.autoencoder import AeConfig, AeUConfig, AutoEncoderConfig, MemAeConfig
from configs.base import BaseConfig
from configs.ddad import DdadConfig

EXTRA_DATA = {"rsna": 4000, "vindr": 4000, "brain": 1000, "lag": 1500}  # as many as normal ones, but on RSNA
SINGLE: dict[str, type[AutoEncoderConfig]] = {"ae": AeConfig, "aeu": AeUConfig, "memae": MemAeConfig}


def _rows() -> dict[str, type[BaseConfig]]:
    rows: dict[str, type[BaseConfig]] = {}
    for dataset, extra_data in EXTRA_DATA.items():
        for backbone, single in SINGLE.items():
            values = {"dataset": dataset, "extra_data": extra_data, "backbone": backbone}
            rows[f"ddad_{dataset}_{backbone}"] = type("Config", (DdadConfig,), values)
            rows[f"{backbone}_{dataset}"] = type("Config", (single,), {"dataset": dataset})
    return rows


ROWS = _rows()
"""``ddad_rsna_ae`` … ``ddad_lag_memae`` and ``ae_rsna`` … ``memae_lag``."""
