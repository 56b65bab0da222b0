"""Launches a function on workers through Ray Train and brings it through failures.

The function is called on every worker with a process group in place. When a worker or a node dies Ray starts the
whole group again, on fewer workers if need be, and the function finds its own way back from what it saved. How it
does that, and what it computes, is its own business.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.channel import Channel, Listener
from cluster.connecting import connect
from cluster.imports import python_path
from cluster.meeting import Limits
from cluster.room import check_room, device_of
from cluster.signals import call_until_stopped
from cluster.worker import Worker
from configs.errors import RunFailed, RunStopped, UserError
from configs.schema import LaunchConfig

if TYPE_CHECKING:
    from cluster.clues import Clues


class Launched(NamedTuple):
    """What is called on every worker, and with what."""

    function: Callable[[Any, Worker], Any]
    argument: Any
    environment: Mapping[str, str]
    """Variables of the workers' processes, there when they start."""
    storage: str
    """A folder that all nodes see, for Ray's own notes."""
    clues: "Clues"
    modules: Sequence[str] = ()
    """That the function imports."""


def launch(launched: Launched, config: LaunchConfig, show: Callable[[str], None]) -> Any:
    """Calls `function(argument, worker)` on every worker and returns what rank 0 returned.

    Ctrl-C, SIGTERM and a closed terminal ask the function to return early, see `Worker.stops`.

    Args:
        show: prints a line.

    Raises:
        UserError: a worker met a mistake of the user's, or the cluster has no room. Not tried again.
        RunFailed: more failures than `config.max_failures`.
        RunStopped: a second Ctrl-C.
    """
    environment = _environment(launched, config)
    connection = connect(config, environment)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    limits = Limits(config.max_failures, config.hang_timeout_s)
    channel = Channel.options(scheduling_strategy=here).remote(launched.clues, limits)  # pyright: ignore[reportAttributeAccessIssue] - what ray.remote adds
    listener = Listener(channel, show)
    # Not at the top: importing Ray Train takes a second, in which processes that were just started do the same.
    from ray.train import TrainingFailedError

    from cluster.group import group_of

    failure: TrainingFailedError | None = None
    try:
        device = device_of(config)
        check_room(config, device)
        trainer = group_of(launched, config, device, channel, environment, is_private=connection.is_private)
        call_until_stopped(trainer.fit, lambda: _ask_to_stop(channel, show))
    except TrainingFailedError as error:
        failure = error
    except KeyboardInterrupt:
        listener.close()
        ray.shutdown()  # ends this job's workers, wherever they are
        raise RunStopped("stopped at once: what was done since the last checkpoint is lost") from None
    finally:
        listener.close()
    mistake, given_up, result = ray.get(channel.outcome.remote())
    if connection.is_new:
        ray.shutdown()
    if mistake:
        raise UserError(mistake)
    if given_up:
        raise RunFailed(given_up)
    if failure:
        raise RunFailed(f"Ray ended the run: {str(failure).splitlines()[-1]}\n{failure}") from failure
    return result


def _environment(launched: Launched, launch: LaunchConfig) -> dict[str, str]:
    """Variables of the workers' processes."""
    return {**launched.environment, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": str(launch.cpus_per_worker)}


def _ask_to_stop(channel: Any, show: Callable[[str], None]) -> None:
    show("stopping: the workers save, and end (once more, and they stop at once)")
    ray.get(channel.ask_to_stop.remote())
