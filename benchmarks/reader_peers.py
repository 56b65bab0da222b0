"""What other loaders make of the same files: the usual collate a batch, in the rows' order, without a seek or a resume.

torch's DataLoader (in the main process, and with one worker process), torchdata's nodes (one thread), Ray Data (one
task). Each gives the KeyedJaggedTensor, dense columns and labels that the reader gives, unshuffled. One that is not
installed is left out, with a line that says so.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

Collated = tuple[KeyedJaggedTensor, torch.Tensor, torch.Tensor]


def collate(rows: pa.RecordBatch) -> Collated:
    """Columns to tensors, one by one, then side by side."""
    names = [name for name in rows.schema.names if name.startswith(("id_", "list_"))]
    values, lengths = [], []
    for name in names:
        column = rows.column(name)
        if pa.types.is_list(column.type):
            values.append(torch.from_numpy(column.flatten().to_numpy().copy()))
            lengths.append(torch.from_numpy(np.diff(column.offsets.to_numpy())))
        else:
            values.append(torch.from_numpy(column.to_numpy().copy()))
            lengths.append(torch.ones(len(column), dtype=torch.int32))
    sparse = KeyedJaggedTensor(keys=names, values=torch.cat(values), lengths=torch.cat(lengths))
    return sparse, _matrix(rows, "x_"), _matrix(rows, "y_")


def _matrix(rows: pa.RecordBatch, prefix: str) -> torch.Tensor:
    names = [name for name in rows.schema.names if name.startswith(prefix)]
    return torch.stack([torch.from_numpy(rows.column(name).to_numpy().copy()) for name in names], dim=1)


class Rows(IterableDataset):
    """Record batches of all files, for ever."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        self._files, self._batch_size = sorted(folder.glob("*.parquet")), batch_size

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            for path in self._files:
                file = pq.ParquetFile(path, page_checksum_verification=True)
                yield from file.iter_batches(self._batch_size, use_threads=False)


def peers(folder: Path, batch_size: int, with_ray: bool) -> dict[str, Callable[[], Iterator[int]]]:
    """Rows of batches, for ever, by the name of the loader."""
    rows = Rows(folder, batch_size)

    def dataloader(workers: int) -> Iterator[int]:
        for batch in DataLoader(rows, batch_size=None, collate_fn=collate, num_workers=workers):
            yield len(batch[2])

    found = {"dataloader": lambda: dataloader(0), "dataloader_1_worker": lambda: dataloader(1)}
    try:
        import torchdata.nodes  # noqa: F401

        found["torchdata"] = lambda: _torchdata(rows)
    except ImportError:
        print("torchdata is not installed: left out", file=sys.stderr)
    if with_ray:
        try:
            import ray.data  # noqa: F401

            found["ray_data"] = lambda: _ray_data(folder, batch_size)
        except ImportError:
            print("ray[data] is not installed: left out", file=sys.stderr)
    return found


def _torchdata(rows: Rows) -> Iterator[int]:
    from torchdata import nodes

    collated = nodes.ParallelMapper(nodes.IterableWrapper(rows), collate, num_workers=1, method="thread")
    for batch in nodes.Loader(nodes.Prefetcher(collated, prefetch_factor=4)):
        yield len(batch[2])


def _ray_data(folder: Path, batch_size: int) -> Iterator[int]:
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
    while True:
        table = ray.data.read_parquet(str(folder), page_checksum_verification=True)
        for batch in table.iter_batches(batch_size=batch_size, batch_format="pyarrow", prefetch_batches=4):
            rows = batch.combine_chunks().to_batches()[0]  # pyright: ignore[reportAttributeAccessIssue]
            yield len(collate(rows)[2])
