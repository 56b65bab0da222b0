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
        seconds = 0.1 if tiny else 0.5
        return top.measure(argparse.Namespace(device=device, sizes=sizes, compile=False, seconds=seconds), 1, "")
