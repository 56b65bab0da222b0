"""The group of workers under Ray Train: which processes it has, how they begin, when Ray starts them again.

Importing Ray Train takes a second. `private` and `launch` do it while the cluster's processes are still starting.
"""

import asyncio
import logging
import os
import pickle
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import ray
from ray._private.log import PlainRayHandler
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.callbacks.preemption_callback import PreemptionCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import FailureDecision, FailurePolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from cluster import told_to_go
from cluster.agent import Task, follow
from cluster.calling import Place
from cluster.failures import cause_of, is_leaving
from cluster.meeting import Cause
from cluster.scaling import Places
from configs.schema import LaunchConfig

if TYPE_CHECKING:
    from cluster.launch import Launched

_GROUP = "MULTIGATE_GROUP"  # the number of an agent's group, in its environment
_SILENT_S = 30.0  # an agent that does not answer for so long is ended; Ray's own are ten minutes
_POLL_S = 0.25  # how often the controller asks the workers; Ray's own 2 seconds are waited at the end of every run


def group_of(
    launched: "Launched",
    launch: LaunchConfig,
    device: str,
    channel: Any,
    environment: Mapping[str, str],
    *,
    is_private: bool,
) -> DataParallelTrainer:
    """The group; its `fit` begins the workers, and returns when they have.

    environment: variables of the workers' processes; those of a private cluster have them already.
    """
    task = Task(
        launch=uuid.uuid4().hex[:12],
        payload=pickle.dumps((launched.function, launched.argument)),
        modules=list(launched.modules),
        timeout_s=int(launch.timeout_s),
        log_of=launched.clues.log_of,
    )
    return _Group(
        _on_worker,
        is_private=is_private,
        channel=channel,
        task=task,
        train_loop_config={"task": task, "channel": channel, "device": device},
        backend_config=_Agents(channel),
        scaling_config=ScalingConfig(
            num_workers=(launch.min_workers, launch.workers) if launch.min_workers else launch.workers,
            use_gpu=device == "cuda",
            resources_per_worker={"CPU": launch.cpus_per_worker} | ({"GPU": 1} if device == "cuda" else {}),
        ),
        run_config=RunConfig(
            name=f"multigate-{time.time_ns()}",
            storage_path=launched.storage,
            failure_config=FailureConfig(max_failures=-1),
            worker_runtime_env={} if is_private else {"env_vars": dict(environment)},
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


class _Workers(WorkerGroup):
    """Ray hands each worker the actor that controls it; here that is no actor, and no worker asks it anything."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._worker_health_check_timeout_s = _SILENT_S

    def _init_train_context_on_workers(
        self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]
    ) -> None:
        given = [{name: values[i] for name, values in train_context_args.items()} for i in range(len(workers))]
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **arguments,
            )
            for worker, arguments in zip(workers, given, strict=True)
        ]
        ray.get(begun)
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    """Begins, watches and ends the workers, from the driver's process: an actor's would have to start first."""

    worker_group_cls = _Workers

    def __init__(self, *, is_private: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._health_check_interval_s = _POLL_S
        callbacks = self._worker_group_callbacks_to_propagate  # `scaling` looks for hosts that go
        callbacks[:] = [each for each in callbacks if not isinstance(each, PreemptionCallback)]
        log = logging.getLogger("ray.train")  # in files of Ray's; the screen is ours
        for handler in [each for each in log.handlers if isinstance(each, PlainRayHandler)]:
            log.removeHandler(handler)

    def _make_and_handle_scaling_decision_for_non_running_worker_group(self, controller_state: Any) -> Any:
        """Ends what is left of the old agents first: there is room where they were."""
        if self._worker_group:
            self._shutdown_worker_group()
        return super()._make_and_handle_scaling_decision_for_non_running_worker_group(controller_state)


class _Group(DataParallelTrainer):
    def __init__(self, *arguments: Any, is_private: bool, channel: Any, task: Task, **options: Any) -> None:
        self._is_private, self._channel, self._task = is_private, channel, task
        super().__init__(*arguments, **options)

    def _create_default_callbacks(self) -> list[Any]:
        """But for those whose actors have nothing to do: no data sets, and a placement group that ends with the driver.

        Each actor is a process that imports Ray for a second, at the start of every run.
        """
        idle = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [each for each in super()._create_default_callbacks() if not isinstance(each, idle)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["scaling_policy"] = Places(
            self.scaling_config, self._channel, self._task, is_private=self._is_private
        )
        arguments["failure_policy"] = _Failures(self._channel)
        controller = _Controller(is_private=self._is_private, **arguments)
        with _no_actor_for_reports():
            asyncio.run(controller.run())
        return controller.get_result()


class _Nobody:
    """In the place of the actor where workers that report to Ray Train wait for each other: ours report to nobody."""

    @classmethod
    def options(cls, **_: Any) -> type["_Nobody"]:
        return cls

    @classmethod
    def remote(cls, **_: Any) -> type["_Nobody"]:
        return cls


@contextmanager
def _no_actor_for_reports() -> Iterator[None]:
    """Ray Train starts one before the workers: a process that imports Ray Train while they do."""
    with (
        patch.object(worker_group, "SynchronizationActor", _Nobody),
        patch.object(state, "_shutdown_sync_actor", lambda _: None),
    ):
        yield


def _on_worker(called: dict[str, Any]) -> None:
    """What Ray Train calls on each worker: an agent of the launch."""
    context = get_context()
    gpus, visible = ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    place = Place(
        group=int(os.environ[_GROUP]),
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        host=ray.util.get_node_ip_address(),
        device=called["device"],
        cuda_index=visible.index(str(gpus[0])) if gpus and str(gpus[0]) in visible else 0,
    )
    follow(called["task"], place, called["channel"], _new_address)


def _new_address() -> str:
    host, port = get_address_and_port()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass
class _Agents(BackendConfig):
    """What Ray Train does before the agents are called: it numbers their group."""

    channel: Any

    @property
    def backend_cls(self) -> type[Backend]:
        return _Numbered


class _Numbered(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: _Agents) -> None:
        number = ray.get(backend_config.channel.begin_group.remote(len(worker_group)))
        worker_group.execute(_join_group, number)


def _join_group(number: int) -> None:
    os.environ[_GROUP] = str(number)
    told_to_go.listen()


class _Failures(FailurePolicy):
    """Agents that were lost count as the failures do that they see themselves; see `cluster.meeting`."""

    def __init__(self, channel: Any) -> None:
        super().__init__(FailureConfig(max_failures=-1))
        self._channel = channel

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if isinstance(training_failed_error, WorkerGroupError):
            errors = training_failed_error.worker_failures
            causes = {rank: cause_of(error) for rank, error in errors.items() if not is_leaving(error)}
            goes_on = ray.get(self._channel.lose.remote(causes))
            return FailureDecision.RETRY if goes_on else FailureDecision.RAISE
        failure = getattr(training_failed_error, "controller_failure", None)
        if isinstance(failure, WorkerGroupStartupTimeoutError):
            self._channel.say.remote(f"no room for {failure.num_workers} workers by now: waiting for hosts")
            return FailureDecision.RETRY
        if isinstance(failure, WorkerGroupStartupFailedError):
            goes_on = ray.get(self._channel.fail_to_start.remote(Cause(f"its agent did not start: {failure}", True)))
            return FailureDecision.RETRY if goes_on else FailureDecision.RAISE
        return FailureDecision.RAISE
