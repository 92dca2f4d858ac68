"""What reaches the decoder: how much a trained network's reconstructions and AUC owe to its memories and skips.

    python tools/influence.py --exp ID [ID ...] [--checkpoint NAME] [--split test|val] [--images N]

In evaluation mode one thing at a time is taken from the network, or exchanged for another image's, and the images are
scored again. An image's partner, the other image, is fixed: the next one in a circle through all images in a random
order that is always the same, so that classes mix. Tables go to the screen and to results/influence.md (there one for
all seeds of an experiment), all figures to results/influence.csv (rows are replaced by experiment and checkpoint), a
chart to figures/influence_NAME.png of the experiment.
"""

import argparse
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.hooks import RemovableHandle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands import cli
from configs import ConfigError
from dataloader import Split, build_dataset
from dataloader.base import in_words
from evaluation import metrics
from evaluation.plots import NORMAL, save
from evaluation.scoring import score_batches
from experiments.folder import ExperimentError
from methods import METHODS
from methods.squid import Squid
from system.device import to_float
from system.files import write_text
from system.progress import watched
from system.provenance import provenance
from system.seeding import generator
from tools import results_page
from tools.results import RESULTS, markdown, replace_rows
from tools.show_memory import USED, position, slot_weights, slots_in_use

SCORES = Squid.score_names  # SimSID's too
OF = ("experiment", "checkpoint")  # what rows are replaced by
SEED = re.compile(r"_s\d+$")  # ends the names of one experiment's seeds
MEASURED_ON = (
    "experiment", "command", "config", "method", "dataset", "checkpoint", "epoch", "split", "images", "precision",
    "commit", "device",
)  # fmt: skip
ALIKE = tuple(field for field in MEASURED_ON if field not in ("experiment", "command", "epoch"))  # of one table's seeds
FIELDS = (
    *MEASURED_ON, "intervention", "change", "relative_change",
    *(f"{score}_{figure}" for score in SCORES for figure in ("auc", "auc_points")), "slots_in_use", "slots",
)  # fmt: skip
UNTOUCHED, YARDSTICK, BOTTLENECK = "untouched", "another image", "inpaint.memory"
NOTES = f"""# Influence

Written by `tools/influence.py` from influence.csv.

Every intervention changes one thing in a trained network in evaluation mode; then the network scores the images as
ever. *Another image* is each image's fixed partner: the next one in a circle through all images in random order, of
either class.

- *change*: mean absolute difference to the untouched reconstruction, images in [0, 1]; below 1e-7 it is rounding.
- *relative*: that, divided by the change that another whole image makes.
- *points*: the AUC's difference to the untouched network's, in percentage points. Where an intervention makes all
  reconstructions alike, the discriminator's AUC ranks rounding errors.
- Several seeds (experiments that are alike but for the _sN of their names): mean ± standard deviation (n − 1).
- *bottleneck*: the decoder's input, after in-painting; in the hierarchical variant the deepest memory's output, the
  other memories' outputs being the skips. Skip 0 is the shallowest; those that the decoder does not use are left out.
- *bypassed*: what goes in comes out. Of `inpaint.memory` that is the query, elsewhere the map before the memory.
- *slots in use*: with a mean weight above {USED:g} over the images, at the median location."""


class Measured(NamedTuple):
    """What an intervention does to N images."""

    change: float  # mean |x_hat − untouched x_hat|, images in [0, 1]
    scores: dict[str, np.ndarray]  # image score → (N,)


DecoderInput = tuple[torch.Tensor, list[torch.Tensor | None]]  # bottleneck and skips, shallowest first
# given the other images' decoder input, hooks the generator until the handle is left
Intervention = Callable[[DecoderInput], RemovableHandle]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, conflict_handler="resolve"
    )
    cli.add_common(parser)
    parser.add_argument("--exp", required=True, nargs="+", metavar="ID", help="experiments of squid or simsid")
    cli.add_trained(parser)
    parser.add_argument("--split", default="test", choices=("test", "val"), help="default: test")
    parser.add_argument("--images", type=int, metavar="N", help="the first N of each class; default: all")
    cli.add_data_root(parser)
    args = parser.parse_args()
    if args.images is not None and args.images < 1:
        raise ConfigError(f"--images {args.images}: at least 1 of each class.")
    for name in dict.fromkeys(args.exp):
        rows = examine(argparse.Namespace(**{**vars(args), "exp": name}))
        write_results(rows)
        print("\n".join([*table(rows), ""]))
    results_page.write()
    figures_written = f"figures/influence_{args.checkpoint or '*'}.png of each experiment"
    print(f"Written: {RESULTS / 'influence.csv'}, {RESULTS / 'influence.md'}, {figures_written}")


def examine(args: argparse.Namespace) -> list[dict[str, object]]:
    """The rows of one experiment, and its figure. Raises ExperimentError where its method has no memory."""
    experiment, config_name, config, _, method, checkpoint, weights, device = cli.load_trained(args)
    if not hasattr(method, "slot_weights"):
        having = " and ".join(name for name, known in METHODS.items() if hasattr(known, "slot_weights"))
        raise ExperimentError(
            f"{experiment.folder}: {config.method} has no space-aware memory whose influence could be measured; "
            f"{having} have. Give --exp experiments of these."
        )
    images, labels = chosen(build_dataset(config, args.data_root).split(args.split), args.images)
    of_slots = slot_weights(method, images, device)
    found = measure(method, images, partners(len(images)), of_slots, device)
    made = provenance(device)
    common = {
        "experiment": experiment.name,
        "command": shlex.join(["python", "tools/influence.py", *elsewhere(sys.argv[1:])]),
        "config": config_name,
        "method": config.method,
        "dataset": config.dataset,
        "checkpoint": weights,
        "epoch": position(checkpoint)[0],
        "split": args.split,
        "images": in_words(int(labels.sum()), len(labels)),
        "precision": method.config.precision,
        "commit": made["commit"],
        "device": made["device"],
    }
    usage = {bypass(memory): values.mean(1) for memory, values in of_slots.items()}  # (J, S) each
    rows = [row | common for row in figures(found, labels.numpy(), usage, f"the {args.split} images")]
    draw(rows, experiment.path(f"figures/influence_{weights}.png"))
    return rows


def elsewhere(arguments: list[str]) -> list[str]:
    """A command's arguments without --data-root: where the images lie is another on every machine."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--data-root")
    return parser.parse_known_args(arguments)[1]


def chosen(split: Split, first: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, H, W) uint8 and labels (N,): the ``first`` of each class, or all, normal ones before anomalous."""
    index = torch.cat([(split.labels == label).nonzero()[:first, 0] for label in (0, 1)])
    return split.images[index], split.labels[index]


def partners(n: int) -> torch.Tensor:
    """(n,) the other image of each: a derangement, the same one every time (for n = 1 there is none)."""
    circle = torch.randperm(n, generator=generator(0, "influence"))
    other = torch.empty_like(circle)
    other[circle] = circle.roll(-1)
    return other


def bypass(memory: str) -> str:
    """What is bypassed of a memory: at the bottleneck its read alone, elsewhere the block that it is in."""
    return f"{memory if memory == BOTTLENECK else memory.removesuffix('.memory')} bypassed"


def interventions(network: torch.nn.Module, memories: Iterable[str]) -> dict[str, Intervention]:
    """Name → intervention, all that a generator allows; ``memories`` are the names that slot_weights gives."""
    student = network.student
    used = [i for i, op in enumerate(reversed(student.ops)) if op != "none"]

    def decoding(change: Callable[[DecoderInput, DecoderInput], DecoderInput]) -> Intervention:
        def intervention(theirs: DecoderInput) -> RemovableHandle:
            return student.register_forward_pre_hook(lambda _, inputs: (*change(inputs[:2], theirs), *inputs[2:]))

        return intervention

    def exchanging(*skips: int) -> Intervention:
        return decoding(
            lambda own, theirs: (own[0], [theirs[1][i] if i in skips else skip for i, skip in enumerate(own[1])])
        )

    def bypassing(module: torch.nn.Module) -> Intervention:
        return lambda theirs: module.register_forward_hook(lambda _, inputs, output: inputs[0])

    found = {
        "bottleneck of another image": decoding(lambda own, theirs: (theirs[0], own[1])),
        "bottleneck zero": decoding(lambda own, theirs: (torch.zeros_like(own[0]), own[1])),
    }
    if BOTTLENECK in memories:
        found["in-painting bypassed"] = bypassing(network.inpaint)
    for name in map(bypass, memories):
        found[name] = bypassing(network.get_submodule(name.removesuffix(" bypassed")))
    if used:
        found["skips of another image"] = exchanging(*used)
    for i in used:
        found[f"skip {i} of another image"] = exchanging(i)
    return found


def measure(
    method: Squid, images: torch.Tensor, other: torch.Tensor, memories: Iterable[str], device: torch.device
) -> dict[str, Measured]:
    """What each intervention does to images (N, H, W) uint8, of which ``other`` (N,) are the partners.

    The first two are the untouched network, and the yardstick: the network on the partners.
    """
    student, changes = method.generator.student, interventions(method.generator, memories)
    parts: dict[str, list] = {name: [] for name in (UNTOUCHED, YARDSTICK, *changes)}
    batches = list(zip(score_batches(images, device), score_batches(images[other], device), strict=True))
    for own, partner in watched(batches, "intervening"):
        own, partner = to_float(own, device), to_float(partner, device)
        seen = []
        with student.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[:2])):
            yardstick = method.score(partner)
        scored = {UNTOUCHED: method.score(own), YARDSTICK: yardstick}
        for name, intervention in changes.items():
            with intervention(*seen):
                scored[name] = method.score(own)
        for name, scores in scored.items():
            change = (scores.reconstruction - scored[UNTOUCHED].reconstruction).abs().mean((1, 2, 3))
            parts[name].append((change.cpu().double(), scores.image))
    return {
        name: Measured(
            torch.cat([change for change, _ in found]).mean().item(),
            {score: torch.cat([image[score] for _, image in found]).numpy() for score in SCORES},
        )
        for name, found in parts.items()
    }


def figures(
    found: dict[str, Measured], labels: np.ndarray, usage: dict[str, torch.Tensor], what: str
) -> list[dict[str, object]]:
    """A row per intervention; ``usage`` maps the bypasses to their memories' (J, S) mean weights.

    There is no relative change where all images are reconstructed alike. Raises MetricError, which names ``what``.
    """
    rows = []
    for name, measured in found.items():
        row = dict.fromkeys(FIELDS, "") | {"intervention": name, "change": measured.change}
        if yardstick := found[YARDSTICK].change:
            row["relative_change"] = measured.change / yardstick
        for score in SCORES if name != YARDSTICK else ():  # labels say nothing of another image
            metrics.check(labels, measured.scores[score], what)
            auc, untouched = (metrics.auc(labels, each.scores[score]) for each in (measured, found[UNTOUCHED]))
            row |= {f"{score}_auc": auc, f"{score}_auc_points": 100 * (auc - untouched)}
        if name in usage:
            row |= {"slots_in_use": slots_in_use(usage[name]), "slots": usage[name].shape[1]}
        rows.append(row)
    return rows


def write_results(rows: list[dict[str, object]]) -> None:
    """influence.csv with the rows of one experiment's checkpoint in place of its former ones, and influence.md."""
    rows = replace_rows(RESULTS / "influence.csv", FIELDS, rows, OF)
    tables: dict[tuple[str, ...], list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        tables[(SEED.sub("", row["experiment"]), *(row[field] for field in ALIKE))].append(row)
    lines = [NOTES]
    for own in tables.values():
        lines += ["", *table(own)]
    write_text(RESULTS / "influence.md", "\n".join(lines) + "\n")


def table(rows: list[dict[str, object]]) -> list[str]:
    """Markdown of an experiment's rows, or of all its seeds': a heading, what was measured on, a line per
    intervention.
    """
    interventions: dict[str, list[dict[str, object]]] = defaultdict(list)
    for row in rows:
        interventions[row["intervention"]].append(row)
    header = ["intervention", "change", "relative"]
    for score in SCORES:
        header += [f"{score} AUC", "points"]
    cells = [[*header, "slots in use"]]
    for name, of_seeds in interventions.items():
        line = [name, shown(of_seeds, "change", ".3g"), shown(of_seeds, "relative_change", ".3g")]
        for score in SCORES:
            line += [shown(of_seeds, f"{score}_auc", ".2%"), shown(of_seeds, f"{score}_auc_points", "+.2f")]
        slots = of_seeds[0]["slots"]
        cells.append([*line, f"{shown(of_seeds, 'slots_in_use', '.3g')} of {slots}" if slots else ""])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *body = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in cells)
    on = rows[0]
    experiments, epochs, commands = (distinct(rows, field) for field in ("experiment", "epoch", "command"))
    return [
        f"## {', '.join(experiments)}",
        "",
        f"{on['config']} ({on['method']}) on {on['dataset']}, {on['checkpoint']} checkpoint of epoch "
        f"{', '.join(epochs)}; {on['split']}: {on['images']}; {on['precision']} on {on['device']}, "
        f"commit {on['commit']}: {', '.join(f'`{command}`' for command in commands)}",
        "",
        *markdown(head, body),
    ]


def distinct(rows: list[dict[str, object]], field: str) -> list[str]:
    return list(dict.fromkeys(str(row[field]) for row in rows))


def shown(rows: list[dict[str, object]], field: str, form: str) -> str:
    """A figure in the given format, mean ± standard deviation where there are several; – where one is missing."""
    if any(row[field] == "" for row in rows):
        return "–"
    values = [float(row[field]) for row in rows]
    deviation = f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation}"


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """The relative change of every intervention, as bars on a logarithmic scale; 0 has no bar."""
    bars = [row for row in rows if row["relative_change"] != "" and row["intervention"] != UNTOUCHED]
    values = [row["relative_change"] for row in bars]
    low = min((value for value in values if value), default=1.0) / 3
    figure = Figure(figsize=(8, 1.3 + 0.3 * len(rows)))
    axis = figure.subplots()
    axis.barh([row["intervention"] for row in bars], values, color=NORMAL)
    for i, value in enumerate(values):
        axis.text(max(value, low), i, f" {value:.2g}", va="center", fontsize=8)
    axis.set(xscale="log", xlim=(low, 4 * max(values, default=1.0)), xlabel="change, relative to another image's")
    axis.set_title(f"{rows[0]['experiment']}: what changes the reconstruction", fontsize=10)
    axis.invert_yaxis()
    save(figure, path)


if __name__ == "__main__":
    cli.run(main)
