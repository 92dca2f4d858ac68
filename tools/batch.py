"""Train and evaluate all experiments of a list, over several seeds and all devices, and make their table.

    scripts/benchmark.sh zhang [--quick] [--seeds 0,1,2] [--data-root DIR] [--dry-run | --slurm | --table]

The scripts in scripts/ give the list. The same command again does only what is missing, and goes on with what was cut.
The table has what was asked for, and what else of the list is done: other lines, other seeds. NAME_runs.csv keeps its
runs: they stay in the table without their folders, until the same command trains them again.
Experiments that differ in a later stage alone (DDAD at several anomaly rates) share the stages before it.
A line of the list is an experiment: a name for the table, a configuration and its settings; after a ``|`` what --quick
adds to them, or has in their place where it begins with a configuration:

    SQUID    zhang_best          | digit_quick
    PaDiM    padim dataset=zhang | dataset=digit backbone=efficientnet_lite0
"""

import argparse
import json
import math
import shlex
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from filelock import FileLock, Timeout

import configs
from commands import cli
from commands.jobs import Job, describe, parse, places_for
from configs import BaseConfig, ConfigError
from dataloader import DataError, build_dataset
from experiments.folder import CHECKPOINTS, Experiment, reached
from experiments.settings import FREE, check_same
from models.features import pinned_file
from system.device import choose_device
from system.progress import in_words
from tools import paper_table
from tools.make_tables import Row
from tools.paper_table import finished
from training.repeat import shared_until

ROOT = Path(__file__).resolve().parent.parent
NEWS_SECONDS = 300.0  # from one word on what runs to the next
PRECISION_TOO = tuple(key for key in FREE if key != "precision")  # what may differ: a table says what was asked for


@dataclass(frozen=True)
class Planned:
    """One experiment: one line of the list with one seed."""

    name: str  # of the line
    seed: int
    experiment: Experiment
    table: str
    config_name: str
    settings: tuple[str, ...]
    source: "Planned | None" = None  # whose first stages are its own too
    stage: str = ""  # the first that is not

    @cached_property
    def config(self) -> BaseConfig:
        """Raises ConfigError."""
        try:
            return configs.build(self.config_name, [*self.settings, f"seed={self.seed}"])
        except ConfigError as error:
            raise ConfigError(f"{self.name}: {error}") from error

    def commands(self, more: list[str], shared: bool = True) -> list[list[str]]:
        """main.py's and eval.py's; ``more`` is what both get, ``shared`` whether the source's stages are taken over."""
        exp = ["--exp", self.experiment.name]
        settings = ["--set", *self.settings] if self.settings else []
        how = ["--config", self.config_name]
        if self.source and shared and not self.experiment.path("last.pt").exists():
            how = ["--from", self.source.experiment.name, "--stage", self.stage]
        train = ["main.py", *exp, *how, "--seed", str(self.seed), *settings, *more]
        return [[sys.executable, str(ROOT / command[0]), *command[1:]] for command in (train, ["eval.py", *exp, *more])]

    @property
    def can_share(self) -> bool:
        """Whether the source has trained the stages before ``stage``."""
        if not (self.source and self.source.experiment.path("last.pt").exists()):
            return False
        stages = self.config.stages()
        before = stages[: [each.name for each in stages].index(self.stage)]
        trained = reached(self.source.experiment.load_checkpoint("last.pt"))
        return trained >= sum(stage.epochs for stage in before)

    @property
    def state(self) -> str:
        """``done``, ``running`` (started by another command, and left to it), ``cut`` (begun) or ``to do``."""
        if finished(self.experiment, self.config):
            return "done"
        if any(is_held(lock) for lock in (self.in_work, self.experiment.path(".lock"))):
            return "running"
        return "cut" if self.experiment.exists() else "to do"

    @property
    def in_work(self) -> Path:
        """A lock that is held while it is trained and evaluated; main.py's own is of the training alone."""
        return logs_of(self.table) / f"{self.experiment.name}.lock"


def logs_of(table: str) -> Path:
    return CHECKPOINTS / f"{table}.logs"


def is_held(path: Path) -> bool:
    """Whether a process holds a lock, which may not be there."""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def main() -> int:
    args = arguments()
    lines, seeds = read_list(sys.stdin, args.quick), parse(args.seeds)
    wanted = chosen(lines, args.lines)
    points = [planned for planned in planned_of(args.name, lines, seeds) if planned.name in wanted]
    points = sharing(sorted(points, key=lambda p: (seeds.index(p.seed), wanted.index(p.name))))
    for planned in points:
        if planned.experiment.exists():
            remedy = f"Move {planned.experiment.folder} away, or delete it: the same command trains it anew."
            check_same(planned.experiment, planned.config, PRECISION_TOO, remedy)
    plan = list({planned.experiment.name: planned for planned in points}.values())
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: must be at least 1.")
    if args.only is not None:
        jobs = chains(plan)
        if not 0 <= args.only < len(jobs):
            raise ConfigError(f"--only {args.only}: there are {len(jobs)} jobs, counted from 0.")
        plan = jobs[args.only]
    more = [*(["--data-root", args.data_root] if args.data_root else []), "--device", args.device]
    if args.table and (args.slurm or args.only is not None):
        raise ConfigError("--table is of the whole list, and trains nothing: leave out --slurm and --only.")
    if args.dry_run:
        for planned in plan:
            print(f"# {planned.experiment.name}: {planned.state}")
            for command in planned.commands(more):
                print(shlex.join(["python", *command[1:]]))
        return 0
    if args.slurm:
        print(slurm_script(args, len(chains(plan))))
        return 0
    if args.finished:
        found = planned_of(args.name, lines, table_seeds(args.name, points))
        print("\n".join(dict.fromkeys(each.experiment.name for each in found if each.state == "done")))
        return 0
    if args.table:
        tabulate(args, lines, points)
        return 0
    check_data(plan, args.data_root)
    code = Batch(args, plan, more).run()
    if args.only is None:
        tabulate(args, lines, points)
    return code


def tabulate(args: argparse.Namespace, lines: dict[str, list[str]], points: list[Planned]) -> None:
    """The table of what was asked for (``points``), and what else of the list is done or was kept from before."""
    kept = paper_table.kept(args.name)
    asked = {(planned.name, planned.seed) for planned in points}
    seeds = table_seeds(args.name, points, kept)
    rows = [(p.name, p.seed, row_of(p, kept)) for p in planned_of(args.name, lines, seeds)]
    rows = [(name, seed, row) for name, seed, row in rows if row or (name, seed) in asked]
    rows.sort(key=lambda row: list(lines).index(row[0]))
    left_out = [name for name in lines if name not in {name for name, *_ in rows}]
    paper_table.write(args.name, args.script, rows, left_out, args.axis)


def own_parser() -> argparse.ArgumentParser:
    """What the script says of itself."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--name", required=True, help=argparse.SUPPRESS)  # experiments are NAME_LINE_sSEED
    parser.add_argument("--script", required=True, help=argparse.SUPPRESS)  # how it is called
    parser.add_argument("--axis", default="", help=argparse.SUPPRESS)  # what the points of all its curves are of
    parser.add_argument("--default-seeds", help=argparse.SUPPRESS)
    return parser


def default_seeds() -> str:
    """What the script says, before anything else is looked at."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--default-seeds", default="0,1,2")
    return parser.parse_known_args()[0].default_seeds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[own_parser()],
        allow_abbrev=False,  # the scripts look for the whole words too
    )
    parser.add_argument(
        "--quick", action="store_true", help="the same on DigitAnatomy, small and short, where the script has that"
    )
    parser.add_argument("--seeds", default=default_seeds(), metavar="N,N,…", help="default: %(default)s")
    parser.add_argument("--lines", metavar="A,B,…", help="these lines of the list alone, by their names")
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="at a time; default: one per GPU or core; more share GPUs"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and what is done of them")
    parser.add_argument("--slurm", action="store_true", help="print a job array for sbatch that does them")
    parser.add_argument("--only", type=int, metavar="I", help="the I-th job of the array alone")
    parser.add_argument("--finished", action="store_true", help="print the table's experiments that are done")
    parser.add_argument("--table", action="store_true", help="make the table of what is done, and train nothing")
    cli.add_data_root(parser)
    args = parser.parse_args()
    args.name += "_quick" if args.quick else ""
    return args


def read_list(text: TextIO, quick: bool) -> dict[str, list[str]]:
    """Every line's name → its configuration and settings.

    Raises:
        ConfigError: for a line that is no experiment, two of one name, or none.
    """
    lines = {}
    for line in text:
        try:
            full, _, short = (shlex.split(part) for part in line.partition("|"))
        except ValueError as error:
            raise ConfigError(f"{line.strip()!r}: {error}. Mend the line.") from error
        if not full:
            continue
        name, *words = full
        if "," in name:
            raise ConfigError(f"{name}: --lines parts names at commas. Write none in a name.")
        _, at, value = name.partition("@")
        if at and not is_number(value):
            raise ConfigError(f"{name}: {value!r} is no point of a curve. Write a number after the @.")
        if quick and not short:
            raise ConfigError(f"--quick: {name} has no settings for it. Give some after a |.")
        if quick:
            words = words + short if "=" in short[0] else short
        if not words or name in lines:
            raise ConfigError(
                f"{line.strip()!r}: {'a second line of that name' if words else 'no configuration. Name one'}."
            )
        lines[name] = words
    if not lines:
        raise ConfigError("The list of experiments is empty: give a line for each on stdin, as the scripts do.")
    return lines


def chosen(lines: dict[str, list[str]], given: str | None) -> list[str]:
    """The names of --lines, else all. Raises ConfigError."""
    wanted = given.split(",") if given else list(lines)
    if unknown := [name for name in wanted if name not in lines]:
        raise ConfigError(f"--lines {given}: no line {unknown[0]}; there are {', '.join(lines)}.")
    return wanted


def planned_of(table: str, lines: dict[str, list[str]], seeds: Iterable[int]) -> list[Planned]:
    """Every line with every seed; lines of equal settings share the first one's experiment.

    Raises:
        ConfigError: for settings that cannot be.
    """
    plan, first, taken = [], {}, {}  # settings → the experiment that has them; its name → its settings
    for seed, (name, (config_name, *settings)) in product(seeds, lines.items()):
        own = Experiment(f"{table}_{identifier(name)}_s{seed}")
        planned = Planned(name, seed, own, table, config_name, tuple(settings))
        of_settings = json.dumps([config_name, planned.config.as_dict()])
        if taken.setdefault(own.name, of_settings) != of_settings:
            raise ConfigError(f"{name}: another line's experiment is called {own.name} too. Give it another name.")
        plan.append(replace(planned, experiment=first.setdefault(of_settings, planned.experiment)))
    return plan


def sharing(plan: list[Planned]) -> list[Planned]:
    """The plan, each with the one before it whose first stages are its own too."""
    plan = list(plan)
    for i, planned in enumerate(plan):
        for earlier in plan[:i]:
            # what the earlier one sets and the later does not, --from would hand on to it
            set_in_both = {key_of(each) for each in earlier.settings} <= {key_of(each) for each in planned.settings}
            whole = earlier.source is None and earlier.config_name == planned.config_name and set_in_both
            stage = shared_until(earlier.config, planned.config) if whole else None
            if stage and earlier.experiment.name != planned.experiment.name:
                plan[i] = replace(planned, source=earlier, stage=stage)
                break
    return plan


def is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def key_of(setting: str) -> str:
    return setting.partition("=")[0]


def table_seeds(table: str, points: Iterable[Planned], kept: Iterable[str] = ()) -> list[int]:
    """The seeds of what was asked for and of the table's experiments, in checkpoints/ or ``kept``."""
    names = [*(path.name for path in CHECKPOINTS.glob(f"{table}_*_s*")), *kept]
    found = {int(seed) for _, _, seed in (name.rpartition("_s") for name in names) if seed.isdecimal()}
    return sorted(found | {planned.seed for planned in points})


def row_of(planned: Planned, kept: Mapping[str, Row]) -> Row | None:
    """An experiment's row for the table, as done, else as kept; None where neither is of these settings."""
    if planned.state == "done":
        return paper_table.main_row(planned.experiment)
    row = kept.get(planned.experiment.name)
    return row | {"kept": True} if row and paper_table.is_as_asked(row, planned.config) else None


def chains(plan: list[Planned]) -> list[list[Planned]]:
    """What can be done side by side: every experiment of its own, and after it those that share its first stages."""
    found = defaultdict(list)
    for planned in plan:
        found[(planned.source or planned).experiment.name].append(planned)
    return list(found.values())


def identifier(name: str) -> str:
    """A line's name as it may stand in an experiment's."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)


def check_data(plan: list[Planned], data_root: str | None) -> None:
    """Before anything is trained, see that every dataset is there, with as many images of each kind as are asked for,
    and fetch the weights of frozen networks.

    Raises:
        DataError, WeightsError: where one is not; it says where to get it, of every dataset at once.
    """
    to_do = [planned.config for planned in plan if planned.state != "done"]
    missing = {}  # what is said of each dataset that is not there
    seen = set()
    for config in to_do:
        asks_for = (config.dataset, config.train_normal_fraction, config.contamination, config.unlabeled())
        if asks_for in seen:
            continue
        seen.add(asks_for)
        try:
            build_dataset(config, data_root).fingerprint()
        except DataError as error:
            missing.setdefault(config.dataset, str(error))
    if missing:
        raise DataError("\n".join(missing.values()))
    for backbone in sorted({config.backbone for config in to_do if getattr(config, "weights", "") == "imagenet"}):
        pinned_file(backbone)


class Batch:
    """Runs what is missing, in as many places as there are, until all is done or something fails."""

    def __init__(self, args: argparse.Namespace, plan: list[Planned], more: list[str]):
        self.plan, self.more = plan, more
        states = {planned: planned.state for planned in plan}
        self.waiting = chains([planned for planned, state in states.items() if state in ("cut", "to do")])
        self.counts = Counter(states.values())
        # by all that is asked for: a run that goes on has as many threads as it had
        work = len(chains(plan))
        at_a_time = min(work, args.jobs or work)
        self.places = places_for(at_a_time, choose_device(args.device), shared=bool(args.jobs))[:at_a_time]
        self.job = Job(self.places)
        self.logs = logs_of(args.name)
        self.failed = False
        self.running: list[str] = []  # the experiments in work here
        self.left = {
            planned.experiment.name: planned.name for planned in plan if states[planned] != "done"
        }  # → its line
        self.seconds: dict[str, list[float]] = defaultdict(list)  # that a line's experiments done here took
        self.lock = threading.Lock()
        self.over = threading.Event()

    def run(self) -> int:
        """The exit code."""
        counts = self.counts
        self.logs.mkdir(parents=True, exist_ok=True)
        print(f"{len(self.plan)} experiments: {counts['done']} done, {counts['running']} running elsewhere, "
              f"{counts['cut']} cut, {counts['to do']} to do; {len(self.places)} at a time; "
              f"what they say: {self.logs}", flush=True)  # fmt: skip
        started = time.monotonic()
        news = threading.Thread(target=self.tell, daemon=True)
        news.start()
        with self.job.signals_passed_on(), ThreadPoolExecutor(len(self.places)) as pool:
            list(pool.map(self.chain, self.waiting))
        self.over.set()
        news.join()
        if here := sum(map(len, self.seconds.values())):
            print(f"{here} experiments in {in_words(time.monotonic() - started)}", flush=True)
        if self.job.stop_signal:
            print("Stopped; the same command goes on.", file=sys.stderr)
            return 128 + self.job.stop_signal
        return 1 if self.failed else 0

    def chain(self, planned: list[Planned]) -> None:
        for each in planned:
            if each.state not in ("cut", "to do"):  # another command took it up since
                continue
            with suppress(Timeout), FileLock(each.in_work, timeout=0):
                self.one(each)

    def one(self, planned: Planned) -> None:
        """Train and evaluate one, and say what became of it."""
        name = planned.experiment.name
        started = time.monotonic()
        self.running.append(name)
        done = self.succeeds(planned)
        took = time.monotonic() - started
        with self.lock:
            self.running.remove(name)
            if not done:
                return
            self.seconds[self.left.pop(name)].append(took)
            others = f" ({', '.join(self.running)} running)" if self.running else ""
            done = f"{len(self.plan) - len(self.left)}/{len(self.plan)}"
            print(
                f"[{done}] {name}: {paper_table.in_words(planned.experiment)}, "
                f"{in_words(took)}; {len(self.left)} left, about {in_words(self.expected())}{others}",
                flush=True,
            )

    def expected(self) -> float:
        """The seconds that what is left takes: as long as other seeds of its line took here, else as all did."""
        every = [seconds for of_line in self.seconds.values() for seconds in of_line]
        of_each = [mean(self.seconds[line] or every) for line in self.left.values()]
        return sum(of_each) / min(len(self.places), max(len(of_each), 1))

    def tell(self) -> None:
        """Every few minutes, how far the experiments in work are."""
        while not self.over.wait(NEWS_SECONDS):
            for name in list(self.running):
                print(f"{name}: {latest(self.logs / f'{name}.txt')}", flush=True)

    def succeeds(self, planned: Planned) -> bool:
        """Run its commands. After one that fails, which is said at once, nothing more begins."""
        name, log = planned.experiment.name, self.logs / f"{planned.experiment.name}.txt"
        for command in planned.commands(self.more, planned.can_share):
            if self.failed:
                return False
            with open(log, "a", encoding="utf-8") as file:
                code = self.job.run(name, command, file)
            if self.job.stop_signal:
                return False
            if code:
                self.failed = True
                what = f"{Path(command[1]).name} of {name}: {describe(code)}; what it said: {log}"
                print(f"error: {what}", file=sys.stderr, flush=True)
                return False
        return True


def latest(log: Path) -> str:
    """Where a training is, by the last line that it printed: the epoch and the time left, without what is between."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    parts = lines[-1].split("  ") if lines else ["begins"]
    return " … ".join(dict.fromkeys((parts[0], parts[-1])))


def slurm_script(args: argparse.Namespace, count: int) -> str:
    """A job array, a job for each of :func:`chains`."""
    _, given = own_parser().parse_known_args()
    given.remove("--slurm")
    if not any(each.partition("=")[0] == "--seeds" for each in given):
        given += ["--seeds", args.seeds]
    return "\n".join([
        "#!/usr/bin/env bash",
        f"#SBATCH --job-name={args.name}",
        f"#SBATCH --array=0-{count - 1}",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --cpus-per-task=4",
        "# after it, the same script with --table in place of --slurm makes the table",
        f'{args.script} {shlex.join(given)} --only "$SLURM_ARRAY_TASK_ID"',
    ])  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
