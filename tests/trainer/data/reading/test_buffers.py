"""Recycled memory: used again when nothing looks at it, never before."""

import gc

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.reading.buffers import Buffers, room


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    buffers = Buffers()
    first = buffers.take(10_000).carve((100,), np.int64)
    place = address(first)
    tensor = torch.from_numpy(first)[10:20]
    del first
    gc.collect()
    second = buffers.take(10_000).carve((100,), np.int64)
    assert address(second) != place
    del tensor
    gc.collect()
    assert address(buffers.take(10_000).carve((100,), np.int64)) == place


def test_arrays_of_a_buffer_do_not_overlap() -> None:
    shapes = [(3, 5), (0, 4), (7,), (1,)]
    sizes = [4 * int(np.prod(shape)) for shape in shapes]
    buffer = Buffers().take(room(*sizes))
    arrays = [buffer.carve(shape, np.float32) for shape in shapes]
    for number, array in enumerate(arrays):
        array.fill(number)
    assert all((array == number).all() for number, array in enumerate(arrays))


@given(st.integers(0, 10**9))
def test_rounding_wastes_little(size: int) -> None:
    from trainer.data.reading.buffers import _round_up

    assert size <= _round_up(size) <= size * 1.125 + 4096
