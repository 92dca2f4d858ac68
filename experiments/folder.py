"""An experiment's folder: what lies in it, and who may write to it.

checkpoints/<exp>/config.json    the settings; this copy alone drives eval and resume
                  data.json      what is trained on: counts, anomalous images among it, missing files, gray levels
                  last.pt        all that a resume needs        best.pt   the best epoch's weights
                  best_averaged.pt  the same of averaged weights (average_decay)
                  metrics.jsonl  one line per epoch             log.txt   what happened, with times
                  epochs/NNNN.csv  an epoch's scores (record_scores)
                  tensorboard/   figures/   results.json   scores.csv   normals.json
                  index.html     a page to look at an evaluation, and strips/, its images
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import configs
from methods import Method
from system import distributed
from system.files import write_atomically, write_text

# which weights of an experiment are taken → the file, and the entry in it
WEIGHTS = {
    "best": ("best.pt", "method"),
    "last": ("last.pt", "method"),
    "best_averaged": ("best_averaged.pt", "method"),
    "averaged": ("last.pt", "average"),
}
CHECKPOINTS = Path("checkpoints")  # below the folder the commands are run in
FORMAT = 1  # of the checkpoint files
IMPORTED = "imported weights"  # the data fingerprint of an experiment that was not trained here


class ExperimentError(Exception):
    """An experiment that cannot be opened, read or written; the message names the file and the remedy."""


def not_finite(state: dict[str, torch.Tensor]) -> str | None:
    """The first entry of a state dict that holds a NaN or an infinity."""
    for name, value in state.items():
        # in parts: isfinite makes a copy, and some entries take gigabytes
        if not all(torch.isfinite(part).all() for part in value.flatten().split(2**24)):
            return name
    return None


def reached(checkpoint: dict[str, Any]) -> int:
    """The whole epochs behind a checkpoint, be it best.pt's or last.pt's."""
    return checkpoint["position"]["epoch"] if "position" in checkpoint else checkpoint["epoch"]


def is_within_epoch(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was saved between two epochs' ends; best.pt never is."""
    return bool(checkpoint.get("position", {}).get("batch"))


class Experiment:
    """One experiment id. Open it with ``with`` to train: a second run is refused meanwhile."""

    def __init__(self, name: str):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
            raise ExperimentError(
                f"--exp {name!r}: use at most 200 letters, digits, '.', '_' and '-', a letter or digit first."
            )
        self.name = name
        self.folder = CHECKPOINTS / name
        self._lock = FileLock(self.folder / ".lock")  # the system lets go of it even after kill -9

    def path(self, name: str) -> Path:
        return self.folder / name

    def __enter__(self) -> "Experiment":
        try:
            if distributed.is_main_process():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=0)
        except Timeout:
            raise ExperimentError(
                f"{self.folder}: another process is training this experiment. Wait for it, stop it, "
                "or give this run another --exp."
            ) from None
        if distributed.is_main_process():
            for part in self.folder.glob("*.pt.*.part"):  # of a run that was killed while it wrote a checkpoint
                part.unlink(missing_ok=True)
        distributed.barrier()  # all have seen the folder as it was before this run
        return self

    def __exit__(self, *exc) -> None:
        if not distributed.is_main_process():
            return
        if [entry.name for entry in self.folder.iterdir()] == [".lock"]:  # nothing came of it
            shutil.rmtree(self.folder)
        self._lock.release()

    def exists(self) -> bool:
        return self.path("config.json").exists()

    def clear(self) -> None:
        """Delete what a former run left (the lock stays): first what makes it an experiment, at last the checkpoints,
        beside which no new one begins.
        """
        if distributed.is_main_process():
            self.path("config.json").unlink(missing_ok=True)
            for entry in sorted(self.folder.iterdir(), key=lambda entry: entry.suffix == ".pt"):
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        distributed.barrier()

    def save_config(
        self, name: str, config: configs.BaseConfig, data: str, pretrained: dict[str, dict[str, str]] | None = None
    ) -> None:
        """``name`` is the configuration file's, ``data`` the fingerprint of the training data, ``pretrained`` says of
        every frozen part where its weights come from."""
        saved = {"config": name, "data": data, "pretrained": pretrained or {}, "settings": config.as_dict()}
        write_text(self.path("config.json"), json.dumps(saved, indent=2) + "\n")

    def save_data(self, record: dict[str, Any]) -> None:
        """``record`` is :meth:`dataloader.Dataset.record` of the training data."""
        write_text(self.path("data.json"), json.dumps(record, indent=2) + "\n")

    def training_looks(self) -> dict[str, Any] | None:
        """What is recorded of how the training images look, None where nothing is. Raises ExperimentError."""
        path = self.path("data.json")
        try:
            return json.loads(path.read_text(encoding="utf-8")).get("looks") if path.exists() else None
        except (ValueError, AttributeError) as error:
            raise ExperimentError(f"{path}: damaged ({error}). Restore it, or delete it.") from error

    def load_config(self) -> tuple[str, configs.BaseConfig, str]:
        """(configuration name, settings, data fingerprint). Raises ExperimentError."""
        path = self.path("config.json")
        if not path.exists():
            known = sorted(p.parent.name for p in self.folder.parent.glob("*/config.json"))
            there = f"Experiments there: {', '.join(known)}." if known else "There are no experiments yet."
            raise ExperimentError(
                f"{self.folder.resolve()} is not an experiment. {there} Train it first: "
                f"python main.py --exp {self.name} --config NAME"
            )
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(saved["config"], str):
                raise TypeError(f"config = {saved['config']!r} is no name")
            return saved["config"], configs.from_dict(saved["settings"]), saved["data"]
        except (ValueError, KeyError, TypeError, AttributeError, configs.ConfigError) as error:
            raise ExperimentError(
                f"{path}: not a configuration of this program ({error}). Restore it, or start anew: "
                f"python main.py --exp {self.name} --config NAME --overwrite"
            ) from error

    def pretrained(self) -> dict[str, dict[str, str]]:
        """Frozen part → source and sha256 of its weights."""
        return json.loads(self.path("config.json").read_text(encoding="utf-8")).get("pretrained", {})

    def is_older(self) -> bool:
        """Whether its config.json is of the first version, which did some things otherwise (:data:`configs.OLDER`)."""
        return "resize" not in json.loads(self.path("config.json").read_text(encoding="utf-8"))["settings"]

    def save_checkpoint(self, name: str, content: dict[str, Any]) -> None:
        write_atomically(self.path(name), lambda part: torch.save({"format": FORMAT, **content}, part))

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        """A checkpoint file as plain data and tensors on the CPU. No code in it runs. Raises ExperimentError."""
        path = self.path(name)
        if not path.exists():
            there = sorted(p.stem for p in self.folder.glob("*.pt"))
            other = f"take the other one with --checkpoint {there[0]}, or train on" if there else "train first"
            raise ExperimentError(f"{path}: no such checkpoint; {other}: python main.py --exp {self.name}")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(content, dict):
                raise ValueError(f"a {type(content).__name__}")
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, not {FORMAT}")
        except Exception as error:  # torch raises many kinds for a truncated or foreign file
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ExperimentError(
                f"{path}: truncated, or not a checkpoint of this program ({first_line}). Restore the file, take the "
                "other one (--checkpoint best|last), or train anew with --overwrite."
            ) from error
        return content

    def load_weights(self, weights: str, method: Method) -> dict[str, Any]:
        """Load :data:`WEIGHTS` into ``method``; returns the whole checkpoint. Raises ExperimentError."""
        name, entry = WEIGHTS[weights]
        content = self.load_checkpoint(name)
        other = f"Take others (--checkpoint {'|'.join(w for w in WEIGHTS if w != weights)})"
        if weights == "averaged" and entry not in content:
            raise ExperimentError(
                f"{self.path(name)} has no averaged weights: it was trained without average_decay. {other}, or train "
                "anew with --set average_decay=0.999."
            )
        try:
            state = content[entry]
            if method.frozen and name == "last.pt":  # which goes without them
                with_frozen = self.path("best.pt").exists()
                state = (self.load_checkpoint("best.pt")["method"] if with_frozen else method.state_dict()) | state
            method.load_state_dict(state)
        except (KeyError, TypeError, AttributeError, RuntimeError) as error:
            first_lines = " ".join(str(error).split())[:300]
            raise ExperimentError(
                f"{self.path(name)}: the weights do not fit the settings ({first_lines}). Restore the file that "
                "belongs to config.json, or train anew with --overwrite."
            ) from error
        if bad := not_finite(state):
            raise ExperimentError(f"{self.path(name)}: {bad} holds values that are not finite. {other} or train anew.")
        return content

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line cut off by a kill is left out. Raises ExperimentError."""
        path = self.path("metrics.jsonl")
        rows, lines = [], path.read_bytes().splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                if number == len(lines):
                    break
                row = None
            kinds = {"epoch": int, "losses": dict}
            if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in kinds.items()):
                raise ExperimentError(f"{path}, line {number}: is not of an epoch. Restore it, or take it out.")
            rows.append(row)
        return rows

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        write_text(self.path("metrics.jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
