"""Ranks that agree leave nothing behind: a process that trains many runs makes many groups."""

import gc
from pathlib import Path

import pytest
import torch.distributed as dist

from trainer.ranks.agreement import Agreement


def groups() -> int:
    return len(dist.distributed_c10d._world.pg_map)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.filterwarnings("error")
def test_a_group_goes_with_its_agreement(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        before = groups()
        agreement = Agreement()
        assert agreement.gather("x") == ["x"]
        assert groups() == before + 1
        del agreement
        gc.collect()
        assert groups() == before
        late, later = Agreement(), Agreement()
    finally:
        dist.destroy_process_group()
    del late  # its group went with all others
    gc.collect()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        del later
        gc.collect()
    finally:
        dist.destroy_process_group()
