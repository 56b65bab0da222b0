"""The quickstart's first steps on the CPU and on the device, from the same weights and batches: equal to 1e-4."""

from collections import Counter
from collections.abc import Sequence

import torch

from benchmarks.gpu.worker import Stepping, open_group, preset, random_batches
from configs.schema import Config
from embeddings.kernels import kernels_of
from embeddings.tables import local_shards
from trainer.checkpoint.state import training_state
from trainer.data.reading.batch import Batch
from trainer.ranker import Outputs

TOLERANCE = 1e-4
STEPS = 3


def run(device: str, tiny: bool) -> dict[str, float]:
    """The largest relative differences of loss, predictions and state. Raises AssertionError above the tolerance."""
    here = open_group(device)
    # A larger eps: optimizers divide by it where a gradient is nearly zero, and would magnify rounding without bound.
    eps = ("training.dense_optimizer.eps=1e-3", "training.sparse_optimizer.eps=1e-3")
    config = preset("quickstart", f"data.global_batch_size={512 if tiny else 4096}", *eps)
    batches = random_batches(config, STEPS)
    expected, expected_state = _train(config, torch.device("cpu"), batches)
    found, state = _train(config, here, [batch.pin_memory() for batch in batches] if device == "cuda" else batches)
    differences = {}
    for step, (one, other) in enumerate(zip(expected, found, strict=True), start=1):
        differences[f"loss_{step}"] = _difference(one.loss, other.loss)
        differences[f"predictions_{step}"] = _difference(one.predictions, other.predictions)
    assert expected_state.keys() == state.keys(), sorted(expected_state.keys() ^ state.keys())
    states = {name: _difference(expected_state[name], state[name]) for name in state}
    worst = max(states, key=lambda name: states[name])
    differences["state"] = states[worst]
    print(f"largest difference of state: {worst}, {states[worst]:.1e}")
    large = {name: value for name, value in differences.items() if not value <= TOLERANCE}
    assert not large, f"CPU and {device} differ: {large}"
    return differences


def _train(
    config: Config, device: torch.device, batches: Sequence[Batch]
) -> tuple[list[Outputs], dict[str, torch.Tensor]]:
    stepping = Stepping(config, device)
    places = Counter(str(kernel.current_device) for kernel in kernels_of(stepping.built.model))
    print(f"{device}: fused kernels of tables by device: {dict(places)}")
    outputs = stepping.train(batches, STEPS)
    state = training_state(stepping.built.model, stepping.built.optimizer)
    return outputs, {name: _whole(value) for name, value in state.items()}


def _whole(value: torch.Tensor) -> torch.Tensor:
    parts = [part for part, _ in local_shards(value)]
    return torch.cat([part.detach().cpu().float().flatten() for part in parts])


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Largest |a - b| over the largest |a|, or over 1 if that is less."""
    expected, found = expected.detach().cpu().float(), found.detach().cpu().float()
    if not expected.numel():
        return 0.0
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1))
