"""Configurations: typed, checked, inherited."""

import pytest
from tiny import FEW

import configs
from configs import ConfigError
from configs.squid import SquidConfig
from dataloader import DATASETS, build_dataset
from methods import METHODS


def test_names_with_folder_and_ending_mean_the_same():
    for name in ("zhang_best", "zhang_best.py", "configs/zhang_best.py", "./configs/zhang_best.py"):
        assert configs.build(name).as_dict() == configs.build("zhang_best").as_dict()


def test_overrides_are_typed():
    config = configs.build(
        "zhang_best",
        [
            "epochs=3",
            "learning_rate=2e-4",
            "teacher=false",
            "ops=none,none,none,none",
            "recon_weight=2",
            "data_root=a=b",
        ],
    )
    assert (config.epochs, config.learning_rate, config.teacher, config.data_root) == (3, 2e-4, False, "a=b")
    assert config.ops == ("none",) * 4 and isinstance(config.recon_weight, float)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epocs=3", "did you mean epochs"),
        ("epochs=three", "epochs = 'three': must be of type int"),
        ("epochs=1.5", "epochs = 1.5: must be of type int"),
        ("epochs=true", "must be of type int"),
        ("teacher=1", "must be of type bool"),
        ("lr_schedule=cosin", "Did you mean cosine"),
        ("ops=1", "needs one entry per level"),
        ("lr_steps=1,b", "lr_steps = 'b': must be of type int"),
        ("epochs", "write key=value"),
        ("epochs=0", "epochs = 0: must be at least 1"),
        ("image_size=100", "not divisible by patches_per_side · 2.levels = 32; take 96 or 128"),
        ("gumbel_top_k=0", "exactly one of them"),
        ("gumbel_top_k=201", "0 … the 200 slots"),
        ("ops=add,none,none,none", r"ops\[0\] = add: the channels differ"),
        ("decoder_memory=V3,V3,V3,none", r"decoder_memory\[2\] = V3 reads patches"),
        ("decoder_memory=V9,none,none,none", "unknown entry 'V9'; known are V1"),
        ("initial_combine=5", "initial_combine = 5"),
        ("mask_ratio=0", "mask_ratio = 0"),
        ("main_score=recon", "main_score"),
        ("patches_per_side=0", "patches_per_side = 0"),
        ("base_channels=0", "base_channels = 0"),
        ("dropout=2", r"dropout = 2.0: must lie in \[0, 1\)"),
        ("queue_slots=0", "queue_slots = 0: must be at least 1"),
        ("shrink_threshold=-1", "shrink_threshold = -1.0: must be at least 0"),
        ("learning_rate=1e400", "learning_rate = inf: must be a finite number"),
        ("learning_rate=nan", "learning_rate"),
    ],
)
def test_bad_values_name_the_key(override, message):
    with pytest.raises(ConfigError, match=message):
        configs.build("zhang_best", [override])


@pytest.mark.parametrize("name", ["ddad_brain_ae", "ae_brain"])
def test_main_score_is_one_that_the_method_has(name):
    with pytest.raises(ConfigError, match="main_score = 'dual'"):
        configs.build(name, ["main_score=dual"])


def test_windows_that_do_not_come_out_even_are_refused():
    with pytest.raises(ConfigError, match=r"decoder_memory\[0\] = V1 cuts 8 × 8 maps into 3 × 3 windows"):
        configs.build("digit_best", ["decoder_memory=V1,V3,none"])
    with pytest.raises(ConfigError, match="eight attention heads"):
        configs.build("digit_best", ["image_size=24", "base_channels=1"])


def test_unknown_configuration_offers_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean zhang_best"):
        configs.build("zang_best")


def test_a_misspelt_key_in_a_configuration_file_is_an_error():
    class Misspelt(SquidConfig):
        epcohs = 3

    with pytest.raises(ConfigError, match="'epcohs'; did you mean epochs"):
        Misspelt()


def test_five_levels_and_add_can_be_built():
    config = SquidConfig(levels=5, ops=["add"] + ["none"] * 4, decoder_memory=["V4", "V2", "none", "V1", "none"])
    assert config.as_dict()["ops"][0] == "add"


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", METHODS)
def test_any_method_is_legal_on_any_dataset(method, dataset, monkeypatch):
    monkeypatch.setattr("dataloader.digit.COUNTS", FEW)
    config = configs.build(method, [f"dataset={dataset}"])
    assert (config.method, config.dataset) == (method, dataset)
    assert hasattr(config, "digit_crop") == (dataset == "digit")
    assert configs.from_dict(config.as_dict()).as_dict() == config.as_dict()
    assert configs.override(config, ["seed=3"]).seed == 3
    if dataset == "digit":  # the networks do not know of it: test_every_configuration_builds_its_method
        assert build_dataset(config).split("val").images.shape[1:] == (config.image_size,) * 2


@pytest.mark.parametrize("name", ["zhang_best", "digit_best", "ae_brain", "ddad_brain_ae"])
def test_settings_that_every_configuration_had_are_read_where_they_concern_it(name):
    config = configs.build(name)
    former = {"digit_source": "sklearn", "digits_per_epoch": 7, "digit_crop": "clamped", "extra_data": 3,
              "anomaly_rate": 0.5}  # fmt: skip
    found = configs.from_dict(config.as_dict() | former).as_dict()
    assert found == config.as_dict() | {key: value for key, value in former.items() if key in config.as_dict()}


class OnMine(configs.SETTINGS["ae"]):
    dataset = "folder"
    held_out = 0.1


def test_a_row_sets_what_its_dataset_alone_has():
    assert configs.assembled(OnMine, "folder", {}, []).held_out == 0.1
    assert configs.assembled(OnMine, "folder", {}, ["held_out=0.2"]).held_out == 0.2
    plain = configs.assembled(configs.SETTINGS["ae"], "folder", {}, [])
    twice = configs.assembled(type(plain), "folder", {}, [])  # of a class that has them already
    assert twice.held_out == plain.held_out == 0.35 and twice.as_dict() == plain.as_dict()


def test_a_setting_of_another_dataset_says_whose_it_is():
    with pytest.raises(ConfigError, match="is a setting of dataset = digit alone, and the dataset is zhang"):
        configs.build("zhang_best", ["digits_per_epoch=3"])
    assert configs.build("zhang_best", ["digits_per_epoch=3", "dataset=digit"]).digits_per_epoch == 3
