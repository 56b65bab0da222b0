"""How many agents Ray Train starts, and when it places them anew: when hosts join, go, or are lost.

Ray's own policies ask an actor that looks up every 20 seconds, and end the workers unasked. Here the function is asked
to save and return first, and what a host that joins needs is started there before anybody stops.
"""

import socket
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray._private import state
from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision, ScalingDecision, ScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus, WorkerGroupState
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.agent import Task
from cluster.slot import warm

_DRAINS_S = 1.0  # between two looks for hosts that go
_JOINS_S = 5.0  # between two looks for hosts that join
_FREED_S = 3.0  # how long what ended agents had takes to be free
_KNOCK_S = 1.0  # a raylet answers in milliseconds
_WARM_S = 120.0  # a host that has not imported everything by then is taken as it is
_TICK_S = 0.2


class Places(ScalingPolicy):
    """As many agents as there is room for, up to the most that are wanted."""

    def __init__(self, scaling_config: ScalingConfig, channel: Any, task: Task, *, is_private: bool) -> None:
        super().__init__(scaling_config)
        self._channel, self._task, self._is_private = channel, task, is_private
        self._looked_for_drains = self._looked_for_joins = 0.0
        self._short_since: float | None = None
        self._is_waiting = False
        self._warming: list[Any] = []
        self._warm_since = 0.0

    def _get_num_workers_for_resource_request(self) -> int:
        return self.scaling_config.max_workers

    def after_controller_start(self, train_run_context: Any) -> None:
        if not self._is_private:  # an autoscaler may add hosts; the actor to ask it takes a second to start
            super().after_controller_start(train_run_context)

    def _maybe_send_resource_request(self) -> None:
        if not self._is_private:
            super()._maybe_send_resource_request()

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Waits for room where there is too little; for a moment, too, where there is less than is wanted."""
        self._maybe_send_resource_request()
        self._warming = []
        if not self.scaling_config.elasticity_enabled:
            return self._resize(self.scaling_config.max_workers)
        room = min(self.scaling_config.max_workers, sum(self._room().values()))
        if room == self.scaling_config.max_workers:
            return self._resize(room)
        now = time.monotonic()
        if self._short_since is None:
            self._short_since = now
        if now - self._short_since >= _FREED_S:
            least = self.scaling_config.min_workers
            if room >= least:
                return self._resize(room)
            if not self._is_waiting:
                self._is_waiting = True
                self._channel.say.remote(
                    f"there is room for {room} workers, launch.min_workers={least}: waiting for hosts"
                )
        time.sleep(_TICK_S)
        return NoopDecision()

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        """Never ends the agents: asks the function to save and return, and agents then end by themselves."""
        self._maybe_send_resource_request()
        if self._is_private:
            return NoopDecision()
        now = time.monotonic()
        if now - self._looked_for_drains >= _DRAINS_S:
            self._looked_for_drains = now
            self._leave_hosts_that_go(worker_group_state)
        missing = self.scaling_config.max_workers - worker_group_state.num_workers
        if self.scaling_config.elasticity_enabled and missing and now - self._looked_for_joins >= _JOINS_S:
            self._looked_for_joins = now
            self._take_hosts_that_joined(
                missing, Counter(worker.metadata.node_id for worker in worker_group_state.workers)
            )
        return NoopDecision()

    def on_controller_start_worker_group(self, *, scaling_config: ScalingConfig, num_workers: int) -> Any:
        """Keeps off hosts that do not answer, while Ray still waits for them."""
        lost = [] if self._is_private else [node for node, answers in _nodes().items() if not answers]
        return {"ray.io/node-id": f"!in({','.join(lost)})"} if lost else None

    def _resize(self, workers: int) -> ResizeDecision:
        self._short_since, self._is_waiting = None, False
        return ResizeDecision(num_workers=workers, resources_per_worker=self._need())

    def _need(self) -> dict[str, float]:
        """What one agent reserves, for the process that trains."""
        return {name: float(amount) for name, amount in self.scaling_config._resources_per_worker_not_none.items()}  # pyright: ignore[reportArgumentType]

    def _room(self) -> dict[str, int]:
        """Node -> how many agents more it can carry. Nodes that go, or do not answer, carry none."""
        going, free = state.state.get_draining_nodes(), state.available_resources_per_node()
        need, nodes = self._need(), _nodes()
        return {
            node: _times(free.get(node, {}), need) for node, answers in nodes.items() if answers and node not in going
        }

    def _leave_hosts_that_go(self, group: WorkerGroupState) -> None:
        going = state.state.get_draining_nodes()
        hosts = {worker.metadata.node_ip for worker in group.workers if worker.metadata.node_id in going}
        if hosts:
            names = ", ".join(sorted(hosts))
            self._channel.leave.remote(f"{names} will be taken away: the workers save, and go on elsewhere")

    def _take_hosts_that_joined(self, missing: int, taken: Mapping[str, int]) -> None:
        """Once they have imported everything, so that nobody waits for that. taken: node -> its agents by now."""
        if self._warming:
            done, _ = ray.wait(self._warming, num_returns=len(self._warming), timeout=0)
            if len(done) < len(self._warming) and time.monotonic() - self._warm_since < _WARM_S:
                return
            self._warming = []
            if room := min(missing, sum(self._room().values())):
                self._channel.leave.remote(f"there is room for {room} more workers: all save, and go on with them")
            return
        for node, room in self._room().items():
            first = taken.get(node, 0)
            self._warming += [self._warmed(node, first + number) for number in range(min(room, missing))]
        self._warm_since = time.monotonic()

    def _warmed(self, node: str, local_rank: int) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return _warm_here.options(scheduling_strategy=there).remote(self._task, local_rank)


@ray.remote(num_cpus=0, max_retries=0)
def _warm_here(task: Task, local_rank: int) -> None:
    warm(task.launch, ray.util.get_node_ip_address(), local_rank, task.modules, _WARM_S)


def _nodes() -> dict[str, bool]:
    """Node that Ray takes for alive -> whether it answers."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with ThreadPoolExecutor(len(nodes) or 1) as knocking:
        answers = list(knocking.map(_answers, nodes))
    return {node["NodeID"]: answered for node, answered in zip(nodes, answers, strict=True)}


def _answers(node: Mapping[str, Any]) -> bool:
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=_KNOCK_S).close()
    except OSError:
        return False
    return True


def _times(free: Mapping[str, float], need: Mapping[str, float]) -> int:
    """How often `need` fits into `free`."""
    return int(min(free.get(name, 0) // amount for name, amount in need.items() if amount > 0))
