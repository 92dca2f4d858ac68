"""Turn the released programs' weight files into an experiment that eval.py and predict.py accept.

    python tools/import_official.py --config zhang_best --model model.pth --discriminator discriminator.pth --exp ID
    python tools/import_official.py --config ddad_rsna_ae --folder FOLDER --exp ID

DDAD's folder holds a/0.pth …, b/0.pth …, as many as the configuration has members, and refine/refine_dual.pth.

Names and shapes must be those of the configuration's network, no more and no less (but for entries of SimSID's files
that no forward reads, which are dropped by name). The released files hold neither
the queue's pointer nor the mean and deviation of the training logits; with the training images at hand (--data-root,
or where the configuration looks) the latter are computed as the released evaluation does.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from commands import cli
from dataloader import DataError, build_dataset, find_root
from dataloader.loader import TrainLoader
from experiments.folder import IMPORTED, Experiment, ExperimentError, not_finite
from methods import METHODS, Method
from system.tuning import keep_memory
from tools import official_names


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", required=True, metavar="ID", help="the experiment to make")
    parser.add_argument("--config", required=True, metavar="NAME", help=f"one of: {', '.join(configs.names())}")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument("--model", type=Path, metavar="FILE", help="the generator's weights")
    parser.add_argument("--discriminator", type=Path, metavar="FILE", help="the discriminator's weights")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="DDAD's weights")
    cli.add_data_root(parser)
    args = parser.parse_args()
    if not (args.folder or (args.model and args.discriminator)):
        parser.error("give --model and --discriminator, or DDAD's --folder")
    return args


def main() -> None:
    args = arguments()
    keep_memory()
    config = configs.build(args.config, args.set)
    experiment = Experiment(args.exp)
    if experiment.exists():
        raise ExperimentError(f"{experiment.folder} exists already; take another --exp or remove that folder.")
    method = METHODS[config.method](config)
    for path, network, weights in ddad_files(args, method) if config.method == "ddad" else gan_files(args, method):
        try:
            network.load_state_dict(weights(read_state(path), network.state_dict()))
        except ValueError as error:
            raise ExperimentError(
                f"{path}: its entries are not those of {args.config}; give the configuration it was trained with.\n"
                f"{error}"
            ) from None

    if config.method == "ddad":  # its scores need nothing of the training images
        config.data_root = str(find_root(config, args.data_root).resolve())
    else:
        fit_statistics(args, config, method)
    source = str(args.folder or args.model)
    with experiment:
        content = {"method": method.state_dict(), "epoch": 0, "imported": source, "untrained": method.untrained}
        experiment.save_checkpoint("best.pt", content)
        experiment.save_config(configs.canonical(args.config), config, data=IMPORTED)
        print(f"Imported into {experiment.folder}. Next: python eval.py --exp {args.exp}")


Weights = Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def gan_files(args: argparse.Namespace, method: Method) -> list[tuple[Path, torch.nn.Module, Weights]]:
    """SQUID's and SimSID's files, the network each is of, and what turns its entries into ours."""
    if not args.model or method.config.method not in official_names.GENERATOR_WEIGHTS:
        raise ExperimentError(f"{args.config}: --folder is DDAD's, --model and --discriminator SQUID's and SimSID's.")
    generator = partial(official_names.GENERATOR_WEIGHTS[method.config.method], levels=method.config.levels)
    discriminator = partial(official_names.discriminator_weights, levels=method.config.levels)
    return [(args.model, method.generator, generator), (args.discriminator, method.discriminator, discriminator)]


def ddad_files(args: argparse.Namespace, method: Method) -> list[tuple[Path, torch.nn.Module, Weights]]:
    """DDAD's likewise. Raises ExperimentError where a module has another number of members."""
    if not args.folder:
        raise ExperimentError(f"{args.config} is a DDAD configuration: give --folder.")
    files = []
    for module, theirs in (("udm", "a"), ("ndm", "b")):
        networks = method.ensemble(module)
        there = sorted(path.name for path in (args.folder / theirs).glob("*.pth"))
        wanted = sorted(f"{k}.pth" for k in range(len(networks)))
        if there != wanted:
            raise ExperimentError(
                f"{args.folder / theirs}: holds {', '.join(there) or 'no .pth files'}, not {', '.join(wanted)}. "
                "Give the number of members with --set members=K."
            )
        for k, network in enumerate(networks):
            files.append((args.folder / theirs / f"{k}.pth", network, official_names.autoencoder_weights))
    for name, network in method.refinement.items():
        path = args.folder / "refine" / f"refine_{name}.pth"
        if name == "dual" or f"r_{name}" == method.main_score or path.exists():
            files.append((path, network, official_names.asrnet_weights))
        else:
            method.untrained += (f"r_{name}",)
            print(f"note: {path} is not there; r_{name} will not be among the scores.")
    return files


def fit_statistics(args: argparse.Namespace, config: configs.BaseConfig, method: Method) -> None:
    """The training logits' statistics, where the training images are at hand."""
    try:
        dataset = build_dataset(config, args.data_root)
        method.fit(TrainLoader(dataset, config, torch.device("cpu")))
        config.data_root = str(dataset.root.resolve())
    except DataError as error:
        if args.data_root:
            raise
        print(
            f"note: no training images ({error})\nThe score is 1 − sigmoid(logit), not yet set against the training "
            "logits' mean and deviation. Ranking, AUC and pictures are not affected. Import again with --data-root "
            "(and another --exp) for the published scale."
        )


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A file's tensors by name; a state dict inside a checkpoint is found. Raises ExperimentError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        if not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise ValueError("it holds no state dict")
    except FileNotFoundError:
        raise ExperimentError(f"{path}: no such file. Name the released program's.") from None
    except Exception as error:  # torch raises many kinds for a truncated or foreign file
        raise ExperimentError(f"{path}: not a weight file ({str(error).splitlines()[0]}). Fetch it anew.") from error
    if entry := not_finite(content):
        raise ExperimentError(f"{path}: {entry} holds values that are not finite. Fetch it anew.")
    return content


if __name__ == "__main__":
    cli.run(main)
