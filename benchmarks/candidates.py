"""One user with many candidates: the user's columns sent once, beside the same request with them repeated for each row.

    python -m benchmarks.candidates [--bundle BUNDLE --rows PARQUET --user COLUMN,...] [--candidates 200] [--length 100]
        [--json]

One running server, one client on one connection (of one process), which sends each form in turns: tensors as bytes,
with the parameter `broadcast`, and JSON rows, with `shared`. A time is the median of whole calls, from the first byte
sent to the last one read; then 8 clients of wrk send each form as fast as it is answered, in three turns. The parts of
a call are timed beside that, in this process: how long the transforms take of columns that are there once and of
repeated ones, and how long the scores. Without --bundle, one of configs/quickstart.yaml is made first. The answers of
all forms are compared.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.peers.start import ROOT
from benchmarks.serving import made_bundle, ours
from benchmarks.serving_load import HEADER_LENGTH, Requests, closed_loop
from trainer.serving.bundle import Bundle

USER = "user_id,history,history_weight,device,hour,age,context"
_ROUNDS = 3
_DATATYPES = {"int32": "INT32", "int64": "INT64", "float": "FP32", "double": "FP64", "string": "BYTES"}


def one_user(rows: pa.Table, user: list[str], candidates: int, length: int) -> tuple[pa.Table, pa.Table]:
    """The columns of a user who has a value in each, with lists of `length`, and those of the first candidates."""
    row = max(range(min(rows.num_rows, 2000)), key=lambda place: _size(rows.select(user).slice(place, 1)))
    chosen = rows.select(user).slice(row, 1).combine_chunks()
    for place, name in enumerate(chosen.column_names):
        if pa.types.is_list(chosen.schema.field(name).type):
            values = np.resize(chosen[name].combine_chunks().flatten().to_numpy(), length)
            chosen = chosen.set_column(place, name, [pa.array([values], chosen.schema.field(name).type)])
    return chosen, rows.drop_columns(user).slice(0, candidates).combine_chunks()


def _size(row: pa.Table) -> int:
    return 0 if any(column.null_count for column in row.columns) else row.nbytes


def repeated(user: pa.Table, candidates: pa.Table) -> pa.Table:
    """The rows that both are, as a client without `broadcast` sends them."""
    columns = user.take(np.zeros(candidates.num_rows, np.int64))
    for name in candidates.column_names:
        columns = columns.append_column(name, candidates[name])
    return columns


def as_tensors(parts: list[pa.Table]) -> Requests:
    """One request of the Open Inference Protocol with the columns of `parts`, of which one may have one row."""
    inputs, tail = [], b""
    for part in parts:
        for name in part.column_names:
            for tensor, datatype, shape, data in _tensors(name, part[name].combine_chunks()):
                size = {"binary_data_size": len(data)}
                inputs.append({"name": tensor, "shape": shape, "datatype": datatype, "parameters": size})
                tail += data
    header = json.dumps({"inputs": inputs, "parameters": {"broadcast": len(parts) > 1}}).encode()
    headers = {HEADER_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"}
    return Requests("/v2/models/ranker/infer", headers, [header + tail])


def _tensors(name: str, column: Any) -> list[tuple[str, str, list[int], bytes]]:
    """(name, datatype, shape, bytes) of a column: two tensors where its rows are lists of any length."""
    kind, rows = column.type, len(column)
    if pa.types.is_list(kind):
        lengths = np.diff(column.offsets.to_numpy()).astype(np.int32)
        values = column.flatten()
        return [*_tensors(name, values), (f"{name}.lengths", "INT32", [rows], lengths.tobytes())]
    if pa.types.is_fixed_size_list(kind):
        ((_, datatype, _, data),) = _tensors(name, column.flatten())
        return [(name, datatype, [rows, kind.list_size], data)]
    if pa.types.is_string(kind):
        texts = [text.encode() for text in column.fill_null("").to_pylist()]
        return [(name, "BYTES", [rows], b"".join(len(text).to_bytes(4, "little") + text for text in texts))]
    return [(name, _DATATYPES[str(kind)], [rows], column.fill_null(0).to_numpy().tobytes())]


def as_json(parts: list[pa.Table]) -> Requests:
    """A request to /predict."""
    *shared, rows = parts
    body = {"rows": rows.to_pylist()} | ({"shared": shared[0].to_pylist()[0]} if shared else {})
    return Requests("/predict", {"Content-Type": "application/json"}, [json.dumps(body).encode()])


def in_turns(calls: Mapping[str, Callable[[], Any]], turns: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median milliseconds of each, after a tenth of the turns that does not count, and what each gave last."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    gave = {}
    for _ in range(turns):
        for name, call in calls.items():
            begin = time.perf_counter()
            gave[name] = call()
            took[name].append((time.perf_counter() - begin) * 1e3)
    return {name: median(values[turns // 10 :]) for name, values in took.items()}, gave


def over_http(address: str, requests: Mapping[str, Requests], turns: int) -> dict[str, float]:
    """Milliseconds of each request, on one connection."""
    connection = HTTPConnection(address)

    def call(request: Requests) -> bytes:
        connection.request("POST", request.path, request.bodies[0], request.headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{request.path}: {answer.status} {body[:500]!r}")
        return body

    times, answers = in_turns({name: lambda r=r: call(r) for name, r in requests.items()}, turns)
    for form in ("tensors", "json"):
        _must_agree(json.loads(answers[f"{form}_once"]), json.loads(answers[f"{form}_repeated"]))
    return times


def _must_agree(once: Any, repeated: Any) -> None:
    def numbers(part: Any) -> list[float]:
        if isinstance(part, dict | list):
            return [n for one in (part.values() if isinstance(part, dict) else part) for n in numbers(one)]
        return [part] if isinstance(part, float) else []

    np.testing.assert_allclose(numbers(once), numbers(repeated), rtol=0, atol=1e-6)
    assert numbers(once), "no scores"


def of_parts(bundle: Bundle, user: pa.Table, candidates: pa.Table, turns: int) -> dict[str, float]:
    """Milliseconds of the transforms of each form, and of the scores."""
    halves = bundle.halves(frozenset(user.column_names))
    rows = repeated(user, candidates)
    columns = bundle.columns(rows, "rows")
    once, each = bundle.columns(user, "rows", 0, halves.once), bundle.columns(candidates, "rows", 0, halves.each)
    calls = {
        "transform_repeated": lambda: bundle.columns(rows, "rows"),
        "transform_once": lambda: [
            bundle.columns(part, "rows", 0, half) for part, half in ((user, halves.once), (candidates, halves.each))
        ],
        "score_repeated": lambda: bundle.score(columns),
        "score_once": lambda: bundle.score_shared(halves, once, each, np.zeros(candidates.num_rows, np.int64)),
    }
    return in_turns(calls, turns)[0]


def measure(given: argparse.Namespace, bundle: Path, rows: pa.Table, folder: Path) -> dict[str, float]:
    """Milliseconds by form, and how much longer the repeated one takes."""
    torch.set_num_threads(1)
    loaded = Bundle(bundle, verify=False)
    rows = rows.select(loaded.transforms.columns)
    user, candidates = one_user(rows, given.user.split(","), given.candidates, given.length)
    whole = repeated(user, candidates)
    requests = {
        "tensors_once": as_tensors([user, candidates]),
        "tensors_repeated": as_tensors([whole]),
        "json_once": as_json([user, candidates]),
        "json_repeated": as_json([whole]),
    }
    with ours(bundle, folder) as (url, address, _):
        times = over_http(address, requests, given.turns)
        rounds = [
            {
                name: closed_loop(url, one, 8, given.seconds, folder).requests_per_second
                for name, one in requests.items()
            }
            for _ in range(_ROUNDS)
        ]
    times |= of_parts(loaded, user, candidates, given.turns)
    found = {f"{name}_ms": value for name, value in times.items()}
    found |= {f"{name}_bytes": len(request.bodies[0]) for name, request in requests.items()}
    found |= {f"{name}_requests_per_second": median(one[name] for one in rounds) for name in requests}
    for name, form in (("vs_repeated", "tensors"), ("json_vs_repeated", "json")):
        found[f"{name}_{given.candidates}"] = times[f"{form}_repeated"] / times[f"{form}_once"]
        ratios = [one[f"{form}_once"] / one[f"{form}_repeated"] for one in rounds]
        found[f"{name}_{given.candidates}_under_load"] = median(ratios)
    return found


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--user", default=USER, help="columns that belong to the user")
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--length", type=int, default=100, help="of the user's lists")
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=3, help="of load, for each form")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        preset = ROOT / "configs" / "quickstart.yaml"
        bundle, file = (given.bundle, given.rows) if given.bundle else made_bundle(Path(folder), preset)
        numbers = measure(given, bundle, pq.ParquetFile(file).read(), Path(folder))
    for name, value in numbers.items():
        print(f"{name:<36} {value:,.3f}", file=sys.stderr)
    if given.json:
        print(json.dumps(numbers))


if __name__ == "__main__":
    main()
