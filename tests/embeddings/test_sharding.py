"""Any number of workers trains the same model, and any number goes on with its checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

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


@pytest.mark.parametrize(
    ("kind", "weight_decay"), [("rowwise_adagrad", 0.0), ("rowwise_adagrad", 0.1), ("adagrad", 0.0), ("sgd", 0.0)]
)
def test_fused_optimizers_do_what_their_papers_say(runs, kind, weight_decay):
    seen = runs[f"{kind}_{weight_decay:g}"]
    name = "model/tables.embedding_bags.by_rows.weight"
    weight, state = seen["before"][name].clone(), torch.zeros_like(seen["before"][name])
    for rate in (0.5, 0.25):
        gradient, touched = gradient_of_sum(seen, weight)
        gradient = gradient + weight_decay * weight * touched[:, None]
        square = gradient.square()
        state += square.mean(1, keepdim=True) if kind == "rowwise_adagrad" else square
        weight -= rate * (gradient if kind == "sgd" else gradient / (state.sqrt() + 1e-8))
    torch.testing.assert_close(seen["after"][name], weight, rtol=1e-5, atol=1e-6)


def gradient_of_sum(seen: dict, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What autograd says of the plain model with this table; and which rows the batch touches."""
    weight = weight.clone().requires_grad_()
    top = {name: seen["before"][f"model/top.{name}"] for name in ("0.weight", "0.bias", "2.weight", "2.bias")}
    inputs = [seen["dense"]]
    for name in ("id_by_rows", "id_second"):
        bags = seen["kjt"][name]
        rows = torch.repeat_interleave(torch.arange(len(bags.lengths())), bags.lengths())
        pooled = torch.zeros(len(bags.lengths()), weight.shape[1])
        inputs.append(pooled.index_add(0, rows, weight[bags.values()] * bags.weights()[:, None]))
    hidden = torch.tanh(torch.cat(inputs, 1) @ top["0.weight"].T + top["0.bias"])
    (hidden @ top["2.weight"].T + top["2.bias"]).sum().backward()
    assert weight.grad is not None
    touched = torch.zeros(len(weight))
    touched[torch.cat([seen["kjt"][name].values() for name in ("id_by_rows", "id_second")])] = 1
    return weight.grad, touched


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "adagrad"])
def test_state_that_is_created_early_changes_nothing(runs, kind):
    seen = runs[f"dense_{kind}"]
    assert seen["early"] == seen["late"]
    assert len(set(seen["early"])) == 4
    assert_same(seen["early_state"], seen["late_state"])
    assert set(seen["keys"]) == seen["early_state"].keys()  # a checkpoint has a place for all of it before any step


def test_nothing_is_said_while_all_is_well(runs):
    assert runs["stderr"] == ""
