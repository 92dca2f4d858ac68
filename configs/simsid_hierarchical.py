"""SimSID's hierarchical variant on ZhangLab chest X-rays, trained as simsid_zhang."""

from configs.simsid_zhang import Config as SimSidZhang


class Config(SimSidZhang):
    hierarchical = True
    skip_weights = ()
