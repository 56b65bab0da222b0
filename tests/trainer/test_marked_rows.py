"""The row log in the trainer's own step: it has the rows of the data, and none that only padding named."""

from pathlib import Path
from typing import Any

import pytest

from configs.schema import Config
from tests.trainer.test_train import small
from tests.trainer.workers import FORKSERVER


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_epoch_marks_the_rows_of_its_data(tmp_path: Path, world_size: int) -> None:
    config = small(str(tmp_path / "feed"), tmp_path / "run", "data.global_batch_size=384", "training.max_steps=null")
    answers, ends = zip(*(FORKSERVER.Pipe(duplex=False) for _ in range(world_size)), strict=True)
    workers = [
        FORKSERVER.Process(target=_epoch, args=(end, config, str(tmp_path / "store"), rank, world_size))
        for rank, end in enumerate(ends)
    ]
    for worker in workers:
        worker.start()
    assert all(answer.poll(100) for answer in answers)
    seen = [answer.recv() for answer in answers]
    assert all(one["padded"] > 0 for one in seen)
    for table in seen[0]["marked"]:
        expected = set().union(*(one["expected"][table] for one in seen))
        marked = [one["marked"][table] for one in seen]
        assert set().union(*marked) == expected
        assert len(expected) > 0


def _epoch(answer: Any, config: Config, store: str, rank: int, world_size: int) -> None:
    """Answers with the rows that this rank's batches look up, and with those that its shards have marked."""
    import os

    from benchmarks.one_worker import join_group
    from embeddings.row_log import RowLog
    from embeddings.tables import local_shards
    from trainer.build import build
    from trainer.pipeline import train_pipeline
    from trainer.prepare import generate_missing

    if rank == 0:
        generate_missing(config, lambda line: None)
    made, device, reader = join_group(config, store, rank, world_size)
    built = build(made, device, world_size, None)
    weights = {name.split(".")[-2]: value for name, value in built.model.state_dict().items() if "bags" in name}
    follower = RowLog(built.model).follow()
    pipeline = train_pipeline(built, device)
    expected, padded = {table: set() for table in made.tables}, 0
    batches = list(reader.batches(0, epochs=1))
    for batch in batches:
        rows = batch.label_weights.sum(dim=1) > 0
        padded += int((~rows).sum())
        for name, feature in made.sparse_features.items():
            bags = batch.sparse[name]
            expected[feature.table].update(bags.values()[rows.repeat_interleave(bags.lengths())].tolist())
    source = iter(batches)
    for _ in batches:
        pipeline.progress(source)
    marked = {
        table: {
            int(row) + first
            for part, (_, (first, *_)) in zip(parts, local_shards(weights[table]), strict=True)
            for row in part
        }
        for table, parts in follower.changed().items()
    }
    answer.send({"expected": expected, "marked": marked, "padded": padded})
    os._exit(0)
