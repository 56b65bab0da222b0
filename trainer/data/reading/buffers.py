"""Memory that is used again once nothing looks at it: fresh pages cost as much as the copy into them.

An array handed out is a view; when the last view of it is gone, NumPy's or torch's, its memory waits for the next one.
"""

from __future__ import annotations

import weakref
from collections import defaultdict, deque

import numpy as np
import numpy.typing as npt

_ALIGNMENT = 64  # bytes: a cache line, and what torch's vector loads like


class Buffers:
    """Recycles memory in a few sizes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._free: defaultdict[int, deque[npt.NDArray[np.uint8]]] = defaultdict(deque)

    def take(self, size: int) -> Buffer:
        """A buffer with room for `size` bytes."""
        rounded = _round_up(size)
        try:
            memory = self._free[rounded].pop()
        except IndexError:
            memory = np.empty(rounded, np.uint8)
        view = np.frombuffer(memory.data, np.uint8)  # not the array itself: views of it would outlive a view of it
        weakref.finalize(view, self._free[rounded].append, memory).atexit = False
        return Buffer(view)


class Buffer:
    """A stretch of memory that arrays are carved from, one after the other.

    Attributes:
        size: in bytes.
    """

    def __init__(self, memory: npt.NDArray[np.uint8]) -> None:
        self._memory = memory
        self.size = len(memory)
        self._used = 0

    def carve(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """The next array, its contents undefined."""
        start = self._used
        stop = start + int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        assert stop <= len(self._memory), "more was carved than taken"
        self._used = -(-stop // _ALIGNMENT) * _ALIGNMENT
        return self._memory[start:stop].view(dtype).reshape(shape)


def room(*sizes: int) -> int:
    """Bytes that arrays of these sizes take in one buffer."""
    return sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)


def _round_up(size: int) -> int:
    """The next of the sizes that are kept, at most an eighth larger."""
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return max(1, -(-size // step)) * step
