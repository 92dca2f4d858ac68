"""SQUID on ZhangLab chest X-rays, as published (CVPR 2023, table 1)."""

from configs.squid import SquidConfig


class Config(SquidConfig):
    dataset = "zhang"
    epochs = 200
    lr_schedule = "cosine"
    queue_slots = 200
    matrix_slots = 200
    gumbel_top_k = 5
    shrink_threshold = 0.0
    n_critic = 2
    recon_weight = 10.0
    teacher_weight = 0.01
    distill_weight = 0.001
    adversarial_weight = 0.005
    discriminator_weight = 0.005
