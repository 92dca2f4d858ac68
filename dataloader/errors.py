"""The error of all datasets."""


class DataError(Exception):
    """Data that is missing or unreadable; the message names the path and the remedy."""
