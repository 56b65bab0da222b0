"""What links between checkpoints cost and what they bring, at a config, disk included.

    python -m benchmarks.deltas CONFIG [key=value ...] [--seconds 5] [--rounds 6] [--folder DIR] [--json]

The trainer's own loop with its reader, one worker, twice in this process, in turns: once with a link every half second,
with bases merged beside it, and once without any checkpoint. A merge rests while the other run has its turn, so that it
costs the one that wants it. `--json` ends with one object:

- `throughput_share`: examples per second with links over those without, median of the rounds' ratios.
- `bytes_share`: bytes of a link's rows, for each row touched, over the bytes of a row in a full checkpoint.
- `restore_ratio`: time to find, check and load base and chain, as they are at the end of a turn, over that of the same
  state in one base; the median of the turns, with the largest beside it.
- `lost_p99_s`: where all workers are killed at a random moment: seconds of training after the newest link that is
  complete. Of all moments of the turns, from when each step began and each link was complete.
- `marking_share`: of the time of a step, what the marks of the row log take.
"""

import json
import shutil
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fit_turns import Runs
from benchmarks.one_worker import finish, parser, start
from cluster.worker import Worker
from configs.schema import Config
from embeddings.row_stamps import RowStamps
from trainer.checkpoint import link_files
from trainer.checkpoint.attempts import FOLDER, Attempt
from trainer.checkpoint.chain import State
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import INDEX, delete, folder_name
from trainer.checkpoint.merge import merge
from trainer.checkpoint.state import training_state
from trainer.checkpoint.there import newest_by_marks
from trainer.prepare import prepare_run
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory
from trainer.run.saved_names import is_weight
from trainer.session import Session, open_session

EVERY_S = 0.5
NEVER = 10**9


def config_of(config: Config, run_dir: Path, every_s: float | None) -> Config:
    """The config without end, without evaluations, and with links alone."""
    training = {"run_dir": str(run_dir), "epochs": 10**6, "max_steps": None, "evaluate_every": NEVER}
    training |= {"gradient_cosines_every": 0}
    checkpoint = {"every_steps": 0, "delta_every_s": every_s, "delta_every_steps": 0}
    changed = config.model_dump()
    changed["training"] |= training
    changed["checkpoint"] |= checkpoint
    return Config.model_validate(changed)


def opened(stack: ExitStack, config: Config, worker: Worker) -> Session:
    prepare_run(config, resume=False, overwrite=False, say=lambda line: None)
    return stack.enter_context(open_session(config, RunDirectory(config.training.run_dir), worker))


class Links:
    """What the session with links does, seen from outside."""

    def __init__(self, session: Session, folder: Path) -> None:
        self.completed: list[tuple[float, int]] = []  # clock, step
        self.marking = 0.0
        self.clock = time.perf_counter
        self.ratios: list[float] = []
        self.bytes: list[float] = []
        self.chains: list[int] = []
        self._sizes: list[float] = []
        self._session, self._folder = session, folder
        upkeep, mark = session.checkpointer.upkeep, RowStamps.mark_bags
        after_link = upkeep.after_link

        def noted(state: State, *, base_wanted: bool) -> State:
            self.completed.append((self.clock(), state.step))
            return after_link(state, base_wanted=base_wanted)

        def timed(*arguments: Any) -> None:
            began = time.perf_counter()
            mark(*arguments)
            self.marking += time.perf_counter() - began

        upkeep.after_link, RowStamps.mark_bags = noted, timed

    def rest(self) -> None:
        self._session.checkpointer.wait()
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        merging = self._session.checkpointer.upkeep._merge
        if merging is not None and merging[0].poll() is None:
            merging[0].send_signal(number)

    def mib(self) -> float:
        """Of a link."""
        return statistics.median(self._sizes)

    def measure_files(self) -> None:
        """Of the chain as it is now; the session rests."""
        here = self._session.checkpointer.folder
        state = newest_by_marks(here)
        assert state is not None
        self.chains.append(len(state.links))
        self.bytes += [_bytes_share(state, link) for link in state.links]
        self._sizes += [link.size / 2**20 for link in state.links]
        with (
            tempfile.TemporaryDirectory(dir=self._folder) as chained,
            tempfile.TemporaryDirectory(dir=self._folder) as plain,
        ):
            for copy in (chained, plain):
                shutil.copytree(here.path, copy, dirs_exist_ok=True)
            _merge_all(Folder(plain))
            _forget_unfinished(Folder(chained), state)
            times = defaultdict(list)
            for _ in range(3):
                for name, copy in (("chained", chained), ("plain", plain)):
                    times[name].append(self._restore(copy))
            self.ratios.append(min(times["chained"]) / min(times["plain"]))

    def _restore(self, folder: str) -> float:
        built = self._session.built
        target = training_state(built.model, built.optimizer)
        began = time.perf_counter()
        checkpointer = Checkpointer(folder, self._session.config.checkpoint, {})
        checkpointer.may_be_undefined = self._session.checkpointer.may_be_undefined
        loaded = checkpointer.load(dict(target))
        assert loaded is not None
        return time.perf_counter() - began


def _merge_all(checkpoints: Folder) -> None:
    """One base is left, of the newest state."""
    state = newest_by_marks(checkpoints)
    assert state is not None
    if state.links:
        merge(checkpoints, state, Attempt(checkpoints.child(FOLDER), 1))
    for name in checkpoints.names():
        if name.startswith("step_") and name != folder_name(state.step):
            delete(checkpoints.child(name))
    delete(checkpoints.child(link_files.FOLDER))


def _forget_unfinished(checkpoints: Folder, state: State) -> None:
    """Bases but the one of the state."""
    for name in checkpoints.names():
        if name.startswith("step_") and name != folder_name(state.base.step):
            delete(checkpoints.child(name))


def _bytes_share(state: State, link: link_files.Link) -> float:
    files = {entry.file for entry in link.rows}
    touched = _weights_rows((entry.name, entry.count, entry.column) for entry in link.rows)
    written = sum(link.files[name].size for name in files)
    index = json.loads(state.base.folder.read_bytes(INDEX))
    names = {entry.name for entry in link.rows}
    sizes = {"float32": 4, "float16": 2}
    whole = sum(int(np.prod(index[name]["size"])) * sizes[index[name]["dtype"]] for name in names)
    rows = sum(index[name]["size"][0] for name in names if is_weight(name))
    return written / touched / (whole / rows)


def _weights_rows(entries: Any) -> int:
    return sum(count for name, count, column in entries if is_weight(name) and column == 0)


def lost_seconds(begun: list[float], completed: list[tuple[float, int]], first: float) -> np.ndarray:
    """At moments 5 ms apart, from `first` on: seconds since the step began that follows the newest link."""
    moments = np.arange(first, begun[-1], 0.005)
    times = np.array([at for at, _ in completed])
    steps = np.array([step for _, step in completed])
    newest = np.searchsorted(times, moments, side="right") - 1
    known = newest >= 0
    return moments[known] - np.array(begun)[steps[newest[known]]]


def main() -> None:
    made = parser(__doc__, steps=0, rounds=6)
    made.add_argument("--seconds", type=float, default=5.0, help="of a turn")
    made.add_argument("--folder", help="On the disk to measure; default: the temporary folder.")
    arguments = made.parse_args()
    config = start(arguments, "benchmarks.deltas").config
    worker = Worker(0, 1, 0, 1, "localhost", "cpu", lambda line: None)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, ExitStack() as stack:
        sessions = {
            name: opened(stack, config_of(config, Path(folder) / name, every_s), worker)
            for name, every_s in (("links", EVERY_S), ("none", None))
        }
        sessions["none"].checkpointer.save = lambda *_, **__: 0.0  # pyright: ignore[reportAttributeAccessIssue]
        values = measure(sessions, Links(sessions["links"], Path(folder)), arguments.rounds, arguments.seconds)
        shutil.rmtree(folder, ignore_errors=True)
        finish(values, arguments.json)


def measure(sessions: dict[str, Session], links: Links, rounds: int, seconds: float) -> dict[str, float]:
    runs = Runs(sessions)
    links.clock = lambda: runs.clock("links")
    runs.train("links", 3.0)  # the first base
    links.rest()
    first, links.marking, speeds = len(runs.begun["links"]), 0.0, defaultdict(list)
    for _ in range(rounds):
        for name in sessions:
            if name == "links":
                links.go_on()
            turn = runs.train(name, seconds)
            if name == "links":
                links.rest()
                links.measure_files()
            speeds[name].append(turn.steps / turn.seconds)
    begun = runs.begun["links"]
    lost = lost_seconds(begun, links.completed, begun[first] + 1)
    newest = newest_by_marks(sessions["links"].checkpointer.folder)
    assert newest is not None
    links.go_on()
    sessions["links"].checkpointer.close()
    shares = [with_links / none for with_links, none in zip(speeds["links"], speeds["none"], strict=True)]
    return {
        "throughput_share": statistics.median(shares),
        "bytes_share": statistics.median(links.bytes),
        "restore_ratio": statistics.median(links.ratios),
        "restore_ratio_largest": max(links.ratios),
        "lost_p99_s": float(np.percentile(lost, 99)),
        "marking_share": links.marking / (begun[-1] - begun[first]),
        "throughput_share_smallest": min(shares),
        "throughput_share_largest": max(shares),
        "lost_median_s": float(np.percentile(lost, 50)),
        "steps_per_second": statistics.median(speeds["links"]),
        "links": statistics.median(links.chains),
        "base_mib": newest.base.size / 2**20,
        "link_mib": links.mib(),
    }


if __name__ == "__main__":
    main()
