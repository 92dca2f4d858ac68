"""How each method trains and scores: a dict of names to classes."""

from methods.base import Method, NonFiniteLoss, Scores
from methods.simsid import SimSid
from methods.squid import Squid

METHODS: dict[str, type[Method]] = {"squid": Squid, "simsid": SimSid}

__all__ = ["METHODS", "Method", "NonFiniteLoss", "Scores"]
