"""Tensor values as bytes in a file: written in blocks with a running checksum, read back region by region.

Which tensor lies where is `storage`'s business.
"""

import math
from collections.abc import Iterator, Sequence
from typing import IO

import torch
from torch import Tensor

from trainer.checkpoint.sink import Sink

_BLOCK_BYTES = 4 << 20


def write_values(sink: Sink, values: Tensor, *, as_weights: bool = False) -> bool:
    """Appends a tensor of any device, row-major; returns whether all numbers are sound.

    as_weights: what `is_sound` asks of the numbers.
    """
    rows = values.reshape(1) if values.dim() == 0 else values
    sound = True
    if values.nbytes:
        for first, count in _row_blocks(len(rows), values.nbytes // len(rows)):
            block = rows.narrow(0, first, count).to("cpu").contiguous()
            sound = sound and is_sound(block, as_weights=as_weights)  # while it is in the cache
            sink.write(_bytes_of(block))
    sink.align()
    return sound


def is_sound(values: Tensor, *, as_weights: bool = False) -> bool:
    """Whether every number is finite; of weights, whether its square is, since a layer multiplies them.

    A finite sum of squares says so at once. Training that diverges makes weights of 1e30 before infinite ones.
    """
    if not values.is_floating_point():
        return True
    flat = values.reshape(-1).float()
    if bool(torch.dot(flat, flat).isfinite()):
        return True
    return bool((flat.square() if as_weights else values).isfinite().all())


def read_region(
    file: IO[bytes], start: int, sizes: Sequence[int], dtype: torch.dtype, offsets: Sequence[int], target: Tensor
) -> None:
    """Fills `target` with the region at `offsets`, of `target`'s shape, of a chunk of `sizes` at byte `start`.

    Reads the rows of the region and no others, a block at a time.

    Raises:
        EOFError: the file ends before the region does.
    """
    if target.numel() == 0:
        return
    if target.dim() == 0:
        sizes, offsets, target = [1], [0], target.view(1)
    row_bytes = math.prod(sizes[1:]) * dtype.itemsize
    file.seek(start + offsets[0] * row_bytes)
    is_as_stored = (
        target.is_cpu and target.dtype == dtype and target.is_contiguous() and list(target.shape[1:]) == list(sizes[1:])
    )
    block = None
    for first, count in _row_blocks(len(target), row_bytes):
        rows = target.narrow(0, first, count)
        if is_as_stored:
            _fill(file, _bytes_of(rows))
            continue
        block = torch.empty((count, *sizes[1:]), dtype=dtype) if block is None else block[:count]
        _fill(file, _bytes_of(block))
        rows.copy_(_narrowed(block, offsets, target))


def _narrowed(block: Tensor, offsets: Sequence[int], target: Tensor) -> Tensor:
    """The columns of the region."""
    for dim in range(1, target.dim()):
        block = block.narrow(dim, offsets[dim], target.shape[dim])
    return block


def _row_blocks(rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """(first row, rows) of consecutive blocks of about `_BLOCK_BYTES`."""
    step = max(1, _BLOCK_BYTES // max(1, row_bytes))
    return ((first, min(step, rows - first)) for first in range(0, rows, step))


def _bytes_of(values: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor."""
    return values.reshape(-1).view(torch.uint8).numpy().data


def _fill(file: IO[bytes], memory: memoryview) -> None:
    done = 0
    while done < len(memory):
        count = file.readinto(memory[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{getattr(file, 'name', file)} ends {len(memory) - done:,} bytes too early")
        done += count
