"""What the request log costs a server: requests a second with and without it, in turns.

    python -m benchmarks.request_log [--bundle BUNDLE --rows PARQUET] [--seconds 4] [--turns 3] [--json]

wrk sends tensors as bytes from 32 clients, each with its next request when the last is answered: single rows, then 32
rows a request. A figure is the median of the turns; the server with the log writes every row. Without --bundle, one of
configs/quickstart.yaml is made.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.candidates import as_tensors
from benchmarks.peers.start import ROOT
from benchmarks.serving import made_bundle, ours
from benchmarks.serving_load import closed_loop
from trainer.serving.signature import read_signature

CLIENTS, ROWS, PRESET = 32, (1, 32), ROOT / "configs" / "quickstart.yaml"


def measure(bundle: Path, rows: pa.Table, seconds: float, turns: int, folder: Path) -> dict[str, float]:
    """Requests a second by form, and what share of them the log takes away."""
    rates: dict[str, list[float]] = {}
    requests = {each: as_tensors([rows.slice(0, each).combine_chunks()]) for each in ROWS}
    for turn in range(turns):
        logging = folder / "logging.yaml"
        logging.write_text(PRESET.read_text() + f"\nserve: {{request_log: {folder / f'log_{turn}'}}}\n")
        for name, config in (("without", PRESET), ("with", logging)):
            with ours(bundle, folder, config) as (url, _, _):
                closed_loop(url, requests[1], CLIENTS, 1, folder)  # warm
                for each, request in requests.items():
                    load = closed_loop(url, request, CLIENTS, seconds, folder)
                    if load.failed:
                        raise SystemExit(f"{load.failed} requests failed")
                    rates.setdefault(f"{each}_rows_{name}", []).append(load.requests_per_second)
    found = {name: median(values) for name, values in rates.items()}
    for each in ROWS:
        found[f"{each}_rows_cost"] = 1 - found[f"{each}_rows_with"] / found[f"{each}_rows_without"]
    return found


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle, file = (given.bundle, given.rows) if given.bundle else made_bundle(Path(folder), PRESET)
        rows = pq.ParquetFile(file).read(columns=list(read_signature(bundle).columns))
        numbers = measure(bundle, rows, given.seconds, given.turns, Path(folder))
    for name, value in numbers.items():
        print(f"{name:<24} {value:,.3f}", file=sys.stderr)
    if given.json:
        print(json.dumps(numbers))


if __name__ == "__main__":
    main()
