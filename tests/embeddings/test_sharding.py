"""Any number of workers trains the same model, and any number goes on with its checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor

from configs.schema import Config
from tests.embeddings.sharded_runs import FUSED, GLOBAL_BATCH_SIZE, RATES, batch, config_of_forms, gradients

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("sharded_runs.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name of a run of sharded_runs.py -> what it saw."""
    root = tmp_path_factory.mktemp("runs")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, root], env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    seen = {path.parent.name: torch.load(path, weights_only=False) for path in root.glob("*/seen.pt")}
    return seen | {"stderr": done.stderr}


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_initial_weights_do_not_depend_on_the_workers(runs):
    assert_same(runs["scratch_1"]["start"], runs["scratch_2"]["start"])


@pytest.mark.parametrize("kind", ["scratch", "dense"])
def test_two_ranks_equal_one_on_the_joined_batch(runs, kind):
    one, two = runs[f"{kind}_1"], runs[f"{kind}_2"]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert largest_difference(one["start"], one["end"]) > 0.05  # all of it has moved, and then to the same place:
    fp16 = {name for name, value in one["end"].items() if value.dtype == torch.float16}
    fp32 = [{name: value for name, value in run["end"].items() if name not in fp16} for run in (one, two)]
    assert largest_difference(*fp32) < 1e-5
    assert largest_difference(one["end"], two["end"]) < 1e-3  # half a step of fp16 rounds to another value


def test_every_tensor_trains(runs):
    start, end = runs["scratch_2"]["start"], runs["scratch_2"]["end"]
    assert [name for name in start if torch.equal(start[name], end[name])] == []


def test_a_checkpoint_moves_to_any_number_of_workers(runs):
    assert runs["to_3"]["start"].keys() == runs["scratch_2"]["end"].keys()
    assert largest_difference(runs["to_3"]["start"], runs["scratch_2"]["end"]) > 0.05
    assert_same(runs["to_3"]["end"], runs["scratch_2"]["end"])
    assert_same(runs["to_1"]["end"], runs["scratch_2"]["end"])


def test_the_runs_are_sharded_as_they_should_be(runs):
    tables = runs["scratch_2"]["plan"]["tables"]
    assert {name: len(tables[name]["shards"]) for name in ("by_rows", "whole", "by_host", "by_columns", "copied")} == {
        "by_rows": 2, "whole": 1, "by_host": 2, "by_columns": 2, "copied": 2,
    }  # fmt: skip
    swapped = runs["to_3"]["plan"]
    assert [swapped["tables"][name]["sharding"] for name in ("by_rows", "whole")] == ["table_wise", "row_wise"]
    assert swapped["tables"]["any"]["sharding"] == tables["any"]["sharding"]
    assert "by_rows, whole, by_host" in swapped["notes"][0]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", FUSED)
def test_every_table_trains_as_in_plain_torch(runs, kind, weighted, world_size):
    seen = runs[f"{kind}_{weighted}_{world_size}"]
    config = config_of_forms(kind, weighted=weighted)
    for name, weight in plain_training(config, seen["start"]).items():
        found = seen["end"][f"model/tables.embedding_bags.{name}.weight"]
        # A step in 16 bits may round to the next number.
        tolerance = 2e-3 if config.tables[name].data_type == "fp16" else 1e-5
        torch.testing.assert_close(found.float(), weight, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
        assert (weight - seen["start"][f"model/tables.embedding_bags.{name}.weight"]).abs().max() > 0.02


def plain_training(config: Config, start: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tables after three steps, by autograd on whole tables and the optimizers' own formulas."""
    kind = config.training.sparse_optimizer.kind
    tables = {name: start[f"model/tables.embedding_bags.{name}.weight"].float().clone() for name in config.tables}
    states = {name: torch.zeros_like(weight) for name, weight in tables.items()}
    replicated = [name for name, table in config.tables.items() if table.sharding == "data_parallel"]
    adam = torch.optim.Adam([tables[name].requires_grad_() for name in replicated])
    for step, rates in enumerate(RATES):
        leaves = {name: weight.detach().requires_grad_() for name, weight in tables.items()}
        kjt, _, _ = batch(config, step, 0, GLOBAL_BATCH_SIZE)
        pooled = torch.cat([pooled_rows(config, name, leaves, kjt[name]) for name in config.sparse_features], 1)
        pooled.backward(gradients(config, step)[:, 1:])  # the first column is the dense feature
        for name, leaf in leaves.items():
            tables[name].grad = leaf.grad
            if name not in replicated:
                parts = 2 if config.tables[name].sharding == "column_wise" else 1
                tables[name] -= rates["sparse"] * fused_step(kind, leaf.grad, states[name], parts)
                if config.tables[name].data_type == "fp16":
                    tables[name] = tables[name].half().float()
        adam.param_groups[0]["lr"] = rates["dense"]
        adam.step()
    return {name: weight.detach() for name, weight in tables.items()}


def pooled_rows(config: Config, feature: str, tables: dict[str, Tensor], bags: JaggedTensor) -> Tensor:
    """[B, D]: each bag's rows, one after the other, summed by hand."""
    table = config.sparse_features[feature].table
    lengths, weights = bags.lengths(), bags.weights_or_none()
    rows = tables[table][bags.values()]
    rows = rows if weights is None else rows * weights[:, None]
    owners = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    sums = torch.zeros(len(lengths), rows.shape[1]).index_add(0, owners, rows)
    return sums / lengths.clamp(min=1)[:, None] if config.tables[table].pooling == "mean" else sums


def fused_step(kind: str, gradient: Tensor, state: Tensor, parts: int) -> Tensor:
    """What is subtracted, but for the learning rate. Row-wise state is kept for each of `parts` shards of columns."""
    if kind == "sgd":
        return gradient
    square = gradient.square()
    if kind == "rowwise_adagrad":
        blocks = square.unflatten(1, (parts, -1))
        square = blocks.mean(2, keepdim=True).expand_as(blocks).flatten(1)
    state += square
    return gradient / (state.sqrt() + 1e-8)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "adagrad"])
def test_state_that_is_created_early_changes_nothing(runs, kind):
    seen = runs[f"dense_{kind}"]
    assert seen["early"] == seen["late"]
    assert len(set(seen["early"])) == 4
    assert_same(seen["early_state"], seen["late_state"])
    assert set(seen["keys"]) == seen["early_state"].keys()  # a checkpoint has a place for all of it before any step


def test_nothing_is_said_while_all_is_well(runs):
    assert runs["stderr"] == ""
