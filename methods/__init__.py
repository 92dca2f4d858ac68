"""How each method trains and scores: a dict of names to classes."""

from methods.ae_pl import AePl
from methods.autoencoder import SingleAutoEncoder
from methods.base import Method, NonFiniteLoss, Scores
from methods.ddad import Ddad
from methods.ganomaly import Ganomaly
from methods.patchcore import PatchCore
from methods.simsid import SimSid
from methods.squid import Squid
from methods.vae import Vae

METHODS: dict[str, type[Method]] = {
    "squid": Squid, "simsid": SimSid, "ae": SingleAutoEncoder, "aeu": SingleAutoEncoder, "memae": SingleAutoEncoder,
    "ddad": Ddad, "patchcore": PatchCore, "ganomaly": Ganomaly, "vae": Vae, "ae_pl": AePl,
}  # fmt: skip

__all__ = ["METHODS", "Method", "NonFiniteLoss", "Scores"]
