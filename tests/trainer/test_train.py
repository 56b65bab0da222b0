"""Training on real processes: any number of workers trains the same run, and a killed one resumes where it was."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config
from tests.trainer.checkpoint.whole_tensors import read_tensors
from tests.trainer.workers import FEW_ROWS, losses, start_workers, train_on, wait
from trainer.checkpoint.files import find
from trainer.commands.train import train_run
from trainer.prepare import ended_at, prepare_run
from trainer.run.folder import Folder

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


def small(data: str, run_dir: Path, *overrides: str) -> Config:
    return load_config(
        QUICKSTART,
        [
            f"data.root={data}",
            *FEW_ROWS,
            "tables.author.sharding=row_wise",
            "model.dropout=0.1",
            f"training.run_dir={run_dir}",
            "training.log_every=1",
            *overrides,
        ],
    )


def final_state(run_dir: Path) -> dict[str, Tensor]:
    """Tables, optimizer state and dense weights of the newest checkpoint."""
    complete, damaged = find(Folder(run_dir / "checkpoints"))
    assert not damaged
    return read_tensors(complete[0])


def final_metrics(run_dir: Path) -> dict[str, float]:
    """The last evaluation."""
    return json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def relative(one: float, other: float) -> float:
    return abs(one - other) / abs(one)


def test_numbers_of_workers_train_the_same(data: str, tmp_path: Path) -> None:
    runs = {world_size: tmp_path / str(world_size) for world_size in (1, 2, 3)}
    for world_size, run_dir in runs.items():
        options = ("training.max_steps=30", "model.dropout=0", "data.group_column=hour")
        train_on(small(data, run_dir, *options), world_size)
    one, two, three = (losses(run_dir) for run_dir in runs.values())
    assert list(one) == list(two) == list(three) == list(range(1, 31))
    assert max(relative(one[step], two[step]) for step in one) < 1e-5
    assert max(relative(one[step], three[step]) for step in one) < 1e-5
    # Rows of an hour lie on all workers. Predictions differ in the last bits, so that two may change places.
    gauc = [final_metrics(run_dir)["gauc/click"] for run_dir in runs.values()]
    assert gauc == pytest.approx([gauc[0]] * 3, abs=2e-3)


@pytest.mark.slow
def test_numbers_of_workers_draw_the_same(data: str, tmp_path: Path) -> None:
    """Dropout and both kinds of noise belong to rows, not to workers."""
    options = ("training.max_steps=20", "model.dropout=0.2", "model.gate_noise=0.5", "model.gate_dropout=0.2")
    for world_size in (1, 2, 3):
        train_on(small(data, tmp_path / str(world_size), *options, "model.top=ple"), world_size)
    one, two, three = (losses(tmp_path / str(world_size)) for world_size in (1, 2, 3))
    assert max(relative(one[step], two[step]) for step in one) < 1e-5
    assert max(relative(one[step], three[step]) for step in one) < 1e-5


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_killed_at_any_step_ends_bit_for_bit_the_same(data: str, tmp_path: Path, world_size: int) -> None:
    """Sums of three ranks depend on the place of a number in the buffer, so a start must not change the layout."""
    options = ("training.epochs=2", "checkpoint.every_steps=7", "data.lanes=6", "data.global_batch_size=510")
    options += ("tables.hour.sharding=data_parallel", "training.clip_gradient_norm=1")
    train_on(small(data, tmp_path / "undisturbed", *options), world_size)

    config = small(data, tmp_path / "killed", *options)
    for attempt in range(2):
        workers = start_workers(config, world_size, resume=attempt > 0)
        wanted = random.randint(10, 30) + 25 * attempt
        while not _has_reached(tmp_path / "killed", wanted):
            assert workers[0].is_alive()
            time.sleep(0.02)
        os.kill(random.choice(workers).pid or 0, signal.SIGKILL)
        assert None not in wait(workers)  # the others cannot go on alone, and must not hang
    train_on(config, world_size, resume=True)

    assert_same_bits(final_state(tmp_path / "killed"), final_state(tmp_path / "undisturbed"))
    assert losses(tmp_path / "killed") == losses(tmp_path / "undisturbed")


def evaluations(run_dir: Path) -> dict[int, dict]:
    """Step -> the line of its evaluation, without what a clock says; each step stands once."""
    records = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = [record for record in records if record["kind"] == "eval"]
    assert len({record["step"] for record in found}) == len(found)
    clocks = ("time", "speed/examples_per_second")
    return {record["step"]: {k: v for k, v in record.items() if k not in clocks} for record in found}


def test_a_resumed_run_makes_the_evaluation_that_it_lacks_and_no_other(data: str, tmp_path: Path) -> None:
    options = ("training.evaluate_every=8", "checkpoint.every_steps=8", "training.log_every=4")
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=16"), 1)
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=16"), 1, resume=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    whole = metrics.read_text()
    assert list(evaluations(tmp_path / "run")) == [8, 16]  # resumed at its end, and nothing was left to do
    metrics.write_text(whole[: whole.rindex('{"kind": "eval"')])  # as if killed in the last evaluation
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=20"), 1, resume=True)
    train_on(small(data, tmp_path / "undisturbed", *options, "training.max_steps=20"), 1)
    assert evaluations(tmp_path / "run") == evaluations(tmp_path / "undisturbed")
    assert list(evaluations(tmp_path / "run")) == [8, 16, 20]


def test_a_command_that_is_repeated_starts_resumes_and_leaves_alone_what_has_ended(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(data, tmp_path / "run", "training.max_steps=4", "checkpoint.every_steps=2")
    prepare_run(config, resume=True, overwrite=False, say=print)
    assert ended_at(config) is None
    (tmp_path / "run" / "metrics.jsonl").write_text('{"kind": "eval", "step": 4}\n')  # of a start that saved nothing
    train_on(config, 1, resume=True)
    assert list(losses(tmp_path / "run")) == [1, 2, 3, 4]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != ".lock"}

    train_run(config, resume=True, overwrite=False, repeats=True)
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path}/run has ended at step 4: nothing is left to do"
    other = small(data, tmp_path / "run", "training.max_steps=4", "tables.user.embedding_dim=32")
    with pytest.raises(UserError, match=r"tables\.user\.embedding_dim: 16 -> 32"):
        train_run(other, resume=True, overwrite=False, repeats=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert ended_at(small(data, tmp_path / "run", "training.max_steps=5")) is None
    metrics, whole = tmp_path / "run" / "metrics.jsonl", (tmp_path / "run" / "metrics.jsonl").read_text()
    metrics.write_text("".join(line for line in whole.splitlines(True) if '"eval"' not in line))
    assert ended_at(config) is None, "killed before its last evaluation"
    metrics.write_text(whole)
    assert ended_at(config) == 4
    for file in (tmp_path / "run" / "checkpoints").rglob("rank_*.bin"):
        os.truncate(file, 100)
    assert ended_at(config) is None, "its state is lost"
    assert wait(start_workers(config, 1, resume=True)) != [0]
    log = (tmp_path / "run" / "logs/latest/rank_0.log").read_text()
    assert f"no checkpoint of {tmp_path}/run/checkpoints is whole: " in log


@pytest.mark.slow
def test_an_evaluation_that_fails_costs_no_training(data: str, tmp_path: Path) -> None:
    copied = shutil.copytree(data, tmp_path / "data")
    config = small(str(copied), tmp_path / "run", "training.epochs=2")
    workers = start_workers(config, 2)
    while not _has_reached(tmp_path / "run", 1):
        assert workers[0].is_alive()
        time.sleep(0.01)
    validation = (copied / "validation").rename(tmp_path / "validation")  # found out when it is read
    assert wait(workers) == [1, 1]
    steps = max(losses(tmp_path / "run"))
    assert find(Folder(tmp_path / "run" / "checkpoints"))[0][0].position == (steps, steps // 40, 0)
    validation.rename(copied / "validation")
    train_on(config, 2, resume=True)
    assert list(evaluations(tmp_path / "run")) == [40, 80]


def test_a_balance_with_state_resumes_exactly(data: str, tmp_path: Path) -> None:
    """DWA looks at the losses between two log lines: a checkpoint between them must not change what it sees."""
    options = ("training.task_balance=dwa", "training.log_every=7", "checkpoint.every_steps=10")
    train_on(small(data, tmp_path / "whole", *options, "training.max_steps=30"), 1)
    train_on(small(data, tmp_path / "parts", *options, "training.max_steps=10"), 1)
    train_on(small(data, tmp_path / "parts", *options, "training.max_steps=30"), 1, resume=True)
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "whole"))


def test_what_is_skipped_stays_skipped(data: str, tmp_path: Path) -> None:
    copied = shutil.copytree(data, tmp_path / "data")
    damaged = sorted((copied / "train").rglob("*.parquet"))[0]
    content = bytearray(damaged.read_bytes())
    column = next(c for c in _columns(damaged) if c.path_in_schema == "user_id")
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 8] = bytes(8)
    options = ("data.on_error=quarantine", "data.max_quarantined_fraction=0.2", "checkpoint.every_steps=15")
    config = small(str(copied), tmp_path / "run", *options, "training.max_steps=40")
    stat = damaged.stat()
    damaged.write_bytes(content)
    os.utime(damaged, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    train_on(config, 2)
    skipped = json.loads((tmp_path / "run" / "quarantined.json").read_text())
    assert [(entry["row_group"], entry["rows"]) for entry in skipped] == [(0, 1000)]
    moved = (tmp_path / "data").rename(tmp_path / "moved")
    later = small(str(moved), tmp_path / "run", *options, "training.epochs=2")
    train_on(later, 1, resume=True)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [record["rows/click"] for record in records if record["kind"] == "train" and record["epoch"] == 1]
    assert sum(rows) == 19_000


def test_a_resized_run_resumes(data: str, tmp_path: Path) -> None:
    options = ("model.dropout=0", "checkpoint.every_steps=0")
    train_on(small(data, tmp_path / "whole", *options, "training.max_steps=40"), 2)
    for world_size, last in ((2, 13), (1, 25), (3, 40)):
        config = small(data, tmp_path / "resized", *options, f"training.max_steps={last}")
        train_on(config, world_size, resume=world_size != 2)
    whole, resized = losses(tmp_path / "whole"), losses(tmp_path / "resized")
    assert list(resized) == list(whole)
    # Every row was in its place: a skipped or repeated batch would change the losses by percents.
    assert max(relative(whole[step], resized[step]) for step in resized) < 1e-4


def _columns(file: Path) -> list[pq.ColumnChunkMetaData]:
    group = pq.read_metadata(file).row_group(0)
    return [group.column(number) for number in range(group.num_columns)]


def _has_reached(run_dir: Path, step: int) -> bool:
    return (run_dir / "metrics.jsonl").exists() and max(losses(run_dir), default=0) >= step


def test_gradients_are_clipped_to_the_norm(data: str, tmp_path: Path) -> None:
    """Plain SGD of rate 1 moves the dense weights by the gradient: five clipped steps, at most five times the norm."""
    options = ("training.dense_optimizer.kind=sgd", "training.dense_optimizer.learning_rate=1", "model.dropout=0")
    for steps in (1, 6):
        run_dir = tmp_path / str(steps)
        train_on(small(data, run_dir, *options, f"training.max_steps={steps}", "training.clip_gradient_norm=0.01"), 1)
    first, last = (final_state(tmp_path / str(steps)) for steps in (1, 6))
    dense = [name for name in first if name.startswith("model/top.")]
    moved = sum(float((last[name] - first[name]).square().sum()) for name in dense) ** 0.5
    assert 0.01 < moved <= 0.05 * 1.001


@pytest.mark.parametrize("balance", ["uncertainty", "dwa", "gradnorm", "pcgrad"])
def test_a_task_balance_is_the_same_on_any_number_of_workers(data: str, tmp_path: Path, balance: str) -> None:
    options = (
        f"training.task_balance={balance}",
        "model.dropout=0",
        "model.load_balance=0.01",
        "training.max_steps=12",
    )
    for world_size in (1, 2):
        train_on(small(data, tmp_path / str(world_size), *options, "training.gradient_cosines_every=4"), world_size)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert max(relative(one[step], two[step]) for step in one) < 1e-4
    records = [json.loads(line) for line in (tmp_path / "2" / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "gradient_cosine/click-like" in record] == [4, 8, 12]
