"""Examples per second of the whole trainer, beside the same step fed from memory.

    python -m benchmarks.end_to_end CONFIG [key=value ...] [--steps 150] [--rounds 3] [--json]

One worker, in this process, without Ray: reader, transforms, sharded tables, top, both optimizers, with the allocation
settings and the threads that the launcher gives a worker. The yardstick is the same model and pipeline given batches
that were read before. The two take turns, so that a busy machine slows both; the first steps of a turn do not count.
Reading goes on from epoch to epoch, as in training; how long the first batch of all takes is told apart
(`first_batch_seconds`). A turn should outlast what was read ahead when it began, `data.prefetch_mib` of batches.

The reader has a thread of its own. Where it has to share its core with the step (`taskset -c 0`), the ratio cannot
pass step / (step + reader) in CPU time, which is given as `one_core_bound`; a worker with two CPUs has no such bound.
`--json` ends with one object: these, `examples_per_second`, `from_memory`, `end_to_end_vs_memory`, `data_wait_share`.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import cycle, islice
from typing import NamedTuple

from benchmarks.one_worker import finish, parser, start
from trainer.build import build
from trainer.data.reading.batch import Batch
from trainer.pipeline import train_pipeline

WARM_UP, KEPT = 20, 20  # steps, batches


class Turn(NamedTuple):
    """Of some steps. `cpu` is the process's, its reader's threads among them."""

    seconds: float
    cpu: float
    waited: float


def main() -> None:
    arguments = parser(__doc__, steps=150, rounds=3).parse_args()
    config, device, reader = start(arguments, "benchmarks.end_to_end")
    built = build(config, device, 1, None)
    pipeline = train_pipeline(built, device)

    def turn(batches: Iterable[Batch]) -> Turn:
        pipeline.reset()
        source = iter(batches)
        for _ in range(WARM_UP):
            pipeline.progress(source)
        waited, cpu, started = reader.wait_seconds, time.process_time(), time.perf_counter()
        for _ in range(arguments.steps):
            pipeline.progress(source)
        seconds = time.perf_counter() - started
        return Turn(seconds, time.process_time() - cpu, reader.wait_seconds - waited)

    found = defaultdict(list)
    started = time.perf_counter()
    streamed = reader.batches(0, epochs=2**31)
    kept = list(islice(streamed, 1))
    found["first_batch_seconds"].append(time.perf_counter() - started)
    kept += islice(streamed, KEPT - 1)
    rows = arguments.steps * config.data.global_batch_size
    for _ in range(arguments.rounds):
        streamed.close()  # so that the reader's threads rest
        memory = turn(cycle(kept))
        streamed = reader.batches(0, epochs=2**31)
        whole = turn(streamed)
        found["from_memory"].append(rows / memory.seconds)
        found["examples_per_second"].append(rows / whole.seconds)
        found["end_to_end_vs_memory"].append(memory.seconds / whole.seconds)
        found["one_core_bound"].append(min(1.0, memory.cpu / whole.cpu))
        found["data_wait_share"].append(whole.waited / whole.seconds)
    finish({name: statistics.median(numbers) for name, numbers in found.items()}, arguments.json)


if __name__ == "__main__":
    main()
