"""IDs beyond their table, dropped through a whole run: their share is that of the data, over all workers."""

import json
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.trainer.test_train import small
from tests.trainer.workers import train_on

HOURS = 17


def test_the_share_of_dropped_ids_is_shown(tmp_path: Path) -> None:
    data = tmp_path / "feed"
    options = ("features.hour.out_of_range=drop", f"tables.hour.num_embeddings={HOURS}", "training.max_steps=39")
    train_on(small(str(data), tmp_path / "run", *options), 2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    shares = {line["kind"]: line["data/dropped_share/hour"] for line in lines}
    for kind, part in (("train", "train"), ("eval", "validation")):
        ids = ds.dataset(data / part).to_table(columns=["hour"])["hour"].to_numpy()
        wanted = float((ids >= HOURS).mean())
        assert 0.01 < wanted < 0.99
        assert shares[kind] == pytest.approx(wanted, abs=0.02)
    assert not any(name.startswith("data/dropped_share/") and not name.endswith("hour") for name in lines[-1])
