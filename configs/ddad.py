"""DDAD's settings: what its published rows have in common (docs/methods.md)."""

from typing import Literal

from configs.autoencoder import LEAST, AutoEncoderConfig
from configs.base import ConfigError, Stage


class DdadConfig(AutoEncoderConfig):
    """DDAD-ASR (MedIA 2023): epochs, batch_size and learning_rate are those of each ensemble's networks."""

    method = "ddad"

    main_score: Literal["", "r_dual", "r_intra", "inter", "intra", "rec"] = ""

    backbone: Literal["ae", "aeu", "memae"] = "ae"
    members: int = 3  # networks of each ensemble, K in the paper
    extra_data: int = 1000  # unlabeled images that the unknown distribution module is trained on too
    anomaly_rate: float = 0.6  # the share of them that is anomalous
    refine_epochs: int = 100  # 0: no refinement, which is DDAD as of MICCAI 2022
    refine_batch_size: int = 8
    refine_learning_rate: float = 1e-4
    refine_weight_decay: float = 1e-4

    def stages(self) -> tuple[Stage, ...]:
        """The normative and the unknown distribution module, each member in an order of its own; the refinement."""
        ensemble = {"epochs": self.epochs, "batch_size": self.batch_size, "orders": self.members}
        ensemble |= {"drop_last": True, "least": LEAST}
        modules = (
            Stage("ndm", **ensemble),  # first, that all anomaly rates may share it
            Stage("udm", **ensemble, unlabeled=True, settings=("extra_data", "anomaly_rate")),
        )
        refine = Stage(
            "refine",
            self.refine_epochs,
            self.refine_batch_size,
            drop_last=True,
            epochs_key="refine_epochs",
            batch_key="refine_batch_size",
            least=2,  # one image is put in another
        )
        return (*modules, refine) if self.refine_epochs else modules

    def unlabeled(self) -> tuple[int, int]:
        anomalous = int(self.extra_data * self.anomaly_rate)
        return self.extra_data - anomalous, anomalous

    def check(self) -> None:
        super().check()
        if self.members < 2:
            raise ConfigError(
                f"members = {self.members}: the intra-discrepancy is a deviation among at least 2 networks. "
                "A single network is a method of its own: ae, aeu or memae."
            )
        self.check_at_least(0, "extra_data")
        if not 0 <= self.anomaly_rate <= 1:
            raise ConfigError(f"anomaly_rate = {self.anomaly_rate}: must lie in [0, 1].")
        if self.extra_data < 1:
            raise ConfigError(
                f"extra_data = {self.extra_data}: the unknown distribution module needs unlabeled images."
            )
        self.check_at_least(0, "refine_epochs")
        if self.refine_batch_size < 2:
            raise ConfigError(f"refine_batch_size = {self.refine_batch_size}: at least 2, one image is put in another.")
        if not self.refine_epochs and self.main_score.startswith("r_"):
            raise ConfigError(f"main_score = {self.main_score}: there is none without refinement (refine_epochs = 0).")
