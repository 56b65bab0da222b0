"""A small data set whose every value follows from the number of its row, for tests of what reads it."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import DataConfig, DenseFeature, SparseFeature, TableConfig, TaskConfig
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.dataset.manifest import Manifest
from trainer.data.reading.batch import Batch
from trainer.data.reading.reader import Reader

FEATURES = {
    "row": SparseFeature(table="t", transform="identity"),
    "tags": SparseFeature(table="t", transform="identity", weights="tag_weights"),
    "number": DenseFeature(),
    "pair": DenseFeature(width=2),
}
TABLES = {"t": TableConfig(num_embeddings=10**6, embedding_dim=4)}
TASKS = {"odd": TaskConfig(positive_weight=3.0), "half": TaskConfig(loss="mse", weight_column="half_weight")}


def table(start: int, stop: int) -> pa.Table:
    """Rows start..stop. Row i has i mod 4 tags; each third has no `half` label."""
    ids = np.arange(start, stop)
    tags = [[int(i) * 4 + k for k in range(i % 4)] for i in ids]
    return pa.table(
        {
            "row": ids,
            "tags": pa.array(tags, pa.list_(pa.int64())),
            "tag_weights": pa.array([[t / 2 for t in row] for row in tags], pa.list_(pa.float32())),
            "number": pa.array(ids.astype(np.float32)),
            "pair": pa.array([[i, -i] for i in ids.tolist()], pa.list_(pa.float32(), 2)),
            "odd": pa.array(ids % 2),
            "half": pa.array([None if i % 3 == 0 else i / 2 for i in ids.tolist()], pa.float64()),
            "half_weight": pa.array((ids % 5).astype(np.float64)),
        }
    )


def write(root: Path, files: dict[str, int], rows_per_row_group: int) -> int:
    """Writes files of so many rows, numbered in order, below root/train; returns the number of rows."""
    start = 0
    for path, rows in files.items():
        place = root / "train" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        part = table(start, start + rows)
        pq.write_table(part, place, row_group_size=rows_per_row_group, write_page_checksum=True)
        start += rows
    return start


def reader(manifest: Manifest, data: DataConfig, rank: int = 0, world_size: int = 1, **options) -> Reader:
    """A reader of these features and tasks."""
    return Reader(manifest, data, FeatureTransforms(FEATURES, TABLES), TASKS, 7, rank, world_size, **options)


def check(batch: Batch) -> list[int]:
    """Numbers of the rows in a batch, after a look at every value. Padding is all zeros."""
    sparse = batch.sparse
    assert sparse is not None
    assert sparse.keys() == ["row", "tags"]
    lengths, row = sparse["row"].lengths().numpy(), sparse["row"].values().numpy()
    given = lengths == 1
    numbers = np.zeros(len(lengths), np.int64)
    numbers[given] = row
    assert (batch.dense.numpy() == np.stack([numbers, numbers, -numbers], axis=1)).all()
    tags = [k for i in row.tolist() for k in range(4 * i, 4 * i + i % 4)]
    assert sparse["tags"].values().tolist() == tags
    assert sparse["tags"].weights().tolist() == [t / 2 for t in tags]
    assert sparse["row"].weights().tolist() == [1.0] * len(row)
    assert sparse["tags"].lengths().tolist() == np.where(given, numbers % 4, 0).tolist()
    half = np.where(numbers % 3 == 0, 0, numbers / 2)
    assert (batch.labels.numpy() == np.stack([numbers % 2, half], axis=1)).all()
    odd_weights = np.where(numbers % 2 == 1, 3, 1) * given
    half_weights = np.where(numbers % 3 == 0, 0, numbers % 5)
    assert (batch.label_weights.numpy() == np.stack([odd_weights, half_weights], axis=1)).all()
    return row.tolist()


def everything(batches: Iterable[Batch]) -> Counter[int]:
    """How often each row was met."""
    return Counter(row for batch in batches for row in check(batch))
