"""What requests bring for each feature, beside what training had."""

import http.client
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from configs.schema import SparseFeature
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from tests.trainer.export.exported_runs import exported, rows
from tests.trainer.serving.server.running import running
from trainer.serving.shares import counts_of, shares_of
from trainer.serving.signature import read_signature


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("bundle"))


def test_a_bundle_carries_the_shares_of_its_rows(folder: Path) -> None:
    shares = read_signature(folder).shares
    data = rows(300)
    assert shares["user"].nulls == pytest.approx(data["user"].null_count / 300)
    assert shares["tag"].nulls == pytest.approx(0.5)  # every second list is empty
    assert shares["tag"].unknown == pytest.approx(0.5)  # "a" is in the vocabulary, "z" is not
    lengths = [len(ids or []) for ids in data["liked"].to_pylist()]
    assert shares["liked"].clipped == pytest.approx(sum(max(0, n - 5) for n in lengths) / sum(lengths))
    assert shares["vector"].nulls == pytest.approx(0.2)
    assert (shares["price"].nulls, shares["price"].unknown, shares["price"].clipped) == (0, 0, 0)


def test_dropped_ids_are_unknown() -> None:
    feature = SparseFeature(table="t", transform="identity", out_of_range="drop")
    transformed = Columns({"f": Bags(np.zeros(1, np.int64), np.array([1, 0, 0], np.int32))}, np.empty((3, 0)), {"f": 1})
    (counts,) = counts_of({"f": feature}, {"f": pa.array([5, 900, None])}, transformed)
    assert counts.tolist() == [3, 1, 2, 1, 0]
    assert shares_of(counts).unknown == 0.5


def test_metrics_and_page_show_what_requests_bring(folder: Path) -> None:
    row = rows(1).drop_columns(["row", "click"]).to_pylist()[0]
    sent = [row | {"tag": ["z", "y"], "price": None}, row | {"tag": ["b", "z"], "price": 1.0}]
    shared = {"shared": {"tag": ["z"]}, "rows": [{key: row[key] for key in row.keys() - {"tag"}} for _ in range(3)]}
    with running(("ranker", str(folder))) as server:
        for body in ({"rows": sent}, shared):
            assert ask(server, "POST", "/predict", json.dumps(body))[0] == 200
        _, text = ask(server, "GET", "/metrics")
        _, page = ask(server, "GET", "/")

    def value(kind: str, feature: str) -> int:
        start = f'multigate_feature_values_total{{model="ranker",feature="{feature}",kind="{kind}"}} '
        return int(next(line for line in text.splitlines() if line.startswith(start)).split()[-1])

    assert [value(kind, "tag") for kind in ("rows", "nulls", "ids", "unknown")] == [5, 0, 7, 6]
    assert [value(kind, "price") for kind in ("rows", "nulls")] == [5, 1]
    assert 'multigate_feature_training_share{model="ranker",feature="tag",kind="unknown"} 0.5' in text
    assert '<td id="unknown-tag">85.7% (50.0%)</td>' in page


def ask(server, method, path, body=None):
    connection = http.client.HTTPConnection(server.http, timeout=30)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
