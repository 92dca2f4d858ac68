"""How each method trains and scores: a dict of names to classes."""

from methods.autoencoder import SingleAutoEncoder
from methods.base import Method, NonFiniteLoss, Scores
from methods.ddad import Ddad
from methods.ganomaly import Ganomaly
from methods.padim import Padim
from methods.panda import Dn2, Panda
from methods.patchcore import PatchCore
from methods.simsid import SimSid
from methods.squid import Squid

METHODS: dict[str, type[Method]] = {
    "squid": Squid, "simsid": SimSid, "ae": SingleAutoEncoder, "aeu": SingleAutoEncoder, "memae": SingleAutoEncoder,
    "ddad": Ddad, "patchcore": PatchCore, "ganomaly": Ganomaly, "padim": Padim, "dn2": Dn2, "panda": Panda,
}  # fmt: skip

__all__ = ["METHODS", "Method", "NonFiniteLoss", "Scores"]
