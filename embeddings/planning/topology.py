"""The cluster as the sharding planner sees it: workers, hosts, memory and bandwidths.

Memory is measured, or taken from `launch.memory_gib`. `embeddings.planning.planner` decides which table goes where.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed.planner import Topology

from configs.errors import UserError
from configs.schema import LaunchConfig
from embeddings.planning.host_memory import host_memory

GIB = 2**30
_GPU_SHARE = 0.8  # of a measured GPU; the rest is for activations, gradients of the top and communication buffers
_HOST_SHARE = 0.6  # of a measured host; the rest is for the reader, Ray's object store and the page cache
_ASSUMED_HOST_GIB_PER_GPU = 128.0  # when planning for machines that are not here
# Bytes per millisecond. Only ratios matter to the planner; torchrec's own numbers, kept for CUDA, are those of a GPU.
_CPU_BANDWIDTHS: dict[str, Any] = {
    "ddr_mem_bw": 20 * GIB / 1000,
    "intra_host_bw": 5 * GIB / 1000,
    "inter_host_bw": 1 * GIB / 1000,
}


@dataclass(frozen=True)
class Capacity:
    """Bytes that tables may fill, a worker: of its GPU (0 on CPU), and of its host's memory."""

    gpu: int
    host: int

    @property
    def fast(self) -> int:
        """The memory that tables live in unless a cache is put before it."""
        return self.gpu or self.host


def measure_capacity(launch: LaunchConfig, device: torch.device, local_world_size: int) -> Capacity:
    """What tables may fill on this worker.

    Raises:
        UserError: the capacity of a GPU is asked for on a machine that has none.
    """
    if device.type == "cpu":
        host = launch.memory_gib * GIB if launch.memory_gib else _HOST_SHARE * host_memory()[1]
        return Capacity(0, int(host / local_world_size))
    here = torch.cuda.is_available()
    if not here and launch.memory_gib is None:
        raise UserError(
            "launch.memory_gib is not set, and this machine has no GPU to measure\n"
            "Set it to the GiB that tables may fill of one GPU, about 0.8 of its memory: launch.memory_gib=64"
        )
    gpu = launch.memory_gib * GIB if launch.memory_gib else _GPU_SHARE * torch.cuda.mem_get_info(device)[1]
    host = _HOST_SHARE * host_memory()[1] / local_world_size if here else _ASSUMED_HOST_GIB_PER_GPU * GIB
    return Capacity(int(gpu), int(host))


def least(values: Sequence[int], device: torch.device, group: dist.ProcessGroup) -> list[int]:
    """Elementwise minimum over the ranks of `group`, so that all plan for the same machines."""
    values_everywhere = torch.tensor(values, device=device)
    dist.all_reduce(values_everywhere, dist.ReduceOp.MIN, group)
    return values_everywhere.tolist()


def topology(device: torch.device, world_size: int, local_world_size: int, capacity: Capacity) -> Topology:
    """The planner's picture of `world_size` equal workers, `local_world_size` of them a host."""
    return Topology(
        world_size=world_size,
        local_world_size=local_world_size,
        compute_device=device.type,
        hbm_cap=capacity.gpu,
        ddr_cap=capacity.host,
        **(_CPU_BANDWIDTHS if device.type == "cpu" else {}),
    )
