"""How fast the reader is, as a share of what pyarrow needs to decode the same columns and do nothing with them.

    python -m benchmarks.reader [--rounds 5] [--transform identity] [--peers] [--ray] [--allocation] [--json]

42 columns (20 IDs, 4 lists of 0 to 19 IDs, 15 floats, 3 labels), zstd with page checksums, row groups of 65,536 rows,
about 410 bytes a row. IDs are 48-bit numbers, Zipf-distributed with exponent 1 over vocabularies of 10^3 to 10^9.

One thread means: one reader thread decodes, transforms, shuffles and gathers; the main thread only takes the batches
and drops them. Raw decode reads whole row groups in the main thread with the same settings: use_threads=False,
checksums verified, the allocation settings that `train` gives its workers. Every measurement stands between two of raw
decode, and is divided by their mean, so that other work on the machine slows both; medians of the rounds are shown. On
one core (`taskset -c 0`) the consumer's time counts too, and two threads are not measured.

One worker reads one lane of eight, as in a run with as many workers as lanes; `*_8_lanes_*` is a single worker that
reads all of them. With `--transform identity` the IDs are row numbers already: what is measured is the stream. `hash`
adds hashing of 58 IDs a row. `--peers` and `--ray` run other loaders beside it, see `benchmarks.reader_peers`;
`--allocation` tells what the allocation settings are worth.

`--json` ends with one object: `raw_rows_per_s`, `ordered_vs_decode`, `shuffled_vs_decode`, `*_8_lanes_vs_decode`,
`cpu_*` (the same by CPU time of the process), `two_threads_vs_one`, `resume_vs_window` (time to the first batch in
mid-epoch over the decode of the row groups that one window touches), `resident_vs_budget` (growth of resident memory
over data.prefetch_mib under a slow consumer), and the peers' rows per second over raw decode's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from trainer.data.reading.allocation import ALLOCATION

BATCH, LANES, WINDOW, ROW_GROUP, ROW_GROUPS_A_FILE = 4096, 8, 16_384, 65_536, 4
IDS, LISTS, FLOATS, LABELS = 20, 4, 15, 3
ROWS, WARM_UP = 8 * ROW_GROUP, 4 * ROW_GROUP  # of one measurement

_ONE_STREAM = """
import pathlib, sys
from benchmarks import reader
stream = reader.open_reader(pathlib.Path(sys.argv[1]), "identity", shuffle=True)
print(reader.speed(reader.batches(stream)).cpu, flush=True)
"""


def write_data(folder: Path, files: int) -> None:
    """One file, and links to it as the others: the page cache holds it, and the disk is not measured."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, rows = np.random.default_rng(0), ROW_GROUP * ROW_GROUPS_A_FILE

    def ids(count: int, vocabulary: int) -> pa.Array:
        """Zipf ranks as 48-bit numbers without order, as raw IDs are."""
        numbers = np.floor(vocabulary ** rng.random(count)).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        numbers ^= numbers >> np.uint64(29)
        return pa.array((numbers * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(16)).astype(np.int64))

    columns: dict[str, pa.Array] = {f"id_{i}": ids(rows, 10 ** (3, 5, 7, 9)[i % 4]) for i in range(IDS)}
    for i in range(LISTS):
        offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 20, rows))]).astype(np.int32)
        columns[f"list_{i}"] = pa.ListArray.from_arrays(pa.array(offsets), ids(int(offsets[-1]), 10**8))
    columns |= {f"x_{i}": pa.array(rng.standard_normal(rows).astype(np.float32)) for i in range(FLOATS)}
    columns |= {f"y_{i}": pa.array((rng.random(rows) < 0.2).astype(np.float32)) for i in range(LABELS)}
    first = folder / "part-000.parquet"
    pq.write_table(pa.table(columns), first, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True)
    for number in range(1, files):
        os.link(first, folder / f"part-{number:03}.parquet")


def open_reader(folder: Path, transform: str, *, shuffle: bool, lanes: int = 1, threads: int = 1, budget: int = 256):
    """A reader of one worker with so many lanes of its own."""
    from configs.schema import DataConfig, DenseFeature, SparseFeature, TableConfig, TaskConfig
    from embeddings.features.feature_transforms import FeatureTransforms
    from trainer.data.dataset.scan import build_manifest
    from trainer.data.reading.reader import Reader

    names = [*(f"id_{i}" for i in range(IDS)), *(f"list_{i}" for i in range(LISTS))]
    features = {name: SparseFeature(table="ids", transform=transform) for name in names}
    dense = {f"x_{i}": DenseFeature() for i in range(FLOATS)}
    tables = {"ids": TableConfig(num_embeddings=2**48, embedding_dim=4)}
    workers = LANES // lanes
    data = DataConfig(
        root=str(folder),
        lanes=LANES,
        global_batch_size=BATCH * workers,
        shuffle_window=WINDOW,
        threads=threads,
        prefetch_mib=budget,
    )
    tasks = {f"y_{i}": TaskConfig() for i in range(LABELS)}
    transforms = FeatureTransforms(features | dense, tables)
    return Reader(build_manifest(str(folder)), data, transforms, tasks, 0, 0, workers, shuffle=shuffle)


def raw_decode(folder: Path) -> Iterator[int]:
    """Rows of decoded and dropped row groups, for ever."""
    import pyarrow.parquet as pq

    while True:
        file = pq.ParquetFile(folder / "part-000.parquet", page_checksum_verification=True)
        for batch in file.iter_batches(ROW_GROUP, use_threads=False):
            yield batch.num_rows


def batches(reader) -> Iterator[int]:
    """Rows of batches, for ever."""
    for batch in reader.batches(0, epochs=2**31):
        yield len(batch.labels)


class Speed(NamedTuple):
    """Rows per second, and rows per second of CPU time of this process."""

    wall: float
    cpu: float


def speed(sizes: Iterator[int], rows: int = ROWS, warm_up: int = WARM_UP) -> Speed:
    take(sizes, warm_up)
    wall, cpu = time.perf_counter(), time.process_time()
    done = take(sizes, rows)
    result = Speed(done / (time.perf_counter() - wall), done / (time.process_time() - cpu))
    sizes.close()  # pyright: ignore[reportAttributeAccessIssue]
    return result


def take(sizes: Iterator[int], rows: int) -> int:
    done = 0
    while done < rows:
        done += next(sizes)
    return done


def first_batch_seconds(folder: Path, transform: str) -> float:
    reader = open_reader(folder, transform, shuffle=True)
    started = time.perf_counter()
    found = reader.batches(0, reader.steps_per_epoch // 2 + 1)
    next(found)
    seconds = time.perf_counter() - started
    found.close()
    return seconds


def peak_over_budget(folder: Path, transform: str, budget: int = 256) -> float:
    """Largest growth of resident memory while one lane is read by a slow consumer, over the budget."""
    reader = open_reader(folder, transform, shuffle=True, budget=budget)
    found, start, peak = reader.batches(0), resident_mib(), 0.0
    for _ in islice(found, 200):
        time.sleep(0.005)
        peak = max(peak, resident_mib() - start)
    found.close()
    return peak / budget


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def subjects(folder: Path, transform: str) -> dict[str, Callable[[], Iterator[int]]]:
    """What is set beside raw decode."""

    def stream(**options) -> Callable[[], Iterator[int]]:
        return lambda: batches(open_reader(folder, transform, **options))

    return {
        "ordered": stream(shuffle=False),
        "shuffled": stream(shuffle=True),
        "ordered_8_lanes": stream(shuffle=False, lanes=8),
        "shuffled_8_lanes": stream(shuffle=True, lanes=8),
    }


def measure(folder: Path, rounds: int, transform: str, others: dict[str, Callable[[], Iterator[int]]]):
    """Medians over the rounds. Rows are whole row groups of every lane: each is decoded once in the time measured."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    found["resident_vs_budget"].append(peak_over_budget(folder, transform))  # first: memory stays at its peak
    two = len(os.sched_getaffinity(0)) > 1
    for number in range(rounds):
        before = speed(raw_decode(folder))
        for name, subject in (subjects(folder, transform) | others).items():
            measured, after = speed(subject()), speed(raw_decode(folder))
            found["raw_rows_per_s"].append(after.wall)
            found[f"{name}_vs_decode"].append(measured.wall * (1 / before.wall + 1 / after.wall) / 2)
            if name not in others:
                found[f"cpu_{name}_vs_decode"].append(measured.cpu * (1 / before.cpu + 1 / after.cpu) / 2)
            before = after
        if two:
            one, both, again = (
                speed(batches(open_reader(folder, transform, shuffle=True, threads=threads))).wall
                for threads in (1, 2, 1)
            )
            found["two_threads_vs_one"].append(both * (1 / one + 1 / again) / 2)
        touched = 2 if WINDOW < ROW_GROUP else 1 + WINDOW // ROW_GROUP
        raw = speed(raw_decode(folder)).wall
        found["resume_vs_window"].append(first_batch_seconds(folder, transform) * raw / (ROW_GROUP * touched))
        print(f"round {number + 1}: {line({name: numbers[-1] for name, numbers in found.items()})}", file=sys.stderr)
    return {name: statistics.median(numbers) for name, numbers in found.items()}


def allocation_gain(folder: Path, rounds: int) -> float:
    """Speed of a shuffled stream in a process with the allocation settings over one without."""
    gains = []
    for _ in range(rounds):
        speeds = []
        for settings in (ALLOCATION, {}):
            plain = {name: value for name, value in os.environ.items() if name not in ALLOCATION}
            done = subprocess.run(
                [sys.executable, "-c", _ONE_STREAM, str(folder)], env=plain | settings, capture_output=True, check=True
            )
            speeds.append(float(done.stdout))
        gains.append(speeds[0] / speeds[1])
    return statistics.median(gains)


def line(numbers: dict[str, float]) -> str:
    return ", ".join(
        f"{name} {value:,.0f}" if value > 100 else f"{name} {value:.3f}" for name, value in numbers.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transform", choices=["identity", "hash"], default="identity")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--allocation", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    settings = {**ALLOCATION, "OMP_NUM_THREADS": "1"}
    if any(os.environ.get(name) != value for name, value in settings.items()):  # they are read when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.reader", *sys.argv[1:]], os.environ | settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, files=40)
        others = {}
        if arguments.peers or arguments.ray:
            from benchmarks.reader_peers import peers

            others = peers(folder, BATCH, with_ray=arguments.ray)
        found = measure(folder, arguments.rounds, arguments.transform, others)
        if arguments.allocation:
            found["allocation_gain"] = allocation_gain(folder, 3)
    for name, value in found.items():
        print(f"{name:32} {value:14,.3f}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found), flush=True)
    sys.stderr.flush()
    os._exit(0)  # readers' and peers' threads are in the middle of an epoch


if __name__ == "__main__":
    main()
