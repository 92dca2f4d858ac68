"""How far a training is, in a log and on a screen, where no bar is seen: by a clock of the test's own."""

import re

import pytest
import torch
from conftest import same
from tiny import TINY, command, train

import configs
from configs import Stage
from methods import Method
from system.progress import in_words, watched
from training.progress import Progress

STAGES = (Stage("gan", 3, 4), Stage("encoder", 2, 4))


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("training.progress.monotonic", clock)
    monkeypatch.setattr("system.progress.monotonic", clock)
    return clock


def test_an_epoch_speaks_once_a_minute_and_a_short_one_never(clock):
    progress = Progress(STAGES)
    progress.begin(0, 0)
    spoken = {}
    for batch in range(1, 21):
        clock.now += 25
        if line := progress.line(batch, 20):
            spoken[batch] = line
    assert list(spoken) == [3, 6, 9, 12, 15, 18]  # 75 s after one another
    # 17 batches, and two epochs of 20, at 25 s each
    assert spoken[3] == "epoch 1/5, batch 3 of 20, 25 s a batch, about 24 min left in the stage gan"
    assert progress.end() == 500
    progress.begin(1, 0)
    for batch in range(1, 21):
        clock.now += 2.9
        assert progress.line(batch, 20) is None


def test_what_is_left_is_of_the_stage_and_by_the_median_of_whole_epochs(clock):
    progress = Progress((Stage("train", 6, 4),))
    left = []
    for epoch, (first, seconds) in enumerate([(5, 10), (0, 4000), (0, 3600), (0, 50_000), (0, 3600), (0, 3600)]):
        progress.begin(epoch, first)
        clock.now += seconds
        assert progress.end() == seconds
        left.append(progress.left)
    assert left == [
        "", ", about 4 h 27 min left", ", about 3 h 10 min left", ", about 2 h 13 min left", ", about 63 min left", "",
    ]  # fmt: skip

    progress = Progress(STAGES)
    left = []
    for epoch, seconds in enumerate([100, 100, 100, 7, 7]):
        progress.begin(epoch, 0)
        clock.now += seconds
        progress.end()
        left.append(progress.left)
    assert left == [", about 3 min left in the stage gan", ", about 2 min left in the stage gan", "",
                    ", about 7 s left", ""]  # fmt: skip


def test_a_resumed_epoch_is_timed_from_where_it_went_on(clock):
    progress = Progress((Stage("train", 2, 4),))
    progress.begin(0, 8)
    clock.now += 80
    # of 4 batches, at 20 s each: 8 more, and 20 of the next epoch
    assert progress.line(12, 20) == "epoch 1/2, batch 12 of 20, 20 s a batch, about 9 min left"
    progress.begin(1, 0)
    clock.now += 400
    assert progress.line(20, 20) == "epoch 2/2, batch 20 of 20, 20 s a batch"


def test_long_work_speaks_once_a_minute_in_a_log(clock, capsys):
    seen = []
    for item in watched("abcdefgh", "reading"):
        seen.append(item)
        clock.now += 25
    assert "".join(seen) == "abcdefgh"
    assert capsys.readouterr().err.splitlines() == [
        "reading: 3 of 8, about 2 min left", "reading: 6 of 8, about 50 s left"
    ]  # fmt: skip


def test_long_work_has_a_bar_on_a_terminal(clock, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(watched(iter("ab"), "reading", 2)) == ["a", "b"]
    assert "reading:" in capsys.readouterr().err and clock.now == 1000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (22_320, "6 h 12 min"), (5400, "1 h 30 min"),
     (273_600, "3 d 4 h")],
)  # fmt: skip
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words


def test_long_epochs_speak_in_the_log_and_nothing_else_changes(workspace, trained, clock, monkeypatch, capsys):
    quick = trained("quick", "ae")
    original = Method.training_step

    def slow(self, batch):
        clock.now += 45
        return original(self, batch)

    monkeypatch.setattr(Method, "training_step", slow)
    capsys.readouterr()
    assert train("slow", method="ae") == 0
    log, out = (workspace / "checkpoints" / "slow" / "log.txt").read_text(), capsys.readouterr().out
    lines = [
        "epoch 1/2, batch 2 of 3, 45 s a batch, about 3 min left",
        "epoch 2/2, batch 2 of 3, 45 s a batch, about 45 s left",
    ]
    for text in (log, out):
        assert re.findall(r"epoch ./2, .*", text) == lines
        assert re.findall(r"135\.0 s.*", text) == ["135.0 s, about 2 min left", "135.0 s"]
    for name in ("last.pt", "best.pt"):
        a, b = (torch.load(f / name, weights_only=True) for f in (quick, workspace / "checkpoints" / "slow"))
        assert same(a | {"seconds": 0}, b | {"seconds": 0})
    assert "epoch 1/2," not in (quick / "log.txt").read_text()


def test_a_stage_repeated_counts_the_seconds_of_all_epochs_before_it(workspace, trained):
    folder = trained("a", "ddad")
    log = (folder / "log.txt").read_text()
    log = re.sub(r"\((udm|ndm)\)(.*)  [\d.]+ s.*", r"(\1)\2  100.5 s, about 3 h 2 min left in the stage \1", log)
    begun = "2026-01-01 00:00:00  epoch 2/4, batch 3 of 4, 0.6 s a batch, about 5.5 s left\n"
    (folder / "log.txt").write_text(log.replace("epoch 3/4", f"{begun[21:-1]}\n2026-01-01 00:00:00  epoch 3/4", 1))
    assert command("main", "--exp", "b", "--from", "a", "--stage", "refine", "--device", "cpu") == 0
    rows = (workspace / "checkpoints" / "b" / "log.txt").read_text()
    assert "batch 3 of 4" not in rows
    seconds = torch.load(workspace / "checkpoints" / "b" / "last.pt", weights_only=True)["seconds"]
    assert 201 <= seconds < 400


# -- --try ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", configs.names())
def test_a_try_shortens_every_stage_of_every_configuration(name):
    config = configs.build(name)
    short = configs.override(config, configs.trial(config))
    assert all(stage.epochs == 1 and stage.batch_size <= 8 for stage in short.stages())
    assert 1 <= short.max_batches <= 10
    changed = {key for key, value in short.as_dict().items() if value != config.as_dict()[key]}
    assert all("epochs" in key or "batch" in key for key in changed)


def test_a_try_is_an_experiment_of_its_own_and_can_be_evaluated(workspace, capsys):
    settings = TINY["ddad"][1]
    arguments = ["--config", TINY["ddad"][0], "--device", "cpu", "--set", *settings, "refine_epochs=50"]
    assert command("main", "--exp", "a", "--try", *arguments) == 0
    assert [path.name for path in (workspace / "checkpoints").iterdir()] == ["a_try"]
    rows = (workspace / "checkpoints" / "a_try" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3 and '"step": 6' in rows[-1]
    assert command("main", "--exp", "a", "--try", *arguments) == 0
    assert "is finished: 3 epochs" in capsys.readouterr().out
    assert command("eval", "--exp", "a_try", "--device", "cpu") == 0
    results = (workspace / "checkpoints" / "a_try" / "results.json").read_text()
    assert "max_batches: 0 \\u2192 2" in results and "refine_epochs: 100 \\u2192 1" in results


@pytest.mark.parametrize("arguments", [[], ["--config", "ae", "--seeds", "0,1"], ["--from", "b", "--stage", "x"]])
def test_a_try_is_of_one_configuration(workspace, capsys, arguments):
    assert command("main", "--exp", "a", "--try", *arguments) == 2
    assert "--try goes with --config, without --seeds and --from" in capsys.readouterr().err


def test_a_trial_sees_that_images_are_too_few_for_a_whole_batch(workspace, capsys):
    arguments = ["--config", TINY["ae"][0], "--set", *TINY["ae"][1], "batch_size=64", "--device", "cpu"]
    assert command("main", "--exp", "a", "--try", *arguments) == 1
    assert "trains on 24 images, fewer than its batch of 64" in capsys.readouterr().err
    assert not (workspace / "checkpoints" / "a_try").exists()
