"""How fast the reader is, as a share of what pyarrow needs to decode the same columns and do nothing with them.

    python -m benchmarks.reader [--rows 786432] [--rounds 5] [--transform identity] [--peers] [--json]

42 columns (20 IDs, 4 lists of 0 to 19 IDs, 15 floats, 3 labels), zstd with page checksums, row groups of 65,536 rows.
Both read with one thread, verify checksums, and run with the allocation settings that `train` gives its workers. All
take turns in every round, so that a busy machine slows them alike; medians are shown. One worker reads one lane, as in
a run with as many workers as lanes; `*_8_lanes_*` is a single worker that reads eight.

With `--transform identity` the IDs are row numbers already: what is measured is the stream. `hash` adds the cost of
hashing 58 IDs a row. `--peers` runs other loaders beside it, see `benchmarks.reader_peers`.

`--json` ends with one object: `raw_rows_per_s`, `ordered_vs_decode`, `shuffled_vs_decode`, `*_8_lanes_vs_decode`,
`two_threads_vs_one`, `cpu_*` (the first two by CPU time), `resume_vs_window` (time to the first batch in mid-epoch
over the decode of the row groups that one window touches), `resident_vs_budget`, and rows per second of the peers.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from cluster.launch import ALLOCATION

BATCH, LANES, WINDOW, ROW_GROUP, ROW_GROUPS_A_FILE = 4096, 8, 16_384, 65_536, 4
IDS, LISTS, FLOATS, LABELS = 20, 4, 15, 3


def write_data(folder: Path, files: int) -> None:
    """One file, and links to it as the others: the page cache holds it, and the disk is not measured."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng, rows = np.random.default_rng(0), ROW_GROUP * ROW_GROUPS_A_FILE

    def ids(count: int, exponent: float) -> pa.Array:
        """Zipf ranks as 62-bit numbers without order, as raw IDs are."""
        numbers = (rng.zipf(exponent, count) % 2**62).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        numbers ^= numbers >> np.uint64(29)
        return pa.array((numbers * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(2)).astype(np.int64))

    columns: dict[str, pa.Array] = {f"id_{i}": ids(rows, 1.1 + 0.1 * (i % 4)) for i in range(IDS)}
    for i in range(LISTS):
        offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 20, rows))]).astype(np.int32)
        columns[f"list_{i}"] = pa.ListArray.from_arrays(pa.array(offsets), ids(int(offsets[-1]), 1.2))
    columns |= {f"x_{i}": pa.array(rng.standard_normal(rows).astype(np.float32)) for i in range(FLOATS)}
    columns |= {f"y_{i}": pa.array((rng.random(rows) < 0.2).astype(np.float32)) for i in range(LABELS)}
    first = folder / "part-000.parquet"
    pq.write_table(pa.table(columns), first, row_group_size=ROW_GROUP, compression="zstd", write_page_checksum=True)
    for number in range(1, files):
        os.link(first, folder / f"part-{number:03}.parquet")


def open_reader(folder: Path, transform: str, *, shuffle: bool, lanes: int = 1, threads: int = 1, budget: int = 256):
    """A reader of one worker with so many lanes of its own."""
    from configs.schema import DataConfig, DenseFeature, SparseFeature, TableConfig, TaskConfig
    from embeddings.features import FeatureTransforms
    from trainer.data.reader import Reader
    from trainer.data.scan import build_manifest

    names = [*(f"id_{i}" for i in range(IDS)), *(f"list_{i}" for i in range(LISTS))]
    features = {name: SparseFeature(table="ids", transform=transform) for name in names}
    dense = {f"x_{i}": DenseFeature() for i in range(FLOATS)}
    tables = {"ids": TableConfig(num_embeddings=2**62, embedding_dim=4)}
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
    """Rows of decoded and dropped batches, for ever."""
    import pyarrow.parquet as pq

    while True:
        file = pq.ParquetFile(folder / "part-000.parquet", page_checksum_verification=True)
        for batch in file.iter_batches(65_536, use_threads=False):
            yield batch.num_rows


def batches(reader) -> Iterator[int]:
    """Rows of batches, for ever."""
    for epoch in range(2**31):
        for batch in reader.batches(epoch):
            yield len(batch.labels)


def speed(sizes: Iterator[int], rows: int, warm_up: int) -> tuple[float, float]:
    """Rows per second, and rows per second of CPU time of this process, after `warm_up` rows."""
    take(sizes, warm_up)
    wall, cpu = time.perf_counter(), time.process_time()
    done = take(sizes, rows)
    result = done / (time.perf_counter() - wall), done / (time.process_time() - cpu)
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


def peak_over_budget(folder: Path, transform: str, budget: int) -> float:
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


def measure(folder: Path, rows: int, rounds: int, transform: str) -> dict[str, float]:
    """Medians over the rounds. Rows are whole row groups of every lane: each is decoded once in the time measured."""
    period = ROW_GROUP * 8
    rows = -(-rows // period) * period
    subjects: dict[str, Callable[[], Iterator[int]]] = {
        "raw": lambda: raw_decode(folder),
        "ordered": lambda: batches(open_reader(folder, transform, shuffle=False)),
        "shuffled": lambda: batches(open_reader(folder, transform, shuffle=True)),
        "two": lambda: batches(open_reader(folder, transform, shuffle=True, threads=2)),
        "ordered_8_lanes": lambda: batches(open_reader(folder, transform, shuffle=False, lanes=8)),
        "shuffled_8_lanes": lambda: batches(open_reader(folder, transform, shuffle=True, lanes=8)),
    }
    found: defaultdict[str, list[float]] = defaultdict(list)
    found["resident_vs_budget"].append(peak_over_budget(folder, transform, 256))  # first: memory stays at its peak
    for number in range(rounds):
        speeds = {name: speed(subject(), rows, period // 2) for name, subject in subjects.items()}
        raw, raw_cpu = speeds["raw"]
        found["raw_rows_per_s"].append(raw)
        for name in ("ordered", "shuffled", "ordered_8_lanes", "shuffled_8_lanes"):
            found[f"{name}_vs_decode"].append(speeds[name][0] / raw)
            found[f"cpu_{name}_vs_decode"].append(speeds[name][1] / raw_cpu)
        found["two_threads_vs_one"].append(speeds["two"][0] / speeds["shuffled"][0])
        touched = 2 if WINDOW < ROW_GROUP else 1 + WINDOW // ROW_GROUP
        found["resume_vs_window"].append(first_batch_seconds(folder, transform) * raw / (ROW_GROUP * touched))
        print(f"round {number + 1}: {values({name: numbers[-1] for name, numbers in found.items()})}", file=sys.stderr)
    return {name: statistics.median(numbers) for name, numbers in found.items()}


def values(numbers: Iterable[str] | dict[str, float]) -> str:
    assert isinstance(numbers, dict)
    return ", ".join(
        f"{name} {value:,.0f}" if value > 100 else f"{name} {value:.3f}" for name, value in numbers.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2 * 8 * ROW_GROUP)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transform", choices=["identity", "hash"], default="identity")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    settings = {**ALLOCATION, "OMP_NUM_THREADS": "1"}
    if any(os.environ.get(name) != value for name, value in settings.items()):  # they are read when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.reader", *sys.argv[1:]], os.environ | settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, files=40)
        found = measure(folder, arguments.rows, arguments.rounds, arguments.transform)
        if arguments.peers:
            from benchmarks.reader_peers import measure_peers

            found |= measure_peers(folder, min(arguments.rows, ROW_GROUP * ROW_GROUPS_A_FILE))
    for name, value in found.items():
        print(f"{name:32} {value:14,.3f}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
