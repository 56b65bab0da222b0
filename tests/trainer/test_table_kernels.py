"""What is set in FBGEMM's kernels inside a sharded model: their count of steps, and how they round."""

import tempfile
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from configs.schema import Config
from embeddings.kernels import kernels_of, set_steps_done, write_back
from trainer.build import build


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tempfile.mktemp(prefix='store-')}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def model(*, deterministic: bool = False) -> torch.nn.Module:
    """Two fused tables of different data types, which have a kernel each, and one that is data-parallel."""
    sharding = {"a": "table_wise", "b": "table_wise", "c": "data_parallel"}
    config = Config.model_validate(
        {
            "data": {"root": "unused"},
            "features": {name: {"table": name} for name in sharding},
            "tables": {
                name: {
                    "num_embeddings": 9,
                    "embedding_dim": 4,
                    "sharding": kind,
                    "data_type": "fp16" if name == "b" else "fp32",
                }
                for name, kind in sharding.items()
            },
            "tasks": {"click": {}},
            "training": {"run_dir": "unused", "deterministic": deterministic},
        }
    )
    return build(config, torch.device("cpu"), 1, None).model


def test_every_fused_table_has_its_kernel_and_they_go_on_counting() -> None:
    made = model()
    assert len(list(kernels_of(made))) == 2
    set_steps_done(made, 41)
    write_back(made)
    assert [int(kernel.iter) for kernel in kernels_of(made)] == [41, 41]


@pytest.mark.parametrize("deterministic", [True, False])
def test_only_a_deterministic_run_rounds_to_the_nearest(deterministic: bool) -> None:
    assert {kernel.stochastic_rounding for kernel in kernels_of(model(deterministic=deterministic))} == {
        not deterministic
    }
