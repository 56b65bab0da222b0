"""What the request log keeps: rows that `score` reads and scores alike, in bounded memory and files."""

import http.client
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.serve_config import ServeConfig
from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running, version_of
from trainer.serving.bundle import Bundle
from trainer.serving.score import score_files
from trainer.serving.server import request_log
from trainer.serving.server.board import PLACES
from trainer.serving.server.metrics import prometheus_text
from trainer.serving.server.request_log import RequestLog


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("bundle"))


def ask(server, path, body, headers=None):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request("POST", path, body, headers or {})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return json.loads(answer.read())


def json_rows(count):
    return rows(count).drop_columns(["row", "click"]).to_pylist()


def test_offline_scores_equal_those_that_were_served(folder: Path, tmp_path: Path) -> None:
    """Rows of single requests, of one user with candidates, of tensors, and of a call that is scored in slices."""
    served = []
    with running(("the ranker", str(folder)), request_log=str(tmp_path / "log"), rows_per_call=8) as server:
        for part in (json_rows(5), json_rows(30)):
            served += ask(server, "/predict", json.dumps({"rows": part}).encode())["predictions"]
        user = {"user": "user_5", "liked": [7, 8], "age": None}
        part = [{key: row[key] for key in row.keys() - user.keys()} for row in json_rows(4)]
        served += ask(server, "/predict", json.dumps({"shared": user, "rows": part}).encode())["predictions"]
        text = prometheus_text(server.host)
    (file,) = (tmp_path / "log").rglob("*.parquet")
    assert file.parent == tmp_path / "log" / "the ranker" / "7"
    score_files(str(folder), [str(file.parent)], str(tmp_path / "scored"))
    (scored,) = (tmp_path / "scored").rglob("*.parquet")
    table = pq.read_table(scored)
    assert table.num_rows == len(served) == 39
    for task in ("click", "watch"):
        np.testing.assert_allclose(table[f"predicted_{task}"], table[f"served_{task}"], rtol=1e-6, atol=1e-7)
        assert sorted(table[f"served_{task}"].to_pylist()) == sorted(np.float32(one[task]) for one in served)
    assert "multigate_log_dropped_total" in text


@pytest.fixture
def version(folder: Path):
    return version_of(Bundle(folder, verify=False))


def columns_of(count: int) -> dict[str, pa.Array]:
    table = rows(count).drop_columns(["row", "click"])
    return {name: table[name].combine_chunks() for name in table.column_names}


def scores(count: int) -> np.ndarray:
    return np.zeros((count, 2), np.float32)


def test_what_it_cannot_follow_is_dropped_and_counted(version, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(request_log, "_MOST_BYTES", 200_000)
    monkeypatch.setattr(request_log, "_LOOK_S", 3600.0)
    kept = RequestLog(ServeConfig(request_log=str(tmp_path)), 0)
    for _ in range(100):
        kept.put(version, columns_of(64), scores(64))
    dropped = version.counters.values[PLACES["log_dropped"]]
    kept.close()
    written = sum(pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet"))
    assert 0 < written < 6400
    assert written + dropped == 6400


def test_the_oldest_files_are_removed_and_others_are_left_alone(version, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(request_log, "_ROW_GROUP", 1)
    monkeypatch.setattr(request_log, "_FILE_BYTES", 1)
    monkeypatch.setattr(request_log, "_LOOK_S", 0.01)
    (tmp_path / "mine.parquet").write_bytes(bytes(5 << 20))
    kept = RequestLog(ServeConfig(request_log=str(tmp_path), request_log_mib=1), 0)
    random = np.random.default_rng(0)
    for _ in range(6):
        columns = columns_of(300)
        columns["vector"] = pa.array(list(random.random((300, 3))))
        columns["liked"] = pa.array(list(random.integers(0, 2**40, (300, 200))))
        kept.put(version, columns, scores(300))
        while kept._bytes_waiting:  # each in a file of its own
            time.sleep(0.005)
    kept.close()
    left = list(tmp_path.rglob("requests-*.parquet"))
    assert (tmp_path / "mine.parquet").exists()
    assert 1 <= len(left) < 6
    assert sum(path.stat().st_size for path in left) <= 1 << 20


def test_a_disk_that_fails_costs_rows_and_no_request(version, tmp_path, caplog) -> None:
    kept = RequestLog(ServeConfig(request_log=str(tmp_path)), 0)
    (tmp_path / "model").write_text("in the way")
    kept.put(version, columns_of(3), scores(3))
    kept.close()
    assert version.counters.values[PLACES["log_unwritten"]] == 3
    assert "3 rows were not logged" in caplog.text
