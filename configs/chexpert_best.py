"""SQUID on CheXpert, as published (CVPR 2023, table 2)."""

from configs.zhang_best import Config as ZhangBest


class Config(ZhangBest):
    dataset = "chexpert"
    cosine_min = 5e-5
    max_batches = 85
