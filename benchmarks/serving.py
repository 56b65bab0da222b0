"""The server beside others with the same bundle, in the setting of a published DLRM serving benchmark.

    python -m benchmarks.serving [--peers FOLDER] [--bundle BUNDLE --rows PARQUET] [--only ours,triton] [--json]
    python -m benchmarks.serving --swaps --minutes 10   # instead: see `benchmarks.serving_swaps`

Raw columns are sent (configs/dlrm_serving.yaml), 32 rows a request, by wrk on the same machine: 400 clients, each with
its next request when the last is answered; then 1,200 requests a second by perf_analyzer, whether the others are
answered or not; then single rows from 32 clients, from one, and from one while another program takes a core. The peers
are Triton (python backend), MLServer and LitServe, with a process per core and batches as ours; in all of them this
project's code scores. They and perf_analyzer get environments of their own below FOLDER, made at the first call
(`benchmarks.peers.install`). One after the other, all on the same cores as the load. Without --bundle, an untrained one
is made first. `--json` ends with one object; null is what could not be measured here, and the screen says why.
"""

import argparse
import dataclasses
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bundle import has_onnx
from benchmarks.peers.install import install
from benchmarks.peers.start import PEERS, ROOT, started
from benchmarks.serving_load import Load, closed_loop, columns_one_after_the_other, open_loop, tensors

CONFIG = ROOT / "configs" / "dlrm_serving.yaml"
ENVIRONMENTS = Path.home() / ".cache" / "multigate" / "peers"
ROWS_EACH, CLIENTS, RATE = 32, 400, 1200


@contextmanager
def ours(bundle: Path, work: Path, config: Path | None = None) -> Iterator[tuple[str, str, int]]:
    """This server: (URL, HOST:PORT, its parent's pid). config: whose section `serve` it takes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "trainer", "serve", str(bundle), "--http-port", str(port), "--name", "ranker"]
    with (work / "ours.log").open("wb+") as log:
        given = ["--config", str(config)] if config else []
        process = subprocess.Popen([*command, "--grpc-port", "0", *given], cwd=ROOT, stderr=log)
        try:
            while b"gRPC" not in (work / "ours.log").read_bytes():
                if process.poll() is not None:
                    raise SystemExit((work / "ours.log").read_text())
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", f"127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def made_bundle(folder: Path, config: Path = CONFIG) -> tuple[Path, Path]:
    """A bundle of the preset after a few steps, and a file of its rows."""
    settings = [
        *(f"data.root={folder}/data", f"training.run_dir={folder}/run", "training.max_steps=5", "launch.workers=1"),
        *("data.generate.train_rows=60000", "data.generate.validation_rows=20000"),
    ]
    export = ["export", str(folder / "run"), *(("--format", "onnx") if has_onnx() else ())]
    for command in (["train", str(config), *settings], export):
        subprocess.run([sys.executable, "-m", "trainer", *command], cwd=ROOT, check=True, stdout=sys.stderr)
    return folder / "run" / "export", next((folder / "data" / "validation").rglob("*.parquet"))


def measure_ours(bundle: Path, rows: pa.Table, peers: Path, seconds: float, work: Path) -> dict[str, Load]:
    """Every load, by its name."""
    perf_analyzer = _installed("tritonclient", peers)
    many, single = tensors(rows, "ranker", ROWS_EACH), tensors(rows, "ranker", 1)
    with ours(bundle, work) as (url, address, _):
        closed_loop(url, many, CLIENTS, 2, work)  # warm
        found = {"dlrm": closed_loop(url, many, CLIENTS, seconds, work)}
        if perf_analyzer is not None:
            found["dlrm_open"] = open_loop(perf_analyzer, address, "ranker", rows, ROWS_EACH, RATE, seconds, work)
        found["one_row"] = closed_loop(url, single, 32, seconds, work)
        found["one_client"] = closed_loop(url, single, 1, seconds, work)
        with busy_core():
            found["one_client_beside_a_busy_core"] = closed_loop(url, single, 1, seconds, work)
    return found


def _installed(name: str, peers: Path) -> Path | None:
    try:
        return install(name, peers)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{name} cannot be installed: {error}", file=sys.stderr)
        return None


@contextmanager
def busy_core() -> Iterator[None]:
    """A program that takes one core all the time."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure_peer(name: str, bundle: Path, rows: pa.Table, peers: Path, seconds: float, work: Path) -> Load:
    """A peer under the first of these loads: with bytes of tensors where it takes them, else with JSON."""
    with started(name, peers, bundle, work) as peer:
        if name == "litserve":
            forms = [columns_one_after_the_other(rows, ROWS_EACH)]
        else:
            forms = [tensors(rows, "ranker", ROWS_EACH, as_bytes=as_bytes) for as_bytes in (True, False)]
        tried = [closed_loop(peer.url, form, 8, 2, work) for form in forms]
        best = max(range(len(forms)), key=lambda place: tried[place].requests_per_second)
        loads = [closed_loop(peer.url, forms[best], clients, seconds, work) for clients in (CLIENTS, 32)]
        best_load = max(loads, key=lambda load: load.requests_per_second)
        if not best_load.requests_per_second:
            raise SystemExit("none of its requests was answered")
        return best_load


def onnx_runtime_512(bundle: Path, rows: pa.Table) -> dict[str, float] | None:
    """Milliseconds of one call at 512 rows, transformed already: ours and ONNX Runtime; None without model.onnx."""
    if not (bundle / "model.onnx").exists() or not has_onnx():
        print("ONNX Runtime is left out: it is not installed, or the bundle has no model.onnx", file=sys.stderr)
        return None
    import torch

    from benchmarks.bundle import _onnx, in_turns
    from trainer.serving.bundle import Bundle

    torch.set_num_threads(1)
    loaded = Bundle(bundle, verify=False)
    columns = [loaded.columns(rows.slice(512 * part, 512), "rows") for part in range(4)]
    return in_turns({"ours": loaded.score, "onnx_runtime": _onnx(loaded)}, columns)


def show(name: str, load: Load) -> None:
    """A line for whoever watches."""
    print(f"{name:<11}", "  ".join(f"{k} {v:,.1f}" for k, v in dataclasses.asdict(load).items()), file=sys.stderr)


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=ENVIRONMENTS, metavar="FOLDER")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", default=",".join(("ours", *PEERS)))
    parser.add_argument("--swaps", action="store_true", help="swap bundles under load instead")
    parser.add_argument("--minutes", type=float, default=10, help="of --swaps")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle, file = (given.bundle, given.rows) if given.bundle else made_bundle(Path(folder))
        numbers = (swaps if given.swaps else measure)(given, bundle, pq.read_table(file), Path(folder))
    if given.json:
        print(json.dumps(numbers))
    elif given.swaps:
        print("\n".join(f"{name:<28} {value:,.1f}" for name, value in numbers.items()), file=sys.stderr)


def swaps(given: argparse.Namespace, bundle: Path, rows: pa.Table, folder: Path) -> dict[str, float]:
    """See `benchmarks.serving_swaps`."""
    from benchmarks.serving_swaps import Newer, measure_swaps
    from trainer.serving.signature import read_signature

    requests = tensors(rows.select(list(read_signature(bundle).columns)), "ranker", ROWS_EACH)
    bundles = Newer(bundle, folder)
    with ours(bundles.link, folder) as (url, _, pid):
        return measure_swaps(url, pid, bundles, requests, CLIENTS, given.minutes * 60, folder)


def measure(given: argparse.Namespace, bundle: Path, rows: pa.Table, folder: Path) -> dict[str, float | None]:
    """All that `--only` names."""
    from trainer.serving.signature import read_signature

    rows, only = rows.select(list(read_signature(bundle).columns)), given.only.split(",")
    numbers: dict[str, float | None] = {}
    ours_per_second = None
    if "ours" in only:
        loads = measure_ours(bundle, rows, given.peers, given.seconds, folder)
        for name, load in loads.items():
            show(name, load)
        numbers = {"dlrm_open_requests_per_second": None, "dlrm_open_p99_ms": None}
        numbers |= {f"{name}_requests_per_second": load.requests_per_second for name, load in loads.items()}
        numbers |= {f"{name}_p99_ms": load.p99_ms for name, load in loads.items()}
        numbers["failed"] = sum(load.failed for load in loads.values())
        ours_per_second = loads["dlrm"].requests_per_second
    for name in filter(only.__contains__, PEERS):
        load = _peer_or_why_not(name, bundle, rows, given, folder)
        numbers[f"{name}_requests_per_second"] = load and load.requests_per_second
        if ours_per_second is not None:
            numbers[f"vs_{name}"] = ours_per_second / load.requests_per_second if load else None
    if "ours" in only:
        times = onnx_runtime_512(bundle, rows)
        numbers["vs_onnx_runtime_512"] = times["onnx_runtime"] / times["ours"] if times else None
    return numbers


def _peer_or_why_not(name: str, bundle: Path, rows: pa.Table, given: argparse.Namespace, folder: Path) -> Load | None:
    if _installed(name, given.peers) is None:
        return None
    work = folder / name
    work.mkdir()
    try:
        load = measure_peer(name, bundle, rows, given.peers, given.seconds, work)
    except (SystemExit, subprocess.CalledProcessError) as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None
    show(name, load)
    return load


if __name__ == "__main__":
    main()
