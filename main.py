"""Train an experiment, or go on with an interrupted one.

    python main.py --exp ID --config NAME [--set key=value ...]

The same command again resumes exactly where the run stopped (on a CPU bit for bit; a GPU adds up in an order of its
own), or says that it is finished. Everything lies in checkpoints/ID; evaluate it with: python eval.py --exp ID

    python main.py --exp ID --config NAME --try

sees in little time that all of it runs: an epoch of every stage, a few batches each, in checkpoints/ID_try.

    python main.py --exp NEW --from ID --stage NAME [--set key=value ...]

repeats a stage of ID (DDAD's refine, say) and those after it in a new experiment, from what the stages before it
trained.
"""

import argparse
import os

import torch

import configs
from commands import cli
from commands.jobs import train_seeds
from configs import BaseConfig, ConfigError
from dataloader import Dataset, build_dataset
from dataloader.loader import TrainLoader
from experiments.folder import IMPORTED, Experiment, ExperimentError
from experiments.settings import check_same, check_same_data, check_same_weights, lengthening
from methods import METHODS
from system import distributed
from system.device import choose_device
from system.seeding import seed_everything
from system.tuning import tune
from training import repeat
from training.loop import Trainer
from training.sync_batch_norm import synchronise_batch_norm


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_common(parser)
    known = ", ".join(configs.names())
    parser.add_argument("--config", metavar="NAME", help=f"one of: {known}; an existing experiment knows its own")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override settings, typed and checked",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set seed=N")
    parser.add_argument("--seeds", metavar="N,N,…", help="train ID_sN for each of these seeds, over all devices")
    parser.add_argument(
        "--try", dest="trial", action="store_true",
        help="see that it runs: an epoch of every stage, a few batches each, as the experiment ID_try",
    )  # fmt: skip
    parser.add_argument("--from", dest="source", metavar="ID", help="repeat a stage of this experiment in a new one")
    parser.add_argument("--stage", metavar="NAME", help="the stage to repeat")
    cli.add_data_root(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="delete what the experiment's folder holds, start anew"
    )
    args = parser.parse_args()
    if bool(args.source) != bool(args.stage) or (args.source and (args.config or args.seeds)):
        parser.error("--from ID and --stage NAME go together, without --config (it is that of ID) and --seeds")
    if args.trial and (args.source or args.seeds or not args.config):
        parser.error("--try goes with --config, without --seeds and --from")
    if args.trial:
        args.exp += "_try"
    return args


def main() -> int | None:
    args = arguments()
    device = choose_device(args.device)
    experiment = Experiment(args.exp)
    if args.seeds is not None:
        if args.config:
            configs.build(args.config, args.set)  # what is wrong is told once, before any process is started
        return train_seeds(args, device)
    name, config = settings(args, experiment)
    tune(config.precision)
    going_on = experiment.exists() and not args.overwrite
    if going_on:
        check_same(experiment, config)

    with experiment:
        dataset = build_dataset(config, args.data_root)
        if args.trial:
            check_batches(args, device)
        config.data_root = os.path.abspath(dataset.root)  # not what a link leads to: paths begin at the link
        if going_on:
            check_same_data(experiment, dataset)
        trainer = build_trainer(experiment, config, dataset, device)
        if going_on and experiment.path("best.pt").exists():  # which has the frozen parts
            pretrained = experiment.pretrained()
        else:
            pretrained = trainer.method.load_pretrained()
            trainer.start_stage()  # an average starts as the weights are
            if going_on:
                check_same_weights(experiment, pretrained)
        log = None
        if going_on and experiment.path("last.pt").exists():
            trainer.resume()
            if trainer.finished:
                config.precision = experiment.load_config()[1].precision  # that it was trained in
        elif args.source:
            log = from_source(trainer, Experiment(args.source), args, pretrained)
        elif going_on:
            trainer.check_nothing_is_lost()

        # only now that the run is known to start
        if args.overwrite:
            experiment.clear()
        experiment.save_config(name, config, dataset.fingerprint(), pretrained)
        experiment.save_data(dataset.record())
        if log:
            repeat.save(trainer, log)
        if trainer.finished:
            key = lengthening(config)
            longer = f"To train on: --set {key}=N. " if key else ""
            print(f"{experiment.folder} is finished: {trainer.epoch} epochs. To evaluate it: python eval.py --exp "
                  f"{args.exp}. {longer}To start anew: --overwrite.")  # fmt: skip
            return None
        print(f"{experiment.folder}: {name}, {config.method} on {config.dataset}, seed {config.seed}")
        trainer.train()
    return None


def check_batches(args: argparse.Namespace, device: torch.device) -> None:
    """Raise a DataError where the images are too few for the batches that --try makes smaller."""
    config = configs.build(args.config, args.set)
    loader = TrainLoader(build_dataset(config, args.data_root), config, device)
    for stage in config.stages():
        loader.epoch(0, stage)


def from_source(trainer: Trainer, source: Experiment, args: argparse.Namespace, pretrained: dict) -> str:
    """Bring ``trainer`` to where ``source`` was when the stage began; returns the log.txt. Raises ExperimentError."""
    if not (args.overwrite or repeat.begun(trainer.experiment, source, args.stage)):
        trainer.check_nothing_is_lost()
    _, like, trained_on = source.load_config()
    if trained_on != IMPORTED:
        check_same_data(source, build_dataset(like, args.data_root))
    check_same_weights(source, pretrained)
    return repeat.take_over(trainer, source, args.stage)


def settings(args: argparse.Namespace, experiment: Experiment) -> tuple[str, BaseConfig]:
    """The configuration's name and values: --config, or the experiment's own, with the overrides on top."""
    overrides = args.set + ([] if args.seed is None else [f"seed={args.seed}"])
    if not experiment.exists() and not args.overwrite and any(experiment.folder.glob("*.pt")):
        raise ExperimentError(f"{experiment.folder} has checkpoints but no config.json. Restore it, or --overwrite.")
    if args.source == args.exp:
        raise ExperimentError(f"--from {args.source}: is the experiment itself. Give the new one another --exp.")
    if args.seed is not None and any(pair.startswith("seed=") for pair in args.set):
        raise ConfigError("--seed and --set seed=N say the same: leave one out.")
    if args.source:
        source = Experiment(args.source)
        name, saved, _ = source.load_config()
        config = configs.override(saved, overrides)
        repeat.check_repeatable(source, saved, config, args.stage)
        return name, config
    if args.config and (args.overwrite or not experiment.exists()):
        return configs.canonical(args.config), built(args, overrides)
    if not experiment.exists():
        raise ExperimentError(f"Experiment {args.exp} is new: give --config, one of {', '.join(configs.names())}.")
    name, saved, _ = experiment.load_config()
    if not args.config:
        return name, configs.override(saved, overrides)
    config = built(args, overrides)
    if config.dataset == saved.dataset:
        config.data_root = config.data_root or saved.data_root
    return configs.canonical(args.config), config


def built(args: argparse.Namespace, overrides: list[str]) -> BaseConfig:
    """The configuration of --config, shortened for --try."""
    config = configs.build(args.config, overrides)
    return configs.override(config, configs.trial(config)) if args.trial else config


def build_trainer(experiment: Experiment, config: BaseConfig, dataset: Dataset, device) -> Trainer:
    scored = ["val"] * dataset.has_validation + ["test"] * (config.record_scores and dataset.has_test)
    splits = {name: dataset.split(name) for name in scored}
    if dataset.has_held_out and "val" not in splits:
        dataset.split("val")  # without one of them eval.py would have none: a damaged file is named now
    loader = TrainLoader(dataset, config, device)
    for stage in sorted(config.stages(), key=lambda stage: not stage.unlabeled):  # first what data may lack altogether
        loader.epoch(0, stage)  # every file is read, and a stage with too few found, before anything is written
    seed_everything(config.seed, "weights")
    method = METHODS[config.method](config).to(device)
    if config.sync_batch_norm and distributed.world_size() > 1:
        if device.type == "cuda" and getattr(config, "r1_weight", 0):
            raise ConfigError(
                "r1_weight with sync_batch_norm on several GPUs: torch's synchronised batch norm gives no second "
                "derivative, which R1 takes. Leave one of them out, or train on one GPU."
            )
        synchronise_batch_norm(method)
    return Trainer(experiment, config, method, loader, splits, device)


if __name__ == "__main__":
    cli.run(main)
