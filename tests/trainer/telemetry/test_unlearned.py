"""A task that has hardly a row to learn from is named once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import Config
from tests.trainer.telemetry.test_console import step_record
from tests.trainer.workers import train_on
from trainer.telemetry.unlearned import Unlearned


def seen(rows_per_record: dict[str, int], records: int, *, ends: bool = False, start: int = 0) -> list[str]:
    """What is said of `records` log lines, 10 steps of 1,000 rows each."""
    said: list[str] = []
    unlearned = Unlearned(list(rows_per_record), 1000, start, said.append)
    total = start + 10 * records if ends else None
    for number in range(1, records + 1):
        tasks = {task: {"rows": float(rows)} for task, rows in rows_per_record.items()}
        unlearned.see(step_record(step=start + 10 * number, total_steps=total, tasks=tasks))
    return said


def test_a_task_without_rows_is_named_once() -> None:
    (line,) = seen({"click": 9000, "like": 0}, 50)
    assert line.startswith("tasks.like learns from 0 of 100,000 rows")


def test_few_rows_are_told_early_only_when_many_were_seen() -> None:
    assert seen({"click": 0}, 9) == []
    assert seen({"click": 10}, 50) == []  # one in a thousand
    assert seen({"click": 9}, 50)[0].startswith("tasks.click learns from 90 of 100,000 rows")


def test_a_short_run_is_looked_at_when_it_ends() -> None:
    assert seen({"click": 0, "like": 500}, 2, ends=True)[0].startswith("tasks.click learns from 0 of 20,000 rows")
    assert seen({"click": 0}, 2, ends=True, start=400)[0].startswith("tasks.click learns from 0 of 20,000 rows")


def test_a_run_says_it_where_footers_could_not(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    rows = pa.table({"x": [1.0] * 64, "click": [1, 0] * 32, "like": pa.nulls(64, pa.int8())})
    pq.write_table(rows, tmp_path / "data" / "train" / "a.parquet", write_statistics=False)
    config = Config.model_validate(
        {
            "data": {"root": str(tmp_path / "data"), "global_batch_size": 16, "lanes": 2},
            "features": {"x": {}},
            "model": {"num_experts": 2, "expert_layers": [4], "tower_layers": [4]},
            "tasks": {"click": {}, "like": {}},
            "training": {"run_dir": str(tmp_path / "run"), "log_every": 1},
        }
    )
    train_on(config, 1)
    log = (tmp_path / "run" / "logs" / "latest" / "rank_0.log").read_text()
    assert log.count("tasks.like learns from 0 of 64 rows") == 1
    assert "tasks.click learns" not in log
