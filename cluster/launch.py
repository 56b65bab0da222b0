"""Launches a function on DDP workers through Ray Train and brings it through failures.

The function is called on every worker with a process group in place. When a worker or a node dies Ray starts the
whole group again, on fewer workers if need be, and the function finds its own way back from what it saved. How it
does that, and what it computes, is its own business.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.channel import Channel, Listener
from cluster.signals import call_until_stopped
from configs.errors import RunFailed, UserError
from configs.schema import LaunchConfig

# Decoding Parquet and gathering batches free and reserve large buffers all the time. Arrow's allocator (mimalloc) and
# glibc would give their pages back to the kernel and fault them in again. On one machine that made decoding 1.3 to 1.45
# times slower, on one with transparent huge pages 1.0 to 1.1 times. Resident memory stays at its peak instead. The
# variables are read once, when a process starts: Ray starts the workers with them.
ALLOCATION = {
    "MIMALLOC_PURGE_DELAY": "-1",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}


@dataclass(frozen=True)
class Worker:
    """What the launched function knows of its place in the cluster."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: str
    device: str
    say: Callable[[str], None]
    """Prints a line on the driver's screen."""
    stops: Callable[[], bool] = lambda: False
    """Whether the driver has been told to stop (Ctrl-C, SIGTERM): the function should save, and return."""


class _TellFailures(UserCallback):
    """Says on the driver's screen which rank failed, where and why, before Ray starts the group again."""

    def __init__(self, channel: Any, max_failures: int, log_hint: str) -> None:
        self._channel, self._max_failures, self._log_hint, self._failures = channel, max_failures, log_hint, 0

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        if any(isinstance(_cause(error), UserError) for error in worker_exceptions.values()):
            return  # told once, at the end
        self._failures += 1
        allowed = "any number" if self._max_failures < 0 else self._max_failures
        for rank, error in sorted(worker_exceptions.items()):
            cause = str(_cause(error)).strip().splitlines() or [type(error).__name__]
            line = f"rank {rank} failed: {' '.join(part.strip() for part in cause[-6:])}"
            self._channel.say.remote(f"{line} ({self._log_hint.format(rank=rank)})")
        self._channel.say.remote(f"failure {self._failures} of {allowed} that the run survives")


def _cause(error: Exception) -> Exception:
    """What the function raised, out of Ray's wrapping."""
    return getattr(error, "base_exc", None) or getattr(error, "cause", None) or error


def _connect(launch: LaunchConfig) -> None:
    """Joins the cluster that is meant, or starts one on this machine with room for all workers.

    Meant are: launch.address, RAY_ADDRESS (a submitted job has it), or what `ray start` started here. The private
    cluster of another run is not: it would end under this one.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    cpus = max(os.cpu_count() or 1, launch.workers * launch.cpus_per_worker + 1)
    try:
        if launch.address:
            ray.init(address=launch.address, **options)
            return
        try:
            ray.init(num_cpus=cpus, include_dashboard=False, **options)
        except ValueError:  # there is a cluster to join, which has CPUs of its own
            ray.init(**options)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at {launch.address or 'the address in RAY_ADDRESS or of the last `ray start`'}\n"
            "start it, or clear what is left of it: unset RAY_ADDRESS, ray stop"
        ) from error


def _device(launch: LaunchConfig) -> str:
    if launch.device != "auto":
        return launch.device
    gpus = ray.cluster_resources().get("GPU", 0)
    return "cuda" if gpus >= (launch.min_workers or launch.workers) else "cpu"


def _check_room(launch: LaunchConfig, device: str) -> None:
    """Refuses at once what would otherwise wait for ever."""
    there = ray.cluster_resources()
    workers = launch.min_workers or launch.workers
    for resource, each in (("CPU", launch.cpus_per_worker), ("GPU", 1 if device == "cuda" else 0)):
        if there.get(resource, 0) < workers * each:
            raise UserError(
                f"the cluster has {there.get(resource, 0):g} {resource}s, but {workers} workers need {workers * each}\n"
                "lower launch.workers, or add nodes"
            )


def _on_worker(arguments: dict[str, Any]) -> None:
    channel = arguments["channel"]
    if ray.get(channel.mistake.remote()):  # an earlier attempt met something that a restart cannot mend
        return
    context = ray.train.get_context()
    worker = Worker(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        node=ray.util.get_node_ip_address(),
        device=arguments["device"],
        say=channel.say.remote,
        stops=lambda: ray.get(channel.stops.remote()),
    )
    try:
        result = arguments["function"](arguments["argument"], worker)
    except UserError as error:
        ray.get(channel.report_mistake.remote(str(error)))
        raise
    if worker.rank == 0:
        ray.get(channel.finish.remote(result))


def _trainer(function: Any, argument: Any, launch: LaunchConfig, channel: Any, storage: str, log_hint: str) -> Any:
    device = _device(launch)
    _check_room(launch, device)
    resources = {"CPU": launch.cpus_per_worker} | ({"GPU": 1} if device == "cuda" else {})
    # The folders are import packages at the root of the project: workers import them from where the driver did.
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**ALLOCATION, "PYTHONPATH": path, "OMP_NUM_THREADS": str(launch.cpus_per_worker)}
    return ray.train.torch.TorchTrainer(
        _on_worker,
        train_loop_config={"function": function, "argument": argument, "channel": channel, "device": device},
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
            storage_path=storage,
            failure_config=FailureConfig(max_failures=launch.max_failures),
            callbacks=[_TellFailures(channel, launch.max_failures, log_hint)],
            worker_runtime_env={"env_vars": environment},
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _ask_to_stop(channel: Any, show: Callable[[str], None]) -> None:
    show("stopping: the workers save at their next log line (once more, and they stop at once)")
    ray.get(channel.ask_to_stop.remote())


def launch(
    function: Callable[[Any, Worker], Any],
    argument: Any,
    config: LaunchConfig,
    *,
    storage: str,
    show: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),  # noqa: T201
    log_hint: str = "no log file",
) -> Any:
    """Calls `function(argument, worker)` on every worker and returns what rank 0 returned.

    Args:
        storage: a folder that all nodes see, for Ray's own notes.
        log_hint: where the log of a rank is; `{rank}` is filled in.

    Ctrl-C and SIGTERM ask the function to return early, see `Worker.stops`.

    Raises:
        UserError: a worker met a mistake of the user's, or the cluster has no room. Not tried again.
        RunFailed: more failures than `config.max_failures`, or a second Ctrl-C.
    """
    started = not ray.is_initialized()
    _connect(config)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    channel = Channel.options(scheduling_strategy=here).remote()  # pyright: ignore[reportAttributeAccessIssue] - what ray.remote adds
    listener = Listener(channel, show)
    failure: Exception | None = None
    try:
        trainer = _trainer(function, argument, config, channel, storage, log_hint)
        call_until_stopped(trainer.fit, lambda: _ask_to_stop(channel, show))
    except TrainingFailedError as error:
        failure = error
    except KeyboardInterrupt:
        ray.shutdown()  # ends this job's workers, wherever they are
        raise RunFailed("stopped at once: what was done since the last checkpoint is lost") from None
    finally:
        listener.close()
    mistake, result = ray.get([channel.mistake.remote(), channel.result.remote()])
    if started:
        ray.shutdown()
    if mistake:
        raise UserError(mistake)
    if failure:
        raise RunFailed(f"more failures than launch.max_failures={config.max_failures}\n{failure}") from failure
    return result
