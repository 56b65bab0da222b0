"""`serve` as people start it: processes of its own, signals, and another bundle while requests run."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from configs.errors import UserError
from configs.serve_config import ServeConfig
from tests.trainer.export.exported_runs import exported, rows, save
from trainer.serving.bundle import Bundle
from trainer.serving.server.serve import serve


def children():
    """Processes that this one has started and that run Python code of the server."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == str(os.getpid()) and b"trainer.serving.server.worker" in command:
            found.append(int(pid))
    return found


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.05)


def ask(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET" if body is None else "POST", path, body)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("bundle"))


def serving(folder, settings, story):
    """Serves in this thread while `story(port)` runs in another, and returns what it returned."""
    said, found = [], []

    def tell():
        try:
            until(lambda: len(said) > 1 or not serving_thread.is_alive())
            found.append(story(int(said[1].split(",")[0].rpartition(":")[2])))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    serving_thread = threading.current_thread()
    thread = threading.Thread(target=tell)
    thread.start()
    serve([str(folder)], settings, said.append)
    thread.join()
    return found[0]


@pytest.mark.slow
def test_a_process_that_dies_and_a_bundle_that_is_replaced(folder, tmp_path):
    """Two processes; one is killed, then the bundle is replaced under load, then all is stopped."""
    link = tmp_path / "current"
    link.symlink_to(folder)
    body = json.dumps({"rows": rows(5).drop_columns(["row", "click"]).to_pylist()}).encode()

    def story(port):
        before = children()
        assert len(before) == 2
        assert ask(port, "/predict", body)[0] == 200
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(children()) == 2 and before[0] not in children())
        swapped = threading.Event()

        def client():
            statuses, done = [], 0
            while done < 50:
                statuses.append(ask(port, "/predict", body)[0])
                done += swapped.is_set()
            return statuses

        with ThreadPoolExecutor(4) as pool:
            clients = [pool.submit(client) for _ in range(4)]
            other = tmp_path / "other"
            other.symlink_to(newer(tmp_path))
            os.replace(other, link)
            os.kill(os.getpid(), signal.SIGHUP)
            until(lambda: all(ask(port, "/health")[1]["step"] == 9 for _ in range(20)))
            swapped.set()
            statuses = [status for one in clients for status in one.result()]
        assert set(statuses) == {200}
        _, index = ask(port, "/v2/repository/index", b"{}")
        assert {one["version"] for one in index} == {"7", "9"}
        return ask(port, "/predict", body)[1]["predictions"]

    settings = ServeConfig(port=0, grpc_port=0, processes=2, name="ranker")
    found = serving(link, settings, story)
    expected = Bundle(link).predict(rows(5))
    np.testing.assert_allclose([one["click"] for one in found], expected[:, 0], atol=1e-6)
    assert not children()


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate with its key, and the key of another."""
    top = tmp_path_factory.mktemp("pem")
    for name in ("own", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        files = ["-out", f"{top}/{name}.pem", "-keyout", f"{top}/{name}.key"]
        subprocess.run([*command, *files], check=True, capture_output=True)
    return top


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("own.pem", None, r"tls_certificate is given without serve\.tls_key"),
        (None, "own.key", r"tls_key is given without serve\.tls_certificate"),
        ("own.pem", "no.key", r"tls_key=.*no\.key cannot be read: No such file"),
        ("own.pem", "other.key", "are no pair"),
        ("own.key", "own.pem", "are no pair"),
    ],
)
def test_mistakes_with_tls(folder, pem, certificate, key, said):
    given = {"tls_certificate": certificate and str(pem / certificate), "tls_key": key and str(pem / key)}
    with pytest.raises(UserError, match=said):
        serve([str(folder)], ServeConfig(port=0, grpc_port=0, processes=1, **given), print)


def newer(folder):
    """A bundle of the same run, two steps later."""
    return exported(folder, after=lambda config: save(config, step=9))


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", None), ("no-such-host.invalid", 8080), ("127.0.0.1", 99999), ("127.0.0.1", -1)]
)
def test_where_it_cannot_listen(folder, host, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = port or taken.getsockname()[1]
        given = ServeConfig().model_copy(update={"host": host, "port": port})  # as options are
        with pytest.raises(UserError, match=f"cannot listen on {host}, port {port}: .*\nGive another"):
            serve([str(folder)], given, print)


def test_bundles_that_cannot_be_told_apart(folder):
    with pytest.raises(UserError, match="are both ranker, version 7\nGive one of them a name: NAME=BUNDLE"):
        serve([f"ranker={folder}", f"ranker={folder}"], ServeConfig(port=0), print)


def test_no_bundle(tmp_path):
    with pytest.raises(UserError, match="is not a bundle"):
        serve([str(tmp_path)], ServeConfig(port=0), print)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("serv.port=3", r"'serv\.port=3' is no setting of serve, .*\ndid you mean serve\.port\?"),
        ("=bundle", "'=bundle' has no name before the =\nWrite NAME=FOLDER"),
    ],
)
def test_what_is_neither_a_bundle_nor_a_setting(folder, given, said):
    with pytest.raises(UserError, match=said):
        serve([str(folder), given], ServeConfig(port=0), print)


def test_a_token_file_that_is_not_there(folder):
    with pytest.raises(UserError, match=r"serve\.token_file=nope cannot be read: No such file or directory\nGive"):
        serve([str(folder)], ServeConfig(port=0, token_file="nope"), print)
