"""What the commands share: arguments, and errors as one line with exit code 1."""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch

import configs
from configs import BaseConfig, ConfigError
from dataloader import DATA_ROOT_VARIABLE, DataError
from dataloader.cache import FOLDER, VARIABLE
from evaluation import normals
from evaluation.metrics import MetricError
from experiments.folder import WEIGHTS, Experiment, ExperimentError, is_within_epoch, reached
from experiments.settings import check_same_weights
from methods import METHODS, Method
from models.features import WeightsError
from system import distributed
from system.device import DeviceError, choose_device, out_of_memory
from system.files import DISK_FULL, FileError
from system.tuning import tune
from training.loop import Interrupted, TrainingError

EXPECTED = (
    ConfigError, DataError, DeviceError, WeightsError, FileError, ExperimentError, TrainingError, MetricError,
    distributed.LostProcess,
)  # fmt: skip


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--exp", required=True, metavar="ID", help="experiment id: its folder is checkpoints/ID")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Which weights of the experiment are taken, and how they compute."""
    parser.add_argument(
        "--checkpoint", choices=WEIGHTS,
        help="default: the setting checkpoint, best on validation unless it was set; averaged: last.pt's averaged "
        "weights (with average_decay)",
    )  # fmt: skip
    precisions = get_args(BaseConfig.keys()["precision"])
    parser.add_argument("--precision", choices=precisions, help="default: what it was trained in")


def add_false_alarms(parser: argparse.ArgumentParser) -> None:
    """The rate of false alarms that the threshold of held-out normal images is for."""
    parser.add_argument(
        "--false-alarms", type=share, default=normals.FALSE_ALARMS, metavar="RATE",
        help="the threshold of held-out normal images alone is for this share of false alarms "
        f"(default: {normals.FALSE_ALARMS})",
    )  # fmt: skip


def share(text: str) -> float:
    """A number within (0, 1), for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number between 0 and 1, such as 0.05 for 5 %.")
    return value


class Trained(NamedTuple):
    """An experiment with its weights loaded."""

    experiment: Experiment
    config_name: str
    config: BaseConfig  # as trained; the method's own has the precision to compute in
    data: str  # the fingerprint of what it was trained on
    method: Method
    checkpoint: dict[str, Any]
    weights: str  # which of experiments.folder.WEIGHTS these are
    device: torch.device


def load_trained(args: argparse.Namespace) -> Trained:
    """What --exp, --checkpoint, --precision and --device name. Raises ExperimentError, DeviceError."""
    device = choose_device(args.device)
    experiment = Experiment(args.exp)
    name, config, data = experiment.load_config()
    used = configs.override(config, [f"precision={args.precision}"]) if args.precision else config
    tune(used.precision)
    method = METHODS[config.method](used)
    weights = args.checkpoint or config.checkpoint
    if method.frozen and WEIGHTS[weights][0] == "last.pt" and not experiment.path("best.pt").exists():
        check_same_weights(experiment, method.load_pretrained())
    checkpoint = experiment.load_weights(weights, method)
    if "position" in checkpoint and not checkpoint["position"]["global_step"] and not reached(checkpoint):
        raise ExperimentError(f"{experiment.folder}: nothing is trained yet. Train on: python main.py --exp {args.exp}")
    method.untrained = tuple(checkpoint.get("untrained", ()))
    return Trained(experiment, name, config, data, method.to(device), checkpoint, weights, device)


def is_stale(experiment: Experiment, method: Method, checkpoint: dict) -> bool:
    """Whether what a method fits to its weights, SQUID's statistics of scores say, is of an earlier validation than the
    weights.
    """
    if "position" not in checkpoint or type(method).fit is Method.fit:
        return False
    if is_within_epoch(checkpoint):
        return True
    epoch = reached(checkpoint)
    validated = any(row["epoch"] == epoch and "val_auc" in row for row in experiment.read_metrics())
    return not validated and epoch < sum(stage.epochs for stage in method.stages)


def add_data_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-root", metavar="PATH",
        help=f"the dataset's folder, or one that holds it (else ${DATA_ROOT_VARIABLE}, else the configuration's); with "
        "dataset=folder one's own images: their folder, or a CSV file. Decoded images are kept in "
        f"{FOLDER}, or in ${VARIABLE} (off: nowhere)",
    )  # fmt: skip


def run(main: Callable[[], int | None]) -> None:
    """Run a command's ``main``; an expected error becomes a message on stderr, a signal its exit code."""
    sys.stdout.reconfigure(errors="replace")  # of a terminal or pipe that is not UTF-8
    # cosine schedules warn when a checkpoint is taken up, although the order of calls is right
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
    try:
        with distributed.joined():
            code = outcome(main)
            if code:
                distributed.leave_failed(code)
    except distributed.LostProcess as error:  # before any work
        distributed.say_once(f"error: {error}")
        code = 1
    sys.exit(code)


def nobody_reads() -> bool:
    """Whether what read our output has ended, as ``head`` does; from then on output goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def outcome(main: Callable[[], int | None]) -> int:
    """The exit code of ``main``; of several processes the first to fail says why."""
    try:
        code = main() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not nobody_reads():
            raise
        return 141  # as a shell says of a command that SIGPIPE ended
    except EXPECTED as error:
        distributed.say_once(f"error: {error}")
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:  # of no file: a pipe that is closed, say
            raise
        if error.filename is None:
            distributed.say_once(f"error: the output cannot be written: {error.strerror}.")
            return 1
        distributed.say_once(f"error: {error.filename}: {error.strerror}. Mend the path, or who may read and write it.")
        return 1
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        distributed.say_once(
            "error: there is not enough memory. What was saved is as it was. Take a smaller batch_size or image_size "
            "or network (eval.py and predict.py: --device cpu), or look whether others use the GPU. "
            f"({str(error).strip().partition(chr(10))[0]})"
        )
        return 1
    except Interrupted as stop:
        distributed.say_once(str(stop))
        return 128 + stop.signal
    except KeyboardInterrupt:
        distributed.first_to_fail()
        return 130
