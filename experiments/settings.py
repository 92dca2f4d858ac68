"""What may change when an experiment goes on: the length of its last stage, where its data lies, how it computes, what
is kept of it."""

import json

import configs
from configs import BaseConfig
from dataloader import Dataset
from experiments.folder import Experiment, ExperimentError

ANEW = "Another --exp keeps both, --overwrite starts anew."
# what an experiment's results say elsewhere than among its settings
ELSEWHERE = ("data_root", "save_seconds", "record_scores", "seed", "epochs", "digit_source")
FREE = (
    "data_root",
    "save_seconds",
    "record_scores",
    "checkpoint",
    "precision",
)  # log.txt tells from which epoch on a precision was in use


def check_same(experiment: Experiment, config: BaseConfig, free: tuple[str, ...] = FREE, remedy: str = ANEW) -> None:
    """Refuse to go on with other settings than those that are ``free``; of the epochs, the last stage's may grow."""
    _, saved, _ = experiment.load_config()
    if experiment.is_older():
        raise ExperimentError(
            f"{experiment.folder} was trained by an older version, which read image files bilinearly for every method, "
            "did not draw DigitAnatomy's crops again and stepped DDAD's refinement with Adam's betas (0.9, 0.999). It "
            "can be evaluated as what it is, but not trained on; DDAD's ensembles are the same in both: --from takes "
            f"them over. {remedy}"
        )
    key = lengthening(saved)
    changes = differences(saved, config, ignore=(*free, key))
    before, after = (each.stages()[-1].epochs for each in (saved, config))
    if key and after < before:
        changes.append(f"{key}: {before} → {after}")
    refuse(experiment, changes, remedy)


def lengthening(config: BaseConfig) -> str:
    """The setting that makes the last stage longer; "" where it concerns others too, or the method is only fitted."""
    *others, last = config.stages()
    shared = any(stage.epochs_key == last.epochs_key for stage in others)
    return "" if shared or last.batches == 0 else last.epochs_key


def check_same_data(experiment: Experiment, dataset: Dataset) -> None:
    """Refuse to go on with other training or validation images."""
    _, _, saved = experiment.load_config()
    if not dataset.has_fingerprint(saved):
        where = f"{dataset.root}; if they have moved, name them with --data-root"
        refuse(experiment, [f"training data: {saved} → {dataset.fingerprint()} ({where})"])


def check_same_weights(experiment: Experiment, found: dict[str, dict[str, str]]) -> None:
    """Refuse to go on with other weights of a frozen part."""
    saved = experiment.pretrained()
    changes = [
        f"weights of {part}: {of['source']} (sha256 {of['sha256'][:12]}), not those it was started with"
        for part, of in found.items()
        if saved.get(part, {}).get("sha256") != of["sha256"]
    ]
    refuse(experiment, changes)


def refuse(experiment: Experiment, changes: list[str], remedy: str = ANEW) -> None:
    if changes:
        described = "\n  ".join([f"{experiment.folder} was trained with other settings:", *changes])
        raise ExperimentError(f"{described}\nGive the same settings to go on with it. {remedy}")


def differences(saved: BaseConfig, wanted: BaseConfig, ignore: tuple[str, ...]) -> list[str]:
    """The settings in which ``wanted`` differs, as lines ``key: saved → wanted``."""
    before, after = saved.as_dict(), wanted.as_dict()
    keys = [key for key in {**before, **after} if key not in ignore and before.get(key) != after.get(key)]
    return [f"{key}: {json.dumps(before.get(key))} → {json.dumps(after.get(key))}" for key in keys]


def changed_settings(name: str, config: BaseConfig) -> list[str]:
    """What an experiment overrides of its configuration, but for what its results say elsewhere."""
    name = configs.name_here(name, config.method)
    row, same_data = configs.build(name), configs.build(name, [f"dataset={config.dataset}"])
    dataset = [] if row.dataset == config.dataset else [f"dataset: {row.dataset} → {config.dataset}"]
    return dataset + differences(same_data, config, ignore=ELSEWHERE)


def all_settings(config: BaseConfig) -> dict[str, object]:
    """Every setting as config.json has it, but for what results say elsewhere."""
    return {key: json.loads(json.dumps(value)) for key, value in config.as_dict().items() if key not in ELSEWHERE}
