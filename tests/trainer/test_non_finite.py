"""Rows whose loss is no number, in a run on data: the run stops and says where they are, or leaves them out."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.load import load_config
from configs.schema import Config
from tests.trainer.workers import FEW_ROWS, losses, start_workers, train_on, wait
from trainer.checkpoint.there import newest_by_marks
from trainer.data.generators._generate import generate
from trainer.run.folder import Folder

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


def settings(data: Path, run_dir: Path, *overrides: str) -> Config:
    options = [f"data.root={data}", f"training.run_dir={run_dir}", *FEW_ROWS, "training.log_every=3"]
    return load_config(QUICKSTART, [*options, "tasks.watch_time.loss=mse", "training.max_steps=12", *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows of one file have a label whose square is infinite."""
    root = tmp_path_factory.mktemp("data") / "feed"
    made = settings(root, root.parent / "unused").data
    assert made.generate is not None
    generate(made.generate, str(root), made.train, made.validation)
    path = sorted((root / made.train).rglob("*.parquet"))[2]
    table = pq.read_table(path)
    values = table["watch_time"].to_numpy().copy()
    values[[300, 302]] = 1e25
    column = pa.array(values, table.schema.field("watch_time").type)
    pq.write_table(
        table.set_column(table.schema.get_field_index("watch_time"), "watch_time", column), path, row_group_size=1000
    )
    return root


def log(run_dir: Path) -> str:
    return (run_dir / "logs" / "latest" / "rank_0.log").read_text()


def records(run_dir: Path) -> dict[int, dict]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line for line in lines if line["kind"] == "train"}


@pytest.fixture(scope="module")
def skipping(data: Path) -> Path:
    """A run of two workers that leaves batches out."""
    run_dir = data.parent / "skip"
    train_on(settings(data, run_dir, "training.non_finite=skip"), 2)
    return run_dir


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 3])
def test_any_number_of_workers_leaves_out_the_same_steps(
    data: Path, skipping: Path, tmp_path: Path, world_size: int
) -> None:
    train_on(settings(data, tmp_path / "run", "training.non_finite=skip"), world_size)
    two, other = losses(skipping), losses(tmp_path / "run")
    assert list(two) == list(other) == [3, 6, 9, 12]
    assert list(other.values()) == pytest.approx(list(two.values()), rel=1e-5)
    counts = [
        {step: line["steps/skipped"] for step, line in records(one).items()} for one in (skipping, tmp_path / "run")
    ]
    assert counts[0] == counts[1]


def test_what_is_left_out_is_shown(skipping: Path) -> None:
    text = log(skipping)
    told = re.findall(r"left out, as the loss was not finite.*: step (\d+), with rows of (.*)", text)
    assert told
    assert "(row group" in told[0][1]
    assert "; the largest number is 1e+25 in column watch_time of date=" in told[0][1]
    assert re.search(r"part-00002.parquet, row group 0, row 30[02]$", told[0][1])
    assert 1 <= records(skipping)[12]["steps/skipped"] <= 2
    count = int(records(skipping)[12]["steps/skipped"])
    assert re.search(rf"step 12/12 .*  skipped {count}  eta", text)
    assert f"{count} of 12 steps were left out" in text


@pytest.mark.slow
def test_a_resumed_run_goes_on_counting(data: Path, skipping: Path, tmp_path: Path) -> None:
    options = "training.non_finite=skip", "checkpoint.every_steps=3"
    train_on(settings(data, tmp_path / "run", *options, "training.max_steps=9"), 2)
    train_on(settings(data, tmp_path / "run", *options), 2, resume=True)
    again, undisturbed = records(tmp_path / "run"), records(skipping)
    for tag in ("steps/skipped", "total/loss", "total/objective"):
        assert [line[tag] for line in again.values()] == [line[tag] for line in undisturbed.values()]


@pytest.mark.parametrize("saves", ["every_steps=3", pytest.param("delta_every_steps=1", marks=pytest.mark.slow)])
def test_a_run_that_stops_says_since_when_and_with_which_rows(
    data: Path, skipping: Path, tmp_path: Path, saves: str
) -> None:
    """At a log line, or before, where the state was to be saved."""
    codes = wait(start_workers(settings(data, tmp_path / "run", f"checkpoint.{saves}"), 2))
    assert all(codes)
    first = next(step for step, line in records(skipping).items() if line["steps/skipped"])
    for rank in (0, 1):
        text = (tmp_path / "run" / "logs" / "latest" / f"rank_{rank}.log").read_text()
        said = re.search(r"(?:watch_time is|was not) \w+ since step (\d+), with rows of (.*)", text)
        assert said, text[-2000:]
        assert "training has diverged" in text
        assert first - 3 < int(said[1]) <= first
        assert "(row group" in said[2]
        assert "part-00002.parquet, row group 0, row 30" in said[2]
    saved = newest_by_marks(Folder(tmp_path / "run" / "checkpoints"))
    assert saved is None or saved.step < int(said[1])
