"""Whether a cluster has room for the workers, and what they train on."""

import ray

from configs.errors import UserError
from configs.schema import LaunchConfig


def device_of(launch: LaunchConfig) -> str:
    """ "cuda" or "cpu"."""
    if launch.device != "auto":
        return launch.device
    gpus = ray.cluster_resources().get("GPU", 0)
    return "cuda" if gpus >= (launch.min_workers or launch.workers) else "cpu"


def check_room(launch: LaunchConfig, device: str) -> None:
    """Refuses at once what would otherwise wait for ever."""
    there = ray.cluster_resources()
    workers = launch.min_workers or launch.workers
    for resource, each in (("CPU", launch.cpus_per_worker), ("GPU", 1 if device == "cuda" else 0)):
        if there.get(resource, 0) < workers * each:
            raise UserError(
                f"the cluster has {there.get(resource, 0):g} {resource}s, but {workers} workers need {workers * each}\n"
                "lower launch.workers, or add nodes"
            )
