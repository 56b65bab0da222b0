"""Calls a command's function on workers, with its logs below a folder that all hosts see."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.schema import Config
from trainer.commands.screen import say

if TYPE_CHECKING:
    from cluster.worker import Worker


def call_on_workers(
    function: "Callable[[Any, Worker], Any]", argument: Any, config: Config, *, folder: Path, logs: str
) -> Any:
    """What `function(argument, worker)` returned on rank 0. logs: where below `folder` it puts the log of each rank."""
    from cluster.launch import Launched, launch
    from trainer.data.reading.allocation import ALLOCATION

    clues = RunClues(folder, logs)
    return launch(
        Launched(function, argument, ALLOCATION, str(folder / "logs" / "ray"), clues, ["trainer.train"]),
        config.launch,
        say,
    )


@dataclass(frozen=True)
class RunClues:
    """Where the logs of a run's ranks are, and how far it is, from what lies in its folder."""

    folder: Path
    logs: str

    def log_of(self, rank: int) -> str:
        name = f"rank_{rank}.log"
        found = max(self.folder.glob(f"{self.logs}/{name}"), key=lambda path: path.stat().st_mtime, default=None)
        return str(found.resolve() if found else self.folder / self.logs / name)  # `latest` moves on

    def progress(self) -> str:
        from trainer.telemetry.metrics_file import read_metrics

        lines = read_metrics(self.folder / "metrics.jsonl")
        return f"after step {lines[-1]['step']:,}" if lines else ""

    def saved(self) -> str:
        """Changes whenever the run has saved a step further on; empty where nothing is saved. Reads names alone."""
        from trainer.checkpoint.there import newest_step
        from trainer.run.folder import Folder

        step = newest_step(Folder(self.folder / "checkpoints"))
        return "" if step is None else f"step {step:,}"
