"""The process group of the workers: what `ray.train.torch` would set up, without torch in driver and controller.

These only tell workers what to do. Importing torch costs each of them more than a second, at the start of every run.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig

from cluster.imports import without_collections

_LEAVING_S = 30.0  # how long a rank that has stopped holds up the others' end


@dataclass
class ProcessGroup(BackendConfig):
    """What the ranks talk through: "gloo" or "nccl"; timeout_s: of each of their collectives."""

    backend: str
    timeout_s: int

    @property
    def backend_cls(self) -> type[Backend]:
        return _Ranks

    @property
    def train_func_context(self) -> Callable[[], Any]:
        return _context


class _Ranks(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        address, port = worker_group.execute_single(0, get_address_and_port)
        options = {"backend": backend_config.backend, "timeout_s": backend_config.timeout_s}
        options |= {"address": address, "port": port, "world_size": len(worker_group)}
        ranks = range(len(worker_group))
        ray.get([worker_group.execute_single_async(rank, _join, world_rank=rank, **options) for rank in ranks])

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroup) -> None:
        try:
            ray.get(worker_group.execute_async(_leave, len(worker_group) > 1), timeout=_LEAVING_S)
        except GetTimeoutError:
            return  # the workers are ended next


def _join(*, address: str, port: int, **options: Any) -> None:
    with without_collections():
        from ray.train.torch import config

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(init_method="env://", **options)


def _leave(was_joined: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=was_joined)


def _context() -> Any:
    """Around the function: its GPU is the current one."""
    from ray.train.torch import config

    return config.TorchConfigContextManager()
