"""A new run begins with tables and weights of another, on any number of workers; a grown one keeps what it knew."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.errors import UserError
from configs.load import load_config
from configs.schema import Config
from tests.trainer.checkpoint.whole_tensors import read_tensors
from tests.trainer.workers import FEW_ROWS, begin_on, train_on
from trainer.checkpoint.files import find, read_complete, write_complete
from trainer.checkpoint.there import states_by_step
from trainer.prepare import prepare_run
from trainer.run.folder import Folder
from trainer.run.position import Position
from trainer.run.saved_names import WINDOW, section

QUICKSTART = Path(__file__).resolve().parents[3] / "configs" / "quickstart.yaml"
MORE = (
    "tables.sound={num_embeddings: 30, embedding_dim: 4}",
    "features.sound={table: sound, column: device, transform: hash}",
    "tasks.late={label: like, loss: bce}",
    "tables.hour.num_embeddings=41",
    "tables.hour.sharding=row_wise",
    "tables.item.sharding=row_wise",
)
"""One more table with a feature, one more task, more rows, and other sharding types."""


def quickstart(run_dir: Path, *overrides: str) -> Config:
    options = [*FEW_ROWS, f"data.root={run_dir.parent}/feed", f"training.run_dir={run_dir}"]
    return load_config(QUICKSTART, [*options, "tables.author.sharding=row_wise", "training.max_steps=6", *overrides])


def state(run_dir: Path) -> dict[str, Tensor]:
    """Without the open window of steps, which is the run's own."""
    return read_tensors(find(Folder(run_dir / "checkpoints"))[0][0], lambda name: section(name) != WINDOW)


def assert_same(then: dict[str, Tensor], now: dict[str, Tensor]) -> None:
    """What a window of steps kept is of one run alone."""
    names = {name for name in then if section(name) != WINDOW}
    assert names == {name for name in now if section(name) != WINDOW}
    assert [name for name in names if not torch.equal(then[name], now[name])] == []


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two workers, trained for a few steps."""
    run_dir = tmp_path_factory.mktemp("runs") / "source"
    train_on(quickstart(run_dir), 2)
    return run_dir


@pytest.fixture(scope="module")
def begun(source: Path) -> dict[int, Path]:
    """Grown runs before their first step, by number of workers."""
    runs = {workers: source.parent / f"grown_{workers}" for workers in (1, 3)}
    for workers, run_dir in runs.items():
        begin_on(quickstart(run_dir, f"training.warm_start.from={source}", *MORE), workers)
    return runs


def test_the_same_model_begins_with_the_same_state(source: Path) -> None:
    run_dir = source.parent / "again"
    begin_on(quickstart(run_dir, f"training.warm_start.from={source}", "tables.user.sharding=row_wise"), 3)
    assert_same(state(source), state(run_dir))
    log = (run_dir / "logs" / "latest" / "rank_0.log").read_text()
    assert f"warm start   {source}, step 6" in log
    assert "8 of 8 weights whole" in log
    assert "6 steps behind the dense one" in log


@pytest.mark.slow
def test_links_behind_a_checkpoint_are_taken_too(source: Path) -> None:
    """Of a run whose last checkpoint of its own is older: rows, whole tables and the top come from links."""
    large = "tables.user.num_embeddings=300000"  # beside which links are small, so that no new base is made of them
    options = large, "tables.hour.sharding=data_parallel", "training.max_steps=5"
    linked, plain, begun = (source.parent / name for name in ("linked", "plain", "of_links"))
    train_on(quickstart(plain, *options), 2)
    train_on(quickstart(linked, *options, "training.max_steps=7", "checkpoint.delta_every_steps=1"), 2)
    assert states_by_step(Folder(linked / "checkpoints"))[5].links
    warm = f"training.warm_start={{from: {linked}, checkpoint: 5}}"
    begin_on(quickstart(begun, *options, warm, "tables.user.sharding=row_wise"), 3)
    assert_same(state(plain), state(begun))


def test_every_number_of_workers_begins_alike(begun: dict[int, Path]) -> None:
    assert_same(*(state(run_dir) for run_dir in begun.values()))


def test_a_grown_run_keeps_rows_columns_and_tasks(source: Path, begun: dict[int, Path]) -> None:
    then, now = state(source), state(begun[3])
    for kind in ("model/{}.weight", "optim/{}.weight/hour.momentum1"):
        old, new = (one[kind.format("tables.embedding_bags.hour")] for one in (then, now))
        assert len(new) == 41
        assert torch.equal(new[:24], old)
    assert not now["optim/tables.embedding_bags.hour.weight/hour.momentum1"][24:].any()
    assert 0 < now["model/tables.embedding_bags.hour.weight"][24:].abs().max() <= 41**-0.5
    for table in ("user", "item", "author", "device"):
        for name in (name for name in then if f".{table}.weight" in name):
            assert torch.equal(then[name], now[name])
    # Input columns: user 16, item 16, history 16, author 16, device 4, hour 4, then sound 4, then 6 dense ones.
    # Rows: 4 experts of 64, then a gate of 4 for each of the tasks.
    for name in ("model/top.mixture.first.weight", "optim/top.mixture.first.weight/exp_avg"):
        old, new = then[name], now[name]
        assert (tuple(old.shape), tuple(new.shape)) == ((268, 78), (272, 82))
        assert torch.equal(new[:268, :72], old[:, :72])
        assert torch.equal(new[:268, 76:], old[:, 72:])
        assert bool(new[:, 72:76].any() or new[268:].any()) == name.startswith("model/")
    towers = "top.towers.groups.0.first.weight"
    assert torch.equal(now[f"model/{towers}"][:3], then[f"model/{towers}"])
    assert torch.equal(now[f"optim/{towers}/exp_avg_sq"][:3], then[f"optim/{towers}/exp_avg_sq"])
    assert {float(now[name]) for name in now if name.endswith("/step")} == {0.0}


@pytest.mark.slow
def test_a_grown_run_trains_and_resumes_from_its_own_state(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source.parent / "feed", tmp_path / "feed")
    gone = tmp_path / "source"
    shutil.copytree(source, gone)
    config = quickstart(
        tmp_path / "grown", f"training.warm_start.from={gone}", "training.warm_start.exclude=[top.towers.*]"
    )
    train_on(config, 2)
    shutil.rmtree(gone)
    more = config.training.model_copy(update={"max_steps": 8})
    train_on(config.model_copy(update={"training": more}), 1, resume=True)
    assert find(Folder(tmp_path / "grown" / "checkpoints"))[0][0].step == 8


def test_the_checkpoint_is_chosen_once(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source.parent / "feed", tmp_path / "feed")

    def prepared(resume: bool, name: str = "run") -> str:
        config = quickstart(tmp_path / name, f"training.warm_start.from={source}")
        warm = prepare_run(config, resume=resume, overwrite=False, say=lambda line: None).training.warm_start
        assert warm is not None
        return warm.checkpoint

    assert prepared(False) == "6"
    newer = Folder(source / "checkpoints").child("step_000000009")
    try:
        shutil.copytree(source / "checkpoints" / "step_000000006", newer.path)
        write_complete(replace(read_complete(newer), position=Position(9, 0, 9)))
        assert prepared(True) == "6"
        assert prepared(False, "run_2") == "9"
    finally:
        shutil.rmtree(newer.path)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["tables.user.num_embeddings=50001"], "tables.user: 1 rows more, and features.user_id gives rows by hash"),
        (
            ["tables.device.num_embeddings=6", "features.device.transform=hash"],
            "it rows by hash, there it was identity",
        ),
        (["tables.hour.embedding_dim=8"], "tables.hour: rows are 8 wide, and 4 there"),
        (["training.warm_start.checkpoint=5"], "has no complete checkpoint '5'; its steps are: 6"),
        (["training.warm_start.from=/nowhere"], "/nowhere is not a run"),
    ],
)
def test_what_cannot_be_taken_is_refused_before_the_start(
    source: Path, overrides: list[str], said: str, tmp_path: Path
) -> None:
    shutil.copytree(source.parent / "feed", tmp_path / "feed")
    config = quickstart(tmp_path / "run", f"training.warm_start.from={source}", *overrides)
    with pytest.raises(UserError) as error:
        prepare_run(config, resume=False, overwrite=False, say=lambda line: None)
    assert said in str(error.value)
    if "exclude" in str(error.value):
        table = overrides[0].split(".")[1]
        exclude = config.training.model_copy(
            update={"warm_start": config.training.warm_start.model_copy(update={"exclude": (f"tables.{table}",)})}  # pyright: ignore
        )
        prepare_run(
            config.model_copy(update={"training": exclude}), resume=False, overwrite=False, say=lambda line: None
        )
