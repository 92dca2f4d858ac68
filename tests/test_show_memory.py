"""What the memories learned: where a queue's slots come from, and the figures."""

from itertools import product

import pytest
import torch
from PIL import Image
from tiny import TINY, command, train

import configs
from dataloader import build_dataset
from dataloader.loader import TrainLoader
from experiments.folder import Experiment
from methods import METHODS
from models.memory import MemoryQueue
from tools import show_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize("signalled_at", [None, 7])  # a checkpoint between epochs, and one inside the second
@pytest.mark.parametrize("method", ["squid"])
def test_every_slot_is_traced_to_the_image_it_was_made_of(workspace, monkeypatch, method, signalled_at):
    written = {}  # slot → (epoch, index), as training writes them
    seen = []
    original_batches, original_enqueue = TrainLoader.epoch, MemoryQueue.enqueue

    def watched_epoch(self, number, *stage):
        epoch = original_batches(self, number, *stage)
        batches = epoch.batches

        def watched(start=0):
            for batch in batches(start):
                seen.append((number, batch.indices))
                yield batch

        epoch.batches = watched
        return epoch

    def watched_enqueue(self):
        number, index = seen[-1]
        for i, image in enumerate(index.tolist()):
            written[(int(self.pointer) + i) % self.slots.shape[1]] = (number, image)
        return original_enqueue(self)

    monkeypatch.setattr(TrainLoader, "epoch", watched_epoch)
    monkeypatch.setattr(MemoryQueue, "enqueue", watched_enqueue)
    if signalled_at:
        stop_after(monkeypatch, METHODS[method], signalled_at)
    slots = 30  # not a multiple of what an epoch writes
    train("a", method=method, overrides=[f"queue_slots={slots}"])
    monkeypatch.undo()
    monkeypatch.chdir(workspace)

    experiment = Experiment("a")
    _, config, _ = experiment.load_config()
    trained = METHODS[method](config)
    checkpoint = experiment.load_weights("last", trained)
    epochs, batches = show_memory.position(checkpoint)
    assert (epochs, batches) == ((1, 2) if signalled_at else (2, 0))
    loader = TrainLoader(build_dataset(config), config, CPU)
    memory = trained.generator.inpaint.memory
    sources = show_memory.queue_sources(loader, config.n_critic, memory, epochs, batches)
    assert len(written) == slots and {i: tuple(s) for i, s in enumerate(sources)} == written


def stop_after(monkeypatch, cls, steps):
    import os
    import signal

    original, taken = cls.training_step, []

    def signalled(self, batch):
        taken.append(batch.step)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    monkeypatch.setattr(cls, "training_step", signalled)


def test_slots_that_were_never_written_have_no_source():
    config = configs.build(TINY["squid"][0], [*TINY["squid"][1], "queue_slots=50"])
    memory = MemoryQueue(9, 50, 4, METHODS["squid"](config).generator.inpaint.memory.addressing)
    memory.pointer.fill_(24)  # one epoch of 40 images: batches 0, 2, 4 of 8
    loader = TrainLoader(build_dataset(config), config, CPU)
    sources = show_memory.queue_sources(loader, 2, memory, 1, 0)
    assert [s is None for s in sources] == [False] * 24 + [True] * 26
    order = torch.cat([loader.epoch(0).indices[b] for b in (0, 2, 4)]).tolist()
    assert [s.index for s in sources[:24]] == order


@pytest.mark.parametrize(
    ("folders", "shown"),
    [
        (["train/good", "test/good", "test/bad"], ["test/good/0.png", "test/bad/0.png"]),
        (["train/good", "test/bad"], ["test/bad/0.png"]),
        (["mine"], [""]),  # one of those held out
    ],
)
def test_images_of_each_class_that_is_there_are_shown(tmp_path, folders, shown):
    for folder, i in product(folders, range(6)):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.new("L", (48, 48), 20 * i).save(tmp_path / folder / f"{i}.png")
    config = configs.build(TINY["squid"][0], ["dataset=folder"])
    images, names = show_memory.chosen_images([], config, build_dataset(config, str(tmp_path)))
    assert len(images) == len(names) == len(shown) and all(map(str.endswith, names, shown))


@pytest.mark.parametrize(
    "overrides",
    [["--config", "digit_quick"],
     pytest.param(["--config", "simsid_zhang", "bottleneck=matrix"], marks=pytest.mark.slow),
     ["--config", "simsid_zhang", "hierarchical=true", "skip_weights="]],
)  # fmt: skip
def test_figures_of_queue_matrix_and_hierarchy(workspace, capsys, overrides):
    tiny = [*TINY["squid" if "digit_quick" in overrides else "simsid"][1], "epochs=1"]
    assert command("main", "--exp", "a", *overrides[:2], "--device", "cpu", "--set", *tiny, *overrides[2:]) == 0
    Image.new("L", (40, 40), 90).save(workspace / "x.png")
    for paths in ([], [workspace / "x.png"]):
        assert command("show_memory", "--exp", "a", *paths, module=show_memory) == 0
    for name in ("memory_usage", "memory_sources"):
        assert Image.open(workspace / "checkpoints" / "a" / "figures" / f"{name}.png").size[0] > 300
