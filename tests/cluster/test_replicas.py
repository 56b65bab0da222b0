"""A server as two replicas under a real Ray Serve, from the config file that lies beside the code."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.trainer.export.exported_runs import exported, rows
from trainer.serving.bundle import Bundle

ROOT = Path(__file__).parents[2]
RUN = "from ray.serve.scripts import cli; cli()"
needs_serve = pytest.mark.skipif(find_spec("fastapi") is None, reason="ray[serve] is not installed: the extra replicas")


def ask(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        return answer.read()


def until_ready(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask(url + "/v2/health/ready")
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(log.read_text()[-5000:])


@needs_serve
@pytest.mark.slow
def test_two_replicas_answer_as_the_bundle_does(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = yaml.safe_load((ROOT / "cluster" / "ray_serve.yaml").read_text())
    config["http_options"]["port"] = port
    (one,) = config["applications"]
    one["args"]["arguments"]["bundles"] = [f"ranker={folder}"]
    one["deployments"][0]["ray_actor_options"] = {"num_cpus": 0.5}
    one["deployments"][0]["autoscaling_config"]["max_replicas"] = 2
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    url, body = f"http://127.0.0.1:{port}", rows(4).drop_columns(["row", "click"]).to_pylist()
    command = [sys.executable, "-c", RUN, "run", "--address", "local", str(tmp_path / "serve.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT, start_new_session=True)
    try:
        until_ready(url, process, tmp_path / "log")
        answers = [json.loads(ask(url + "/predict", json.dumps({"rows": body}).encode())) for _ in range(40)]
        texts = [ask(url + "/metrics").decode() for _ in range(30)]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    expected = Bundle(folder).predict(rows(4))[:, 0]
    for answer in answers:
        np.testing.assert_allclose([row["click"] for row in answer["predictions"]], expected, atol=1e-6)
    lines = [line for text in texts for line in text.splitlines() if line.startswith("multigate_requests_total{")]
    counts = {int(line.split()[-1]) for line in lines}
    assert counts == {20} or (len(counts) == 2 and sum(counts) == 40)
