"""How fast this machine multiplies matrices and moves bytes, on one thread, in the thread's own time.

The peak is of square FP32 products that fit the caches well, by whichever of torch's kernels is fastest; the rate is of
a copy of arrays larger than any cache, its reads and its writes counted.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from models.batched.products import product

_SQUARES = (512, 1024, 1536)
_COPY_MIB = 64, 512  # at least, at most


class Machine:
    """Speeds as medians of all the calls of `measure`, which should lie between what they are compared with."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[float, Callable[[], object]]] = {}  # name -> (work, call)
        for size in _SQUARES:
            a, b = torch.randn(size, size), torch.randn(size, size)
            self._calls[f"mm {size}"] = 2 * size**3, lambda a=a, b=b: torch.mm(a, b)
            self._calls[f"product {size}"] = 2 * size**3, lambda a=a, b=b: product(a, b)
        count = _copied_bytes() // 4
        source, target = torch.ones(count), torch.zeros(count)
        self._calls["copy"] = 2 * 4 * count, lambda: target.copy_(source)
        self._rates: dict[str, list[float]] = defaultdict(list)
        self.measure()
        self._rates.clear()  # pages were faulted in, kernels compiled

    def measure(self) -> None:
        for name, (work, call) in self._calls.items():
            started = time.thread_time()
            call()
            self._rates[name].append(work / (time.thread_time() - started))

    @property
    def peak(self) -> float:
        """Floating-point operations per second."""
        return max(rate for name, rate in self._medians().items() if name != "copy")

    @property
    def copy_rate(self) -> float:
        """Bytes per second, read and written."""
        return self._medians()["copy"]

    def _medians(self) -> dict[str, float]:
        return {name: statistics.median(rates) for name, rates in self._rates.items()}


def _copied_bytes() -> int:
    """Twice the largest cache that Linux tells of, within bounds."""
    sizes = [file.read_text().strip() for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    largest = max((int(size.removesuffix("K")) << 10 for size in sizes if size.endswith("K")), default=0)
    least, most = _COPY_MIB
    return min(max(2 * largest, least << 20), most << 20)
