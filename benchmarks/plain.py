"""The trainer's step against the same step in plain PyTorch and in torchrec's own way.

    python -m benchmarks.plain CONFIG [key=value ...] [--steps 6] [--rounds 6] [--no-compile] [--json]

All train on the same batches, held in memory, one thread, FP32, and take turns in one process. A time is the CPU time
of all threads of the process for one step: gloo has threads of its own. The ratio is theirs over ours, of the medians
of a turn, and the median over rounds: above 1, ours is faster.

- `plain`: nn.EmbeddingBag(sparse=True) for each table with torch.optim.Adagrad; nn.Sequential experts, gates and
  towers in a Python loop, torch.stack and an einsum to mix; Adam(fused=True); binary cross-entropy with logits;
  zero_grad(set_to_none=True); fed one tensor of IDs and one of offsets for each feature, not compiled.
- `plain_compiled`: its top by torch.compile.
- `torchrec`: EmbeddingBagCollection with fused row-wise Adagrad, DistributedModelParallel as it comes,
  TrainPipelineSparseDist, and the same loop over experts.

Their row-wise or plain Adagrad and their loss are part of the recipe, whatever the config says. `--json` ends with one
object: `vs_plain`, `vs_plain_compiled` where torch.compile works, `vs_torchrec`, and `ms` and `examples_per_second` of
each.
"""

import statistics
import sys
import time
from collections.abc import Mapping

import torch

from benchmarks.one_worker import TrainersStep, finish, keep_batches, parser, start
from benchmarks.plain_loops import Step, plain_step, torchrec_step
from trainer.build import build

KEPT, WARM_UP = 16, 4  # batches, steps


def main() -> None:
    options = parser(__doc__, steps=6, rounds=6)
    options.add_argument("--no-compile", action="store_true", help="leave out what takes a while to start")
    arguments = options.parse_args()
    config, device, reader = start(arguments, "benchmarks.plain")
    torch.set_num_threads(1)
    batches = keep_batches(reader, KEPT)
    steps: dict[str, Step] = {
        "ours": TrainersStep(build(config, device, 1, None), config, device, batches),
        "plain": plain_step(config, batches, compiled=False),
        "torchrec": torchrec_step(config, batches),
    }
    if not arguments.no_compile:
        steps["plain_compiled"] = plain_step(config, batches, compiled=True)
    warm_up(steps)
    turns: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            turns[name].append(statistics.median(cpu_seconds(step) for _ in range(arguments.steps)))
    values = compared(turns, config.data.global_batch_size)
    finish(values, arguments.json)


def warm_up(steps: dict[str, Step]) -> None:
    """The first steps; the compiled loop is left out where torch cannot compile it."""
    for name, step in list(steps.items()):
        try:
            for _ in range(WARM_UP):
                step()
        except RuntimeError as error:
            if name != "plain_compiled":
                raise
            print(f"torch.compile does not work here: {error}", file=sys.stderr)
            del steps[name]


def cpu_seconds(step: Step) -> float:
    """Of all threads of this process."""
    started = time.process_time()
    step()
    return time.process_time() - started


def compared(turns: Mapping[str, list[float]], rows: int) -> dict[str, float]:
    """Milliseconds and examples per second of each, and the others over ours."""
    values = {}
    for name, seconds in turns.items():
        median = statistics.median(seconds)
        values[f"{name}_ms"] = median * 1e3
        values[f"{name}_examples_per_second"] = rows / median
    for name in (name for name in turns if name != "ours"):
        ratios = [theirs / ours for theirs, ours in zip(turns[name], turns["ours"], strict=True)]
        values[f"vs_{name}"] = statistics.median(ratios)
    return values


if __name__ == "__main__":
    main()
