"""How each method trains and scores: a dict of names to classes."""

from methods.base import Method, NonFiniteLoss, Scores
from methods.squid import Squid

METHODS: dict[str, type[Method]] = {"squid": Squid}

__all__ = ["METHODS", "Method", "NonFiniteLoss", "Scores"]
