"""What only a GPU can show: the same training as on a CPU, no wait of the host in a step, state that a resume needs.

Run with `pytest -m gpu`; without a GPU every test here is skipped.
"""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.gpu.worker import Stepping, open_group, random_batches
from configs.schema import Config
from embeddings.kernels import kernels_of, set_steps_done, write_back
from embeddings.row_log import RowLog
from embeddings.tables import local_shards
from models.draws import Dropout, Noise, share_row_keys
from trainer.checkpoint.state import training_state
from trainer.data.reading.batch import Batch
from trainer.telemetry.window import TrainingWindow

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
REPOSITORY = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SHARDINGS = ("table_wise", "row_wise", "column_wise", "data_parallel")


@pytest.fixture(scope="module", autouse=True)
def group() -> Iterator[None]:
    open_group("cuda")
    yield
    dist.destroy_process_group()


@pytest.fixture
def gpu() -> torch.device:
    return torch.device("cuda", 0)


def config(
    sharding: str = "table_wise", *, data_type: str = "fp32", launch: dict | None = None, **training: Any
) -> Config:
    """Two tables, one looked up by two features, one of which has weights; larger `eps`, which keeps rounding small."""
    width = 256 if sharding == "column_wise" else 16
    table = {"num_embeddings": 500, "embedding_dim": width, "sharding": sharding, "init_scale": 0.5}
    optimizers = {"sparse_optimizer": {"eps": 1e-3}, "dense_optimizer": {"eps": 1e-3}}
    return Config.model_validate(
        {
            "data": {"root": "unused", "global_batch_size": 64},
            "features": {"a": {"table": "x"}, "b": {"table": "y", "weights": "w"}, "c": {"table": "y"}, "age": {}},
            "tables": {"x": table | {"data_type": data_type}, "y": table | {"pooling": "sum"}},
            "tasks": {"click": {}, "like": {}},
            "training": {"run_dir": "unused"} | optimizers | training,
            "launch": launch or {},
        }
    )


def on_gpu(batches: Sequence[Batch]) -> list[Batch]:
    return [batch.pin_memory() for batch in batches]


def state_of(stepping: Stepping) -> dict[str, torch.Tensor]:
    """All saved state, on the CPU."""
    write_back(stepping.built.model)
    state = training_state(stepping.built.model, stepping.built.optimizer)
    return {
        name: torch.cat([part.detach().cpu().flatten() for part, _ in local_shards(value)])
        for name, value in state.items()
    }


def assert_close(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adagrad", "sgd"])
def test_training_is_that_of_a_cpu(sharding: str, kind: str, gpu: torch.device) -> None:
    made = config(
        sharding, sparse_optimizer={"kind": kind, "learning_rate": 0.1} | ({} if kind == "sgd" else {"eps": 1e-3})
    )
    batches = random_batches(made, 4)
    steppings = [Stepping(made, device) for device in (CPU, gpu)]
    losses = [
        [float(outputs.loss) for outputs in stepping.train(given, 6)]
        for stepping, given in zip(steppings, (batches, on_gpu(batches)), strict=True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert_close(*(state_of(stepping) for stepping in steppings))


def test_compiled_training_is_that_of_a_cpu(gpu: torch.device) -> None:
    made = config("row_wise", compile=True)
    batches = random_batches(made, 4)
    expected = [float(outputs.loss) for outputs in Stepping(config("row_wise"), CPU).train(batches, 6)]
    stepping, losses = Stepping(made, gpu), []
    window = TrainingWindow(made.tasks, stepping.built.objective.criterion.binary, gpu)
    for outputs in (stepping.train(on_gpu([batches[step % 4]]), 1)[0] for step in range(6)):
        losses.append(float(outputs.loss))
        window.add(outputs)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert window.record(6, 0, 0.0, {}).gates.keys() == {"experts"}


def test_tables_behind_a_cache_train_as_tables_in_the_gpu(gpu: torch.device) -> None:
    inside = config()
    behind = config(launch={"memory_gib": 4e-5})  # 43 KB for tables of 64 KB
    batches = on_gpu(random_batches(inside, 4))
    steppings = [Stepping(made, gpu) for made in (inside, behind)]
    assert {table.kernel for table in steppings[1].built.plan.tables.values()} == {"fused_uvm_caching"}
    for stepping in steppings:
        stepping.train(batches, 6)
    assert_close(*(state_of(stepping) for stepping in steppings))


def test_fused_adam_goes_on_counting_after_a_resume(gpu: torch.device) -> None:
    made = config(sparse_optimizer={"kind": "adam", "learning_rate": 0.1}, deterministic=True)
    batches = on_gpu(random_batches(made, 6))
    whole, resumed = Stepping(made, gpu), Stepping(made, gpu)
    whole.train(batches, 3)
    state, target = (training_state(one.built.model, one.built.optimizer) for one in (whole, resumed))
    with torch.no_grad():
        for name, value in target.items():
            for (mine, _), (other, _) in zip(local_shards(value), local_shards(state[name]), strict=True):
                mine.copy_(other)
    set_steps_done(resumed.built.model, 3)
    for stepping in (whole, resumed):
        stepping.train(batches[3:], 3)
    assert {int(kernel.iter) for kernel in kernels_of(resumed.built.model)} == {6}
    found, expected = state_of(resumed), state_of(whole)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_no_line_of_this_project_waits_for_the_gpu_in_a_step(gpu: torch.device) -> None:
    made = config("row_wise")
    made = made.model_copy(update={"model": made.model.model_copy(update={"dropout": 0.1, "gate_noise": 0.1})})
    batches = on_gpu(random_batches(made, 4))
    stepping = Stepping(made, gpu)
    window = TrainingWindow(made.tasks, stepping.built.objective.criterion.binary, gpu)
    stepping.train(batches, 4)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for outputs in stepping.train(batches, 4):
                window.add(outputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = {f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)}
    assert not {line for line in waits if line.startswith(str(REPOSITORY))}


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise"])
@pytest.mark.parametrize("kind", ["rowwise_adagrad", "adam"])
def test_the_row_log_marks_without_waiting_what_is_looked_up(sharding: str, kind: str, gpu: torch.device) -> None:
    made = config(sharding, sparse_optimizer={"kind": kind})
    batches = random_batches(made, 4)
    stepping = Stepping(made, gpu)
    stepping.train(on_gpu(batches[:1]), 1)
    log = RowLog(stepping.built.model)
    reader = log.follow()
    rows = torch.arange(3, device=gpu)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stepping.train(on_gpu(batches[1:]), 3)
            log.mark("x", rows)
            log.take_cut()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = {f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)}
    assert not {line for line in waits if line.startswith(str(REPOSITORY))}
    assert log.hold() is None
    looked_up: dict[str, set[int]] = {"x": {0, 1, 2}, "y": set()}
    for batch in batches[1:]:
        assert batch.sparse is not None
        for name, feature in made.sparse_features.items():
            looked_up[feature.table].update(batch.sparse[name].values().tolist())
    for table, parts in reader.changed().items():
        assert parts
        assert all(part.is_cuda and part.tolist() == sorted(looked_up[table]) for part in parts)


def test_both_devices_draw_the_same_numbers(gpu: torch.device) -> None:
    layers = nn.Sequential(Dropout(0.3), Noise(1.0)).train()
    keys, x = share_row_keys(layers), torch.randn(32, 1000)
    drawn = []
    for device in (CPU, gpu):
        keys.tensor = torch.arange(1000, device=device) * 2**40
        drawn.append(layers.to(device)(x.to(device)).cpu())
    assert torch.equal(drawn[0] == 0, drawn[1] == 0)
    torch.testing.assert_close(drawn[1], drawn[0])
