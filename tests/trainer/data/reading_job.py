"""A process that reads one rank's batches and writes down which rows it saw, to be killed at any moment."""

import json
import os
import time
from pathlib import Path

from configs.schema import DataConfig
from tests.trainer.data import rows
from trainer.data.dataset.manifest import Manifest


def read(manifest: dict, data: dict, rank: int, world_size: int, step: int, log: Path) -> None:
    """Appends a line of JSON a step, [step, row numbers]: whole or cut off, never mixed.

    It counts steps as a trainer does, whatever the batches say of their position.
    """
    reader = rows.reader(Manifest.from_json(manifest), DataConfig(**data), rank, world_size)
    with open(log, "ab", buffering=0) as file:
        for number, batch in enumerate(reader.batches(1, step), step):
            os.write(file.fileno(), json.dumps([number, rows.check(batch)]).encode() + b"\n")
            time.sleep(0.01)


def records(log: Path) -> dict[int, list[int]]:
    """What a process had written when it ended: row numbers of each whole step."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return dict(map(json.loads, lines))
