"""Examples per second of the trainer's step in each precision, compiled or not, fed from memory.

    python -m benchmarks.precision CONFIG [key=value ...] [--steps 20] [--rounds 5] [--no-compile] [--json]

One worker, in this process, without Ray: sharded tables, top, both optimizers, one model for each value of
`training.precision` and `training.compile`. They take turns and the fastest turn of each counts; on one core its time
is the thread's own, so that a busy machine disturbs it little. `--json` ends with one object: examples per second by
variant, and the same over FP32's ending in `_speedup`.
"""

import time
from itertools import cycle

import torch

from benchmarks.one_worker import finish, keep_batches, parser, start
from trainer.build import build
from trainer.data.reading.batch import Batch
from trainer.pipeline import Pipeline, train_pipeline

KEPT = 8
"""Batches in memory."""


def drive(pipeline: Pipeline, batches: list[Batch], steps: int) -> float:
    """Seconds of `steps` steps."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    pipeline.reset()
    source = cycle(batches)
    pipeline.progress(source)  # fills the pipeline
    started = clock()
    for _ in range(steps):
        pipeline.progress(source)
    return clock() - started


def main() -> None:
    options = parser(__doc__, steps=20, rounds=5)
    options.add_argument("--no-compile", action="store_true", help="leave out what takes a minute to start")
    arguments = options.parse_args()
    config, device, reader = start(arguments, "benchmarks.precision")
    kept = keep_batches(reader, KEPT)
    pipelines: dict[str, Pipeline] = {}
    for compiled in (False,) if arguments.no_compile else (False, True):
        for precision in ("fp32", "bf16"):
            choice = {"precision": precision, "compile": compiled}
            training = config.training.model_copy(update=choice)
            built = build(config.model_copy(update={"training": training}), device, 1, None)
            pipeline = train_pipeline(built, device)
            pipelines[f"{precision}_compiled" if compiled else precision] = pipeline
            drive(pipeline, kept, 4)
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(arguments.rounds):
        for name, pipeline in pipelines.items():
            seconds[name].append(drive(pipeline, kept, arguments.steps))
    rows = arguments.steps * config.data.global_batch_size
    values = {name: rows / min(turns) for name, turns in seconds.items()}
    values |= {f"{name}_speedup": values[name] / values["fp32"] for name in pipelines}
    finish(values, arguments.json)


if __name__ == "__main__":
    main()
