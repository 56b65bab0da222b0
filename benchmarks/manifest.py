"""How long it takes to find out what a data set of 100,000 row groups holds, and how much memory.

    python -m benchmarks.manifest [--files 2000] [--row-groups 50] [--columns 42] [--rounds 3] [--json]

Real footers: one file of so many row groups, and links to it as the others, in ten partitions. The files are in the
page cache; an object store adds two requests a file, 24 files at a time. Building the manifest takes turns with a plain
loop of pyarrow.parquet.read_metadata over the same files; the best of the rounds is shown.

`--json` ends with one object: `seconds`, `row_groups`, `vs_read_metadata` (time over that of the plain loop; below 1
is faster), `again_seconds` (with a manifest of the same files at hand), `load_seconds` and `mib` (reading what a run
directory keeps, and its size), `resident_mib` (peak memory that building it added).
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest

PARTITIONS, ROWS = 10, 4  # rows of a row group: a footer does not grow with them


def write_data(root: Path, files: int, row_groups: int, columns: int) -> list[Path]:
    numbers = np.arange(row_groups * ROWS)
    table = pa.table({f"column_{i}": numbers for i in range(columns)})
    first = root / "first.parquet"
    pq.write_table(table, first, row_group_size=ROWS, write_page_checksum=True)
    paths = [root / f"train/day={number * PARTITIONS // files}/part-{number:06}.parquet" for number in range(files)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(first, path)
    return paths


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(root: Path, paths: list[Path], rounds: int) -> dict[str, float]:
    before = peak_mib()
    manifest = build_manifest(str(root), "train")
    found: dict[str, float] = {"row_groups": len(manifest.row_groups), "resident_mib": peak_mib() - before}
    kept = json.dumps(manifest.to_json())
    build, plain = [], []
    for _ in range(rounds):
        build.append(seconds(lambda: build_manifest(str(root), "train")))
        plain.append(seconds(lambda: [pq.read_metadata(path) for path in paths]))
    return found | {
        "seconds": min(build),
        "vs_read_metadata": min(build) / min(plain),
        "again_seconds": seconds(lambda: build_manifest(str(root), "train", known=manifest)),
        "load_seconds": seconds(lambda: Manifest.from_json(json.loads(kept))),
        "mib": len(kept) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--row-groups", type=int, default=50)
    parser.add_argument("--columns", type=int, default=42)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        paths = write_data(Path(name), arguments.files, arguments.row_groups, arguments.columns)
        found = measure(Path(name), paths, arguments.rounds)
    for key, value in found.items():
        print(f"{key:20} {value:12,.3f}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
