"""Calls a command's function on workers, with its logs below a folder that all hosts see."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.schema import Config
from trainer.commands.screen import say

if TYPE_CHECKING:
    from cluster.launch import Worker


def call_on_workers(
    function: "Callable[[Any, Worker], Any]", argument: Any, config: Config, *, folder: Path, logs: str
) -> Any:
    """What `function(argument, worker)` returned on rank 0. logs: where below `folder` it puts the log of each rank."""
    from cluster.launch import launch

    hint, storage = folder / logs / "rank_{rank}.log", folder / "logs" / "ray"
    return launch(function, argument, config.launch, storage=str(storage), show=say, log_hint=str(hint))
