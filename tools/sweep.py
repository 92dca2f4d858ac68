"""Train and evaluate one configuration at several values of a setting, and show the figures side by side.

    python tools/sweep.py --exp brain_ae --config ddad_brain_ae --key anomaly_rate --values 0 .2 .4 .6 .8 1

makes the experiments brain_ae_anomaly_rate_0 … brain_ae_anomaly_rate_1. What follows ``--`` goes to every main.py. The
same command again resumes what was interrupted.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import configs
from commands import cli
from configs import ConfigError
from experiments.folder import Experiment, ExperimentError

ROOT = Path(__file__).resolve().parent.parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp", required=True, metavar="ID", help="what the experiments' ids begin with")
    parser.add_argument("--config", required=True, metavar="NAME", help=f"one of: {', '.join(configs.names())}")
    parser.add_argument("--key", required=True, help="the setting")
    parser.add_argument("--values", required=True, nargs="+", metavar="VALUE", help="its values")
    parser.add_argument("more", nargs="*", metavar="-- ...", help="more arguments of main.py")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    for value in args.values:  # a bad value is found before the first one is trained
        configs.build(args.config, [f"{args.key}={value}"])
    if any(argument in ("--exp", "--config", "--overwrite") for argument in args.more):
        raise ConfigError("--exp and --config are the sweep's own, and --overwrite would undo what it resumes.")
    found = {}
    for value in args.values:
        experiment = Experiment(f"{args.exp}_{args.key}_{value}")
        run("main.py", "--exp", experiment.name, "--config", args.config, "--set", f"{args.key}={value}", *args.more)
        run("eval.py", "--exp", experiment.name)
        found[value] = json.loads(experiment.path("results.json").read_text(encoding="utf-8"))
    print(table(args.key, found))


def run(command: str, *arguments: str) -> None:
    """Raises ExperimentError where the command fails; it has said why."""
    code = subprocess.run([sys.executable, str(ROOT / command), *arguments]).returncode
    if code:
        raise ExperimentError(f"{command} {' '.join(arguments)} ended with exit code {code}.")


def table(key: str, found: dict[str, dict]) -> str:
    """AUC / AP in percent: a line per value of the setting, a column per score."""
    names = list(next(iter(found.values()))["scores"])
    lines = ["".join(cell.rjust(16) for cell in (key, *names)) + "   (AUC / AP, %)"]
    for value, results in found.items():
        figures = (results["scores"][name] for name in names)
        cells = [
            f"{100 * of['auc']:.1f} / {100 * of['average_precision']:.1f}" if "auc" in of else "–" for of in figures
        ]
        lines.append("".join(cell.rjust(16) for cell in (value, *cells)))
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
