"""How each method trains and scores: a dict of names to classes."""

from methods.ae_pl import AePl
from methods.autoencoder import SingleAutoEncoder
from methods.base import Method, NonFiniteLoss, Scores
from methods.cutpaste import CutPaste
from methods.ddad import Ddad
from methods.fae_ssim import FaeSsim
from methods.fanogan import Fanogan
from methods.ganomaly import Ganomaly
from methods.igd import Igd
from methods.implicit_field import ImplicitField
from methods.mkd import Mkd
from methods.padim import Padim
from methods.panda import Dn2, Panda
from methods.patchcore import PatchCore
from methods.rd4ad import Rd4ad
from methods.simsid import SimSid
from methods.squid import Squid
from methods.vae import Vae

METHODS: dict[str, type[Method]] = {
    "squid": Squid,
    "simsid": SimSid,
    "ae": SingleAutoEncoder,
    "aeu": SingleAutoEncoder,
    "memae": SingleAutoEncoder,
    "ddad": Ddad,
    "ae_pl": AePl,
    "cutpaste": CutPaste,
    "dn2": Dn2,
    "fae_ssim": FaeSsim,
    "fanogan": Fanogan,
    "ganomaly": Ganomaly,
    "igd": Igd,
    "implicit_field": ImplicitField,
    "mkd": Mkd,
    "padim": Padim,
    "panda": Panda,
    "patchcore": PatchCore,
    "rd4ad": Rd4ad,
    "vae": Vae,
}

__all__ = ["METHODS", "Method", "NonFiniteLoss", "Scores"]
