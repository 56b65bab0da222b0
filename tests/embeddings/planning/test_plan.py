"""Plans fit, balance, say what is wrong, and keep a run's sharding types: all without a cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from configs.schema import Config
from embeddings.optimizer import attach_sparse_optimizer
from embeddings.planning.host_memory import host_memory
from embeddings.planning.plan import Pins
from embeddings.planning.plan_report import PlanReport, imbalance, plan_report, ranges
from embeddings.planning.planner import plan_tables
from embeddings.tables import build_tables

GIB = 2**30


def config(tables, workers=2, device="cpu", memory_gib=8.0, optimizer=None, **launch):
    """A feature a table; a table is (rows, width) or its settings."""
    tables = {
        name: table if isinstance(table, dict) else {"num_embeddings": table[0], "embedding_dim": table[1]}
        for name, table in tables.items()
    }
    return Config.model_validate(
        {
            "data": {"root": "d", "global_batch_size": 4096},
            "features": {f"id_{name}": {"table": name} for name in tables} | {"age": {}},
            "tables": tables,
            "tasks": {"click": {}},
            "training": {"run_dir": "r", "sparse_optimizer": optimizer or {}},
            "launch": {"workers": workers, "device": device, "memory_gib": memory_gib} | launch,
        }
    )


def plan(config, pins=None):
    device = torch.device(config.launch.device)
    tables = build_tables(config, torch.device("meta"))
    if tables is not None:
        attach_sparse_optimizer(tables, config, device)
    return plan_tables(tables, config, config.launch.workers, config.launch.workers, device, pins=pins)


def sharded(sharding, rows=1000, width=16, **settings):
    return {"num_embeddings": rows, "embedding_dim": width, "sharding": sharding} | settings


TABLES = {"user": (1_000_000, 64), "item": (50_000, 32), "tag": (100, 8)}
BIG = {f"t{i}": (10 ** (3 + i % 7), 128 - 32 * (i % 3)) for i in range(26)}


@pytest.mark.parametrize("sharding", ["row_wise", "table_wise", "column_wise", "table_row_wise", "data_parallel"])
def test_the_wanted_type_is_planned(sharding):
    table = plan(config({"t": sharded(sharding, width=256)})).tables["t"]
    assert table.sharding == sharding
    covered = torch.zeros(1000, 256)
    for shard in table.shards:
        covered[shard.row : shard.row + shard.rows, shard.column : shard.column + shard.columns] += 1
    assert covered.unique().tolist() == [2.0 if sharding == "data_parallel" else 1.0]


def test_auto_is_by_rows_or_whole():
    for workers in (1, 2, 8):
        assert {t.sharding for t in plan(config(TABLES, workers)).tables.values()} <= {"row_wise", "table_wise"}


@pytest.mark.parametrize(
    ("kind", "data_type", "per_row"),
    [
        ("rowwise_adagrad", "fp32", 4 * 64 + 4),
        ("rowwise_adagrad", "fp16", 2 * 64 + 4),
        ("adagrad", "fp32", 8 * 64),
        ("adagrad", "fp16", 6 * 64),
        ("sgd", "fp16", 2 * 64),
    ],
)
def test_optimizer_state_counts(kind, data_type, per_row):
    tables = {"t": sharded("row_wise", 100_000, 64, data_type=data_type)}
    made = plan(config(tables, optimizer={"kind": kind}))
    assert made.tables["t"].bytes == 100_000 * per_row
    assert sum(made.bytes_per_rank()) >= 100_000 * per_row
    assert made.bytes_per_rank()[0] == pytest.approx(50_000 * per_row, rel=0.1)


def test_data_parallel_tables_count_on_every_rank():
    made = plan(config({"t": sharded("data_parallel", 100_000, 64)}))
    assert made.tables["t"].bytes == 2 * 100_000 * 64 * 4 * 4  # weight, gradient and Adam's two moments
    assert min(made.bytes_per_rank()) >= 100_000 * 64 * 4 * 4


def test_too_large_together():
    with pytest.raises(UserError) as raised:
        plan(config({"user": (100_000_000, 64), "item": (1_000_000, 64)}, workers=2, memory_gib=8))
    problem, advice = str(raised.value).split("\n")
    assert "24.46 GiB" in problem
    assert "have 8.00 GiB" in problem
    assert "tables.user, 24.21 GiB" in problem
    assert "launch.workers" in advice


def test_too_large_for_one_worker():
    with pytest.raises(UserError) as raised:
        plan(config({"user": sharded("table_wise", 50_000_000, 64), "item": (1000, 4)}, workers=8, memory_gib=64))
    problem, advice = str(raised.value).split("\n")
    assert "tables.user needs 12.11 GiB" in problem
    assert "8.00 GiB" in problem
    assert "tables.user.sharding=auto" in advice
    assert plan(config({"user": (50_000_000, 64)}, workers=8, memory_gib=64)).tables["user"].sharding == "row_wise"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and its memory is measured")
def test_gpus_that_are_not_here_need_their_memory():
    with pytest.raises(UserError, match=r"launch\.memory_gib"):
        plan(config(TABLES, device="cuda", memory_gib=None))


def test_the_memory_of_this_host_is_measured():
    made = plan(config(TABLES, memory_gib=None))
    assert 0.1 * host_memory()[1] < 2 * made.capacity < host_memory()[1]


def test_a_cache_is_the_last_resort():
    gpus = {"device": "cuda", "workers": 4, "memory_gib": 16.0}
    roomy = plan(config({"user": (200_000_000, 64), "item": (1_000_000, 64)}, **gpus))
    assert {table.kernel for table in roomy.tables.values()} == {"fused"}
    assert roomy.notes == ()
    tight = plan(config({"user": (400_000_000, 64), "item": (1_000_000, 64)}, **gpus))
    assert tight.tables["user"].kernel == "fused_uvm_caching"
    assert tight.tables["item"].kernel == "fused"
    assert "user" in tight.notes[0]
    assert max(tight.bytes_per_rank()) <= 16 * GIB


def test_adam_is_refused_on_cpu_only():
    with pytest.raises(UserError, match="CPU"):
        plan(config(TABLES, optimizer={"kind": "adam"}))
    adam = plan(config({"t": (100_000, 64)}, device="cuda", optimizer={"kind": "adam"}))
    assert adam.tables["t"].bytes == 100_000 * 64 * 12


@pytest.mark.parametrize("kind", ["sgd", "adagrad", "rowwise_adagrad"])
def test_weight_decay_that_would_be_ignored_is_refused(kind):
    with pytest.raises(UserError, match="weight_decay"):
        plan(config(TABLES, optimizer={"kind": kind, "weight_decay": 0.1}))


def pins_of(made):
    return Pins.from_json(json.loads(json.dumps(made.to_json())))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_pinned_plan_is_the_same_plan(device):
    first = plan(config(TABLES, 3, device))
    again = plan(config(TABLES, 3, device), pins_of(first))
    assert again == first
    assert again.digest() == first.digest()


def test_pins_keep_types_on_another_number_of_workers():
    pins = Pins({"user": "table_wise", "item": "row_wise", "tag": "row_wise"})
    made = plan(config(TABLES, 5), pins)
    assert {name: made.tables[name].sharding for name in pins.sharding} == pins.sharding
    assert made.notes == ()


def test_a_pin_gives_way_when_nothing_fits_otherwise():
    tables = {"user": (50_000_000, 64), "item": (1000, 16)}
    made = plan(config(tables, 4, memory_gib=40), Pins({"user": "table_wise", "item": "table_wise"}))
    assert made.tables["user"].sharding == "row_wise"
    assert "user" in made.notes[0]


@pytest.mark.parametrize(("former", "wanted"), [("data_parallel", "row_wise"), ("row_wise", "column_wise")])
def test_what_cannot_reshard_is_refused(former, wanted):
    with pytest.raises(UserError, match=f"tables.t.sharding={wanted}.*{former}"):
        plan(config({"t": sharded(wanted)}), Pins({"t": former}))


def test_what_can_reshard_may_change():
    made = plan(config({"t": sharded("row_wise"), "new": (100, 8)}), Pins({"t": "table_wise"}))
    assert made.tables["t"].sharding == "row_wise"
    assert "t" in made.notes[0]


def test_a_type_that_cannot_reshard_outlives_auto():
    assert plan(config({"t": sharded("auto")}), Pins({"t": "column_wise"})).tables["t"].sharding == "column_wise"


@pytest.mark.parametrize("sharding", ["row_wise", "table_row_wise"])
def test_no_worker_is_left_without_rows(sharding):
    cut = plan(config({"t": sharded(sharding, rows=16)}, 4)).tables["t"]
    assert (cut.sharding, [shard.rows for shard in cut.shards]) == (sharding, [4, 4, 4, 4])
    whole = plan(config({"t": sharded(sharding, rows=9)}, 4))  # 3, 3, 3 and none
    assert whole.tables["t"].sharding == "table_wise"
    assert "held whole" in whole.notes[0]


def test_small_tables_are_not_cut():
    assert {t.sharding for t in plan(config({"t": (9999, 64), "u": (5, 64)}, 4)).tables.values()} == {"table_wise"}


def test_table_row_wise_needs_even_hosts():
    with pytest.raises(UserError, match="equally many workers"):
        plan_report(config({"t": sharded("table_row_wise")}, 3, workers_per_host=2))


def test_no_tables_is_a_plan():
    report = plan_report(config({}))
    assert report.text == "no tables: all parameters are replicated"
    assert report.to_json()["memory_imbalance"] == 1.0


def test_another_process_makes_the_same_plan():
    """Ranks plan on their own: nothing may hang on a process's hash seed."""
    code = "import sys, test_plan as t; print(t.plan(t.config(t.BIG, 4, memory_gib=4000.0)).digest())"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{Path(__file__).parent}", "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [str(plan(config(BIG, 4, memory_gib=4000.0)).digest())], done.stderr


def test_a_cluster_that_is_not_here():
    tables = {f"table_with_a_very_long_name_{i}": (10 ** (3 + i % 7), 128) for i in range(30)}
    report = plan_report(config(tables, 64, "cuda", 64.0, workers_per_host=8))
    lines = report.text.split("\n")
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 30
    assert "1,000,000,000" in lines[1]
    assert lines[1].split()[-1] == "0-63"
    assert "6 smaller" in lines[25]
    facts = json.loads(json.dumps(report.to_json()))
    assert facts["world_size"] == 64
    assert facts["bytes"] == sum(10 ** (3 + i % 7) * 516 for i in range(30))
    assert max(facts["bytes_per_rank"]) < 64 * GIB
    assert facts["memory_imbalance"] == pytest.approx(max(facts["bytes_per_rank"]) * 64 / sum(facts["bytes_per_rank"]))


def test_a_report_of_a_plan_shows_its_notes_in_full():
    made = plan(config({f"a_table_{i}": (200_000_000, 64) for i in range(9)}, 8, "cuda", 32.0))
    lines = PlanReport(made).text.split("\n")
    assert max(map(len, lines)) <= 100
    assert all(f"a_table_{i}" in " ".join(lines[11:]) for i in range(9))


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_every_rank_once(ranks):
    text = ranges(sorted(ranks))
    named = []
    for run in text.split(",") if text else []:
        first, _, last = run.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(ranks)


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=20))
def test_imbalance_is_between_even_and_all_on_one(per_rank):
    assert 1 - 1e-9 <= imbalance(per_rank) <= len(per_rank) * (1 + 1e-9)
    assert imbalance([5.0] * len(per_rank)) == pytest.approx(1)
