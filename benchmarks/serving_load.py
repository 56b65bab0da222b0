"""Load on a server from programs that are not this project's: wrk (closed loop) and perf_analyzer (open loop).

wrk is Debian's package of that name. perf_analyzer lies in tritonclient 2.46.0, the last that carries it; its
environment is the one that `benchmarks.peers.install` makes.
"""

import base64
import csv
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

HEADER_LENGTH = "Inference-Header-Content-Length"
_DATATYPES = {"int32": "INT32", "int64": "INT64", "float": "FP32", "double": "FP64"}
_LUA = """
local bodies, n = {}, 0
for i = 0, COUNT - 1 do
  local file = io.open("FOLDER/" .. i, "rb")
  bodies[i] = wrk.format("POST", "PATH", {HEADERS}, file:read("*a"))
  file:close()
end
request = function() n = (n + 1) % COUNT; return bodies[n] end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """What came out. failed: requests that were not answered with 2xx."""

    requests_per_second: float
    p50_ms: float
    p99_ms: float
    failed: int


@dataclass(frozen=True)
class Requests:
    """Bodies for a path of a server. headers: of each."""

    path: str
    headers: dict[str, str]
    bodies: Sequence[bytes]


def tensors(rows: pa.Table, model: str, rows_each: int, count: int = 64, as_bytes: bool = True) -> Requests:
    """Requests of the Open Inference Protocol with raw columns of single values, as bytes or as JSON."""
    bodies, length = [], 0
    for place in range(count):
        part = rows.slice(place * rows_each % (rows.num_rows - rows_each), rows_each)
        inputs, tail = [], b""
        for name in part.column_names:
            values = part[name].combine_chunks().fill_null(0).to_numpy()
            one = {"name": name, "shape": [rows_each, 1], "datatype": _DATATYPES[str(part.schema.field(name).type)]}
            if as_bytes:
                one["parameters"] = {"binary_data_size": values.nbytes}
                tail += values.tobytes()
            else:
                one["data"] = values.tolist()
            inputs.append(one)
        wanted = {"parameters": {"binary_data_output": True}} if as_bytes else {}
        header = json.dumps({"inputs": inputs, **wanted}).encode()
        length = len(header)
        bodies.append(header + tail)
    headers = {HEADER_LENGTH: str(length), "Content-Type": "application/octet-stream"} if as_bytes else {}
    return Requests(f"/v2/models/{model}/infer", headers, bodies)


def columns_one_after_the_other(rows: pa.Table, rows_each: int, count: int = 64) -> Requests:
    """Bodies of numbers alone, [C, R] int64 as Base64 in JSON, for a server without a protocol for tensors."""
    parts = [rows.slice(place * rows_each % (rows.num_rows - rows_each), rows_each) for place in range(count)]
    bodies = [b"".join(c.cast(pa.int64()).fill_null(0).to_numpy().tobytes() for c in part.columns) for part in parts]
    texts = [json.dumps({"data": base64.b64encode(body).decode()}).encode() for body in bodies]
    return Requests("/predict", {"Content-Type": "application/json"}, texts)


def closed_loop(url: str, requests: Requests, clients: int, seconds: float, work: Path) -> Load:
    """`clients` connections; each sends its next request when the one before is answered."""
    folder = work / "bodies"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for place, body in enumerate(requests.bodies):
        (folder / str(place)).write_bytes(body)
    headers = ", ".join(f'["{name}"]="{value}"' for name, value in requests.headers.items())
    script = _LUA.replace("COUNT", str(len(requests.bodies))).replace("FOLDER", str(folder))
    (work / "load.lua").write_text(script.replace("PATH", requests.path).replace("HEADERS", headers))
    whole = max(1, round(seconds))  # wrk takes no parts of a second
    command = ["wrk", "-t1", f"-c{clients}", f"-d{whole}s", "--timeout", "30s", "-s", str(work / "load.lua"), url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(said.strip().splitlines()[-1])
    answered = found["requests"] - found["failed"]
    return Load(answered / found["seconds"], found["p50_ms"], found["p99_ms"], found["failed"])


def open_loop(
    environment: Path, address: str, model: str, rows: pa.Table, rows_each: int, rate: int, seconds: float, work: Path
) -> Load:
    """`rate` requests a second over HTTP, whether those before are answered or not; latency from when they were due."""
    (work / "data.json").write_text(json.dumps({"data": _streams(rows, rows_each)}))
    library = next((environment / "lib").glob("python3*/site-packages/nvidia/cuda_runtime/lib"))
    command = [
        *(str(environment / "bin" / "perf_analyzer"), "-m", model, "-u", address, "-b", str(rows_each)),
        *("--input-data", str(work / "data.json"), "--request-rate-range", str(rate), "--max-threads", "16"),
        *("--request-distribution", "poisson", "--measurement-interval", str(int(seconds * 1000))),
        *("--stability-percentage", "999", "--max-trials", "3", "--percentile", "99", "-f", str(work / "perf.csv")),
    ]
    environ = os.environ | {"LD_LIBRARY_PATH": str(library)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    if done.returncode:
        raise SystemExit(f"perf_analyzer failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with (work / "perf.csv").open() as file:
        (line,) = csv.DictReader(file)
    return Load(
        float(line["Inferences/Second"]) / rows_each, *(float(line[f"p{p} latency"]) / 1e3 for p in (50, 99)), 0
    )


def _streams(rows: pa.Table, rows_each: int) -> list[dict]:
    """perf_analyzer's form of data: one entry per row, of which it sends as many in one request as -b says."""
    return [{name: [value or 0] for name, value in row.items()} for row in rows.slice(0, rows_each * 32).to_pylist()]
