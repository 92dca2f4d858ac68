"""Turn the released programs' weight files into an experiment that eval.py and predict.py accept.

    python tools/import_official.py --config zhang_best --model model.pth --discriminator discriminator.pth --exp ID

Names and shapes must be those of the configuration's network, no more and no less (but for entries of SimSID's files
that no forward reads, which are dropped by name). The released files hold neither
the queue's pointer nor the mean and deviation of the training logits; with the training images at hand (--data-root,
or where the configuration looks) the latter are computed as the released evaluation does.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from dataloader import DataError, build_dataset
from dataloader.loader import TrainLoader
from engine import cli
from engine.device import keep_memory
from engine.experiment import IMPORTED, Experiment, ExperimentError, not_finite
from methods import METHODS
from tools import official_names


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", required=True, metavar="ID", help="the experiment to make")
    parser.add_argument("--config", required=True, metavar="NAME", help=f"one of: {', '.join(configs.names())}")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="override settings")
    parser.add_argument("--model", required=True, type=Path, metavar="FILE", help="the generator's weights")
    parser.add_argument("--discriminator", required=True, type=Path, metavar="FILE", help="the discriminator's weights")
    cli.add_data_root(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    keep_memory()
    config = configs.build(args.config, args.set)
    experiment = Experiment(args.exp)
    if experiment.exists():
        raise ExperimentError(f"{experiment.folder} exists already; take another --exp or remove that folder.")
    method = METHODS[config.method](config)
    parts = (
        (args.model, method.generator, official_names.GENERATOR_WEIGHTS[config.method]),
        (args.discriminator, method.discriminator, official_names.discriminator_weights),
    )
    for path, network, weights in parts:
        try:
            network.load_state_dict(weights(read_state(path), network.state_dict(), config.levels))
        except ValueError as error:
            raise ExperimentError(
                f"{path}: its entries are not those of {args.config}; give the configuration it was trained with.\n"
                f"{error}"
            ) from None

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
    with experiment:
        experiment.save_checkpoint("best.pt", {"method": method.state_dict(), "epoch": 0, "imported": str(args.model)})
        experiment.save_config(configs.canonical(args.config), config, data=IMPORTED)
        print(f"Imported into {experiment.folder}. Next: python eval.py --exp {args.exp}")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """A file's tensors by name; a state dict inside a checkpoint is found. Raises ExperimentError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        if not content or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise ValueError("it holds no state dict")
    except FileNotFoundError:
        raise ExperimentError(f"{path}: no such file.") from None
    except Exception as error:  # torch raises many kinds for a truncated or foreign file
        raise ExperimentError(f"{path}: not a weight file ({str(error).splitlines()[0]}).") from error
    if entry := not_finite(content):
        raise ExperimentError(f"{path}: {entry} holds values that are not finite.")
    return content


if __name__ == "__main__":
    cli.run(main)
