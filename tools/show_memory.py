"""Pictures of what an experiment's memories learned, into its figures/ folder.

    python tools/show_memory.py --exp ID [PATH ...]

memory_usage.png: how much each slot of each location takes part in rebuilding the validation images.
memory_sources.png: for the first normal and the first anomalous test image, as far as there are any, else validation
image (memory_sources_of_files.png: for each PATH), what each of their patches reads from the bottleneck's memory: with
a memory queue the training images' patches that its slots hold, with a learned matrix the slots it uses most.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands import cli
from configs import BaseConfig
from dataloader import Dataset, build_dataset
from dataloader.images import read_image
from dataloader.loader import TrainLoader
from evaluation.plots import save
from evaluation.scoring import score_batches
from experiments.folder import ExperimentError
from methods import Method
from models.memory import MemoryQueue
from models.patches import to_patches
from system.device import to_float

SHOWN = 4  # slots per patch in memory_sources.png
USED = 1e-3  # a mean weight below it is rounding, not use


class Source(NamedTuple):
    """Where a queue's slot comes from."""

    epoch: int  # from 0
    index: int  # of the training image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_common(parser)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="images to explain")
    cli.add_trained(parser)
    cli.add_data_root(parser)
    args = parser.parse_args()
    experiment, _, config, _, method, checkpoint, _, device = cli.load_trained(args)
    if not hasattr(method, "slot_weights"):
        raise ExperimentError(
            f"{experiment.folder}: {config.method} has no space-aware memory to show; squid and simsid "
            "have. Give --exp one of theirs."
        )
    dataset = build_dataset(config, args.data_root)

    weights = slot_weights(method, dataset.split("val").images, device)
    if not weights:
        raise ExperimentError(f"{experiment.folder}: its configuration has no memory to show.")
    images, captions = chosen_images(args.paths, config, dataset)
    usage = {name: values.mean(1) for name, values in weights.items()}  # (J, S) each
    draw_usage(usage, experiment.path("figures/memory_usage.png"))
    name = next(
        (n for n in weights if n.startswith("inpaint")), next(iter(weights))
    )  # the bottleneck's, or the deepest
    memory = method.generator.get_submodule(name)
    if len(memory.slots) == 1:
        print(f"Written: memory_usage.png. {name} is one memory for all places: there are no places to show.")
        return
    read = slot_weights(method, images, device)[name]
    sources = training_patches = None
    if isinstance(memory, MemoryQueue):
        loader = TrainLoader(dataset, config, device)
        sources = queue_sources(loader, config.n_critic, memory, *position(checkpoint))
        training_patches = SourcePatches(loader)
    path = experiment.path(f"figures/memory_sources{'_of_files' if args.paths else ''}.png")
    draw_sources(images, captions, read, sources, training_patches, path)
    print(f"Written: memory_usage.png and {path.name} in {path.parent}")


@torch.no_grad()
def slot_weights(method: Method, images: torch.Tensor, device: torch.device) -> dict[str, torch.Tensor]:
    """(N, H, W) uint8 → memory name → (J, N or more, S) weights on the CPU."""
    found = [method.slot_weights(to_float(batch, device)) for batch in score_batches(images, device)]
    return {name: torch.cat([weights[name].cpu() for weights in found], dim=1) for name in found[0]}


def slots_in_use(usage: torch.Tensor) -> int:
    """(J, S) mean weights → how many slots take part at the median location, the lower of two."""
    return int((usage > USED).sum(1).median())


def position(checkpoint: dict) -> tuple[int, int]:
    """(finished epochs, batches of the next one) at which a checkpoint was taken."""
    if "position" in checkpoint:
        return checkpoint["position"]["epoch"], checkpoint["position"]["batch"]
    return checkpoint["epoch"], 0


def queue_sources(
    loader: TrainLoader, n_critic: int, memory: MemoryQueue, epochs: int, batches: int
) -> list[Source | None]:
    """The training image behind every slot, None where the initial values remain.

    Nothing is stored for it: the order of every epoch follows from the seed, so the batches that the generator
    stepped on are followed back from the pointer.
    """
    num_slots = memory.slots.shape[1]
    sources: list[Source | None] = [None] * num_slots
    slot, found = int(memory.pointer), 0
    for epoch in range(epochs if batches else epochs - 1, -1, -1):
        indices = loader.epoch(epoch).indices
        stepped = range(0, batches if epoch == epochs else len(indices), n_critic)
        for batch in reversed(stepped):
            for index in reversed(indices[batch].tolist()):
                slot = (slot - 1) % num_slots
                sources[slot] = Source(epoch, index)
                found += 1
                if found == num_slots:
                    return sources
    return sources


class SourcePatches:
    """The patches of training images as they were augmented in their epoch."""

    def __init__(self, loader: TrainLoader):
        self.loader = loader
        self.per_side = loader.config.patches_per_side
        self.epochs = {}

    def name(self, source: Source) -> str:
        return self.loader.dataset.training_name(source.index)

    def __call__(self, source: Source, location: int) -> np.ndarray:
        """(h, w) in [0, 1]."""
        if source.epoch not in self.epochs:
            self.epochs[source.epoch] = self.loader.epoch(source.epoch)
        image = self.epochs[source.epoch].augmented(torch.tensor([source.index]))  # (1, 1, H, W)
        return to_patches(image, self.per_side)[location, 0].cpu().numpy()


def chosen_images(paths: list[Path], config: BaseConfig, dataset: Dataset) -> tuple[torch.Tensor, list[str]]:
    """(N, H, W) uint8 and what to call them; without paths the first of each class that is there."""
    if paths:
        images = [torch.from_numpy(read_image(path, config.image_size, config.resize, config.fit)) for path in paths]
        return torch.stack(images), [path.name for path in paths]
    split = dataset.split("test" if dataset.has_test else "val")
    first = [int((split.labels == label).nonzero()[0]) for label in split.labels.unique()]
    return split.images[first], [split.ids[i] for i in first]


def draw_usage(usage: dict[str, torch.Tensor], path: Path) -> None:
    """One panel a memory: locations down, slots across, the most used first."""
    figure = Figure(figsize=(9, 1.2 + 1.7 * len(usage)))
    for axis, (name, weights) in zip(figure.subplots(len(usage), 1, squeeze=False)[:, 0], usage.items(), strict=True):
        ranked = weights.sort(dim=1, descending=True).values
        used = slots_in_use(weights)
        shown = axis.imshow(
            ranked[:, : max(20, 2 * used)].numpy(), aspect="auto", interpolation="nearest", cmap="viridis"
        )
        axis.set_title(f"{name}: {used} of {weights.shape[1]} slots in use at the median location", fontsize=9)
        axis.set(xlabel="slots, most used first", ylabel="location, row by row")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        figure.colorbar(shown, ax=axis, label="mean weight")
    save(figure, path)


def draw_sources(
    images: torch.Tensor, captions: list[str], read: torch.Tensor, sources: list[Source | None] | None,
    training_patches: SourcePatches | None, path: Path,
) -> None:  # fmt: skip
    """A row a patch: the patch, then the slots it reads most, with their weights."""
    locations = read.shape[0]
    per_side = int(locations**0.5)
    patches = to_patches(images.unsqueeze(1).float() / 255, per_side)  # (N·J, 1, h, w)
    columns = (SHOWN + 1) * len(images)
    figure = Figure(figsize=(1.35 * columns, 1.45 * locations + 0.7))
    axes = figure.subplots(locations, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for n, caption in enumerate(captions):
        first = n * (SHOWN + 1)
        text = f"{caption}: its patches, and what each reads from its place's memory"
        axes[0, first].annotate(
            text, (0, 1), xycoords="axes fraction", xytext=(0, 24), textcoords="offset points", fontsize=8
        ).set_in_layout(False)
        for j in range(locations):
            axes[j, first].imshow(patches[n * locations + j, 0].numpy(), cmap="gray", vmin=0, vmax=1)
            lines_above = "\n\n" if j == 0 else ""  # room for the caption
            axes[j, first].set_title(f"{lines_above}patch {j + 1}", fontsize=7, loc="left")
            weights, slots = read[j, n].topk(min(SHOWN, read.shape[2]))
            for place, (weight, slot) in enumerate(zip(weights.tolist(), slots.tolist(), strict=True), start=1):
                if weight < 0.005:  # would be shown as 0.00
                    continue
                axis = axes[j, first + place]
                if sources is None or sources[slot] is None:
                    text = f"slot {slot}" if sources is None else "initial values"
                    axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, transform=axis.transAxes)
                    axis.set_title(f"{weight:.2f}", fontsize=7)
                    continue
                axis.imshow(training_patches(sources[slot], j), cmap="gray", vmin=0, vmax=1)
                axis.set_title(f"{weight:.2f} of\n{training_patches.name(sources[slot])}", fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    cli.run(main)
