"""Which ways to compute a run takes: measured once, followed by all its ranks, and kept in the run directory.

Ways are equal to rounding, so a run that resumes, or is evaluated later, takes those that it began with. Shapes that it
meets for the first time (another number of workers has other batches) are measured and added.
"""

from collections.abc import Callable, Mapping

import torch.distributed as dist

from configs.formulations import follow, followed, measuring
from trainer.run.run_directory import RunDirectory, read_json, write_json


def read_formulations(run: RunDirectory) -> dict[str, str]:
    """What is computed -> name of the way; empty before the first start of the run."""
    return read_json(run.formulations) or {}


def keep_formulations(run: RunDirectory, choices: Mapping[str, str]) -> None:
    """Writes formulations.json."""
    write_json(run.formulations, dict(choices))


def settle(known: Mapping[str, str], try_out: Callable[[], None]) -> dict[str, str]:
    """All ranks together: follow `known`, and what rank 0 finds fastest while it computes everything in `try_out`."""
    follow(known)
    if dist.get_rank() == 0:
        with measuring():
            try_out()
    choices = [followed()]
    dist.broadcast_object_list(choices, src=0)
    follow(choices[0])
    return choices[0]
