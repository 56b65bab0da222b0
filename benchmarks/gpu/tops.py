"""The batched top against the loop over experts and tasks: `benchmarks.top` on this device."""

import argparse
import sys
from contextlib import redirect_stderr

import torch

from benchmarks import top


def run(device: str, tiny: bool) -> dict[str, float]:
    """What `benchmarks.top` prints: speed-ups over the loop in FP32, and shares of the peak in each precision."""
    torch.manual_seed(0)
    with redirect_stderr(sys.stdout):
        sizes = ["reference"] if tiny else list(top.SIZES)
        figures = top.measure(_arguments(device, sizes, seconds=0.1 if tiny else 0.5), 1, "")
        if device == "cuda":
            compiled = _arguments(device, ["reference", "middle"], seconds=0.5, compiled=True)
            figures |= top.measure(compiled, 1, "")
    return figures


def _arguments(device: str, sizes: list[str], seconds: float, *, compiled: bool = False) -> argparse.Namespace:
    return argparse.Namespace(device=device, sizes=sizes, compile=compiled, seconds=seconds)
