"""SQUID on ZhangLab with the same training, scored with the exponential moving average of its weights: ours.

No image with a label chooses the epoch: it is the last. What it gives beside the published row: docs/steadying.md.
"""

from configs.zhang_best import Config as ZhangBest


class Config(ZhangBest):
    average_decay = 0.999
    checkpoint = "averaged"
