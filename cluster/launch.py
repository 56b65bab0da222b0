"""Launches a function on workers through Ray Train and brings it through failures.

The function is called on every worker with a process group in place. When a worker or a node dies Ray starts the
whole group again, on fewer workers if need be, and the function finds its own way back from what it saved. How it
does that, and what it computes, is its own business.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train.torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.channel import Channel, Listener
from cluster.connecting import connect
from cluster.failures import Clues, TellFailures, failure_lines
from cluster.room import check_room, device_of
from cluster.signals import call_until_stopped
from cluster.worker import Worker
from configs.errors import RunFailed, RunStopped, UserError
from configs.schema import LaunchConfig


class Launched(NamedTuple):
    """What is called on every worker, and with what."""

    function: Callable[[Any, Worker], Any]
    argument: Any
    environment: Mapping[str, str]
    """Variables of the workers' processes, there when they start."""
    storage: str
    """A folder that all nodes see, for Ray's own notes."""
    clues: Clues


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
    started = connect(config)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel = Channel.options(scheduling_strategy=here).remote()  # pyright: ignore[reportAttributeAccessIssue] - what ray.remote adds
    listener = Listener(channel, show)
    failure: TrainingFailedError | None = None
    try:
        trainer = _trainer(launched, config, channel)
        call_until_stopped(trainer.fit, lambda: _ask_to_stop(channel, show))
    except TrainingFailedError as error:
        failure = error
    except KeyboardInterrupt:
        listener.close()
        ray.shutdown()  # ends this job's workers, wherever they are
        raise RunStopped("stopped at once: what was done since the last checkpoint is lost") from None
    finally:
        listener.close()
    mistake, result, hosts = ray.get([channel.mistake.remote(), channel.result.remote(), channel.hosts.remote()])
    if started:
        ray.shutdown()
    if mistake:
        raise UserError(mistake)
    if failure:
        raise _given_up(failure, hosts, launched.clues, config.max_failures) from failure
    return result


def _trainer(launched: Launched, launch: LaunchConfig, channel: Any) -> Any:
    device = device_of(launch)
    check_room(launch, device)
    resources = {"CPU": launch.cpus_per_worker} | ({"GPU": 1} if device == "cuda" else {})
    # The folders are import packages at the root of the project: workers import them from where the driver did.
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**launched.environment, "PYTHONPATH": path, "OMP_NUM_THREADS": str(launch.cpus_per_worker)}
    called = {"function": launched.function, "argument": launched.argument, "channel": channel, "device": device}
    return ray.train.torch.TorchTrainer(
        _on_worker,
        train_loop_config=called,
        torch_config=ray.train.torch.TorchConfig(
            backend="nccl" if device == "cuda" else "gloo", timeout_s=int(launch.timeout_s)
        ),
        scaling_config=ScalingConfig(
            num_workers=(launch.min_workers, launch.workers) if launch.min_workers else launch.workers,
            use_gpu=device == "cuda",
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=f"multigate-{time.time_ns()}",
            storage_path=launched.storage,
            failure_config=FailureConfig(max_failures=launch.max_failures),
            callbacks=[TellFailures(channel, launch.max_failures, launched.clues)],
            worker_runtime_env={"env_vars": environment},
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _on_worker(called: dict[str, Any]) -> None:
    channel = called["channel"]
    if ray.get(channel.mistake.remote()):  # an earlier attempt met something that a restart cannot fix
        return
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        node=ray.util.get_node_ip_address(),
        device=called["device"],
        say=channel.say.remote,
        stops=lambda: ray.get(channel.stops.remote()),
    )
    channel.join.remote(worker.rank, worker.node)
    try:
        result = called["function"](called["argument"], worker)
    except UserError as error:
        ray.get(channel.report_mistake.remote(str(error)))
        raise
    if worker.rank == 0:
        ray.get(channel.finish.remote(result))


def _ask_to_stop(channel: Any, show: Callable[[str], None]) -> None:
    show("stopping: the workers save at their next log line (once more, and they stop at once)")
    ray.get(channel.ask_to_stop.remote())


def _given_up(failure: TrainingFailedError, hosts: Mapping[int, str], clues: Clues, max_failures: int) -> RunFailed:
    exceptions = getattr(failure, "worker_failures", None)
    if not exceptions:
        return RunFailed(f"Ray ended the run: {str(failure).splitlines()[-1]}\n{failure}")
    lines = failure_lines(exceptions, hosts, clues)
    return RunFailed("\n".join([f"more failures than launch.max_failures={max_failures}, the last:", *lines]))
