"""Starts a peer with a bundle, and says how it is called.

Environments lie below a folder, one for each peer: `python -m benchmarks.peers.install FOLDER` makes them.
"""

import os
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.serving.signature import read_signature

ROOT = Path(__file__).parents[2]
PEERS = ("triton", "mlserver", "litserve")


@dataclass(frozen=True)
class Peer:
    """url, grpc: where it listens; pid: of its first process."""

    name: str
    url: str
    grpc: str
    pid: int


@contextmanager
def started(name: str, environments: Path, bundle: Path, work: Path) -> Iterator[Peer]:
    """The peer, ready to answer, until the block ends.

    Args:
        work: an empty folder for its files.
    """
    http, grpc, metrics = (_free_port() for _ in range(3))
    make = {"triton": _triton, "mlserver": _mlserver, "litserve": _litserve}[name]
    command, extra = make(environments / name, bundle, work, http, grpc, metrics)
    environment = os.environ | {
        "MULTIGATE_BUNDLE": str(bundle.absolute()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **extra,
    }
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=work, start_new_session=True)
    try:
        path = "/health" if name == "litserve" else "/v2/health/ready"
        _wait(f"http://127.0.0.1:{http}{path}", process, work / "log")
        yield Peer(name, f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", process.pid)
    finally:
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """Ends a peer and all processes that it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        process.wait()


def _triton(environment: Path, bundle: Path, work: Path, http: int, grpc: int, metrics: int) -> tuple:
    """The server that nvidia-pytriton carries; python backend, one instance per core, dynamic batching."""
    packages = next((environment / "lib").glob("python3*")) / "site-packages"
    home, model = packages / "pytriton" / "tritonserver", work / "models" / "ranker"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text((Path(__file__).parent / "triton_model.py").read_text())
    (model / "config.pbtxt").write_text(_triton_config(bundle))
    python = f"python{packages.parent.name.removeprefix('python')}"
    stub = home / "python_backend_stubs" / python.removeprefix("python") / "triton_python_backend_stub"
    backend = work / "backends" / "python"
    backend.mkdir(parents=True)
    for file in (home / "backends" / "python").iterdir():
        (backend / file.name).symlink_to(file)
    (backend / "triton_python_backend_stub").unlink(missing_ok=True)
    (backend / "triton_python_backend_stub").symlink_to(stub)
    libraries = [packages / "nvidia_pytriton.libs", home / "external_libs", *_python_library()]
    command = [
        home / "bin" / "tritonserver",
        *("--model-repository", work / "models", "--backend-directory", work / "backends"),
        *("--http-port", str(http), "--grpc-port", str(grpc), "--metrics-port", str(metrics)),
        *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1"),
    ]
    paths = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "MULTIGATE_PATH": os.pathsep.join([str(ROOT), str(packages), sysconfig.get_path("purelib")]),
    }
    return command, paths


def _python_library() -> list[Path]:
    """Where libpython lies, which the backend's stub loads."""
    return [Path(str(sysconfig.get_config_var("LIBDIR")))]


def _triton_config(bundle: Path) -> str:
    signature = read_signature(bundle)
    kinds = {"int32": "TYPE_INT32", "int64": "TYPE_INT64", "float": "TYPE_FP32", "double": "TYPE_FP64"}
    inputs = [
        f'{{ name: "{name}" data_type: {kinds.get(kind, "TYPE_STRING")} dims: [ 1 ] }}'
        for name, kind in signature.columns.items()
    ]
    outputs = [f'{{ name: "{task}" data_type: TYPE_FP32 dims: [ 1 ] }}' for task in signature.tasks]
    return f"""name: "ranker"
backend: "python"
max_batch_size: 512
input [ {", ".join(inputs)} ]
output [ {", ".join(outputs)} ]
dynamic_batching {{ }}
instance_group [ {{ count: {os.cpu_count()} kind: KIND_CPU }} ]
"""


def _mlserver(environment: Path, bundle: Path, work: Path, http: int, grpc: int, metrics: int) -> tuple:
    """MLServer with a process per core, and batches."""
    import json

    signature = read_signature(bundle)
    kinds = {"int32": "INT32", "int64": "INT64", "float": "FP32", "double": "FP64"}
    inputs = [
        {"name": name, "datatype": kinds.get(kind, "BYTES"), "shape": [-1, 1]}
        for name, kind in signature.columns.items()
    ]
    outputs = [{"name": task, "datatype": "FP32", "shape": [-1, 1]} for task in signature.tasks]
    model = {
        "name": "ranker",
        "implementation": "benchmarks.peers.mlserver_model.BundleRuntime",
        "inputs": inputs,
        "outputs": outputs,
    }
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": os.cpu_count(),
        "debug": False,
        "use_structured_logging": False,
    }
    (work / "model-settings.json").write_text(json.dumps(model))
    (work / "settings.json").write_text(json.dumps(settings))
    return [environment / "bin" / "mlserver", "start", work], {}


def _litserve(environment: Path, bundle: Path, work: Path, http: int, grpc: int, metrics: int) -> tuple:
    """LitServe with two workers."""
    return [environment / "bin" / "python", ROOT / "benchmarks" / "peers" / "litserve_app.py"], {"PORT": str(http)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None:
            break
        time.sleep(0.3)
    raise SystemExit(f"{url} does not answer; the end of its log:\n{log.read_text(errors='replace')[-6000:]}")
