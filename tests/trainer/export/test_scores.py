"""Named scores: formulas of predictions that the program computes, beside the tasks in everything that scores."""

import http.client
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from torch._inductor import config as inductor

from configs.errors import UserError
from configs.score_formula import FormulaError, check_formula, evaluate
from tests.trainer.export.exported_runs import DENSE, make_run, rows
from tests.trainer.serving.server.running import running
from trainer.export.write import export
from trainer.serving.bundle import Bundle
from trainer.serving.score import score_files

FORMULA = "click ** 0.6 * (1 - click) ** 0.2 + 0.1 * watch"


@pytest.fixture(autouse=True)
def no_compiler():
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("scores"), DENSE)


@pytest.fixture(scope="module")
def bundle(config, tmp_path_factory):
    settings = {"scores": {"rank": FORMULA, "half": "-click / -2"}}
    folder = tmp_path_factory.mktemp("bundle") / "b"
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        return Bundle(export(config.training.run_dir, str(folder), settings=settings))


def test_a_score_is_returned_beside_the_tasks(bundle, tmp_path):
    assert bundle.tasks == ("click", "watch", "rank", "half")
    found = bundle.predict(rows(300)).astype(np.float64)
    click, watch = found[:, 0], found[:, 1]
    np.testing.assert_allclose(found[:, 2], click**0.6 * (1 - click) ** 0.2 + 0.1 * watch, atol=1e-6)
    np.testing.assert_allclose(found[:, 3], click / 2, atol=1e-6)
    assert f"| `rank` | `{FORMULA}` |" in (bundle.folder / "README.md").read_text()
    pq.write_table(rows(300), tmp_path / "a.parquet")
    (out,) = score_files(str(bundle.folder), [str(tmp_path / "a.parquet")], str(tmp_path / "out.parquet"))
    scored = pq.ParquetFile(out).read()
    assert scored.schema.field("predicted_rank").type == pa.float32()
    np.testing.assert_allclose(scored["predicted_rank"].to_numpy(), found[:, 2], atol=1e-6)


def test_every_route_answers_with_the_scores(bundle):
    table, expected = rows(12).select(["price", "vector"]), bundle.predict(rows(12))
    vectors = [row or [0.0] * 3 for row in table["vector"].to_pylist()]
    sent = {
        "price": table["price"].to_numpy(),
        "vector": np.array(vectors),
        "vector.valid": np.array([row is not None for row in table["vector"].to_pylist()]),
    }
    with running(("ranker", str(bundle.folder))) as server:
        for module, address in ((triton_http, server.http), (triton_grpc, server.grpc)):
            inputs = []
            for name, values in sent.items():
                kind = "BOOL" if values.dtype == np.bool_ else "FP64"
                inputs.append(module.InferInput(name, values.shape, kind))
                inputs[-1].set_data_from_numpy(values)
            with module.InferenceServerClient(address) as client:
                answer = client.infer("ranker", inputs)
                metadata = client.get_model_metadata("ranker", **({"as_json": True} if module is triton_grpc else {}))
            assert [output["name"] for output in metadata["outputs"]] == list(bundle.tasks)
            found = np.stack([answer.as_numpy(name).reshape(-1) for name in bundle.tasks], axis=1)
            np.testing.assert_allclose(found, expected, atol=1e-6)
        connection = http.client.HTTPConnection(server.http)
        connection.request("POST", "/predict", json.dumps({"rows": table.to_pylist()}))
        predictions = json.loads(connection.getresponse().read())["predictions"]
    np.testing.assert_allclose([[row[name] for name in bundle.tasks] for row in predictions], expected, atol=1e-6)
    for row in predictions:
        click, watch = row["click"], row["watch"]
        assert row["rank"] == pytest.approx(click**0.6 * (1 - click) ** 0.2 + 0.1 * watch, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"rank": "clik * 2"}, r"export.scores.rank: 'clik \* 2' 'clik' is not a task; there are: click, watch\nAn ex"),
        ({"rank": "click if click else 2"}, "it may have names of tasks"),
        ({"rank": "click *"}, "is not a formula"),
        ({"rank": "__import__('os')"}, "'__import__' is not a task"),
        ({"rank": "1 + 2"}, "names no task"),
        ({"rank": "click / (1 - 1)"}, "cannot be computed"),
        ({"click": "watch"}, "'click' is a task already"),
    ],
)
def test_what_is_no_score_is_refused(config, tmp_path, scores, message):
    with pytest.raises(UserError, match=message):
        export(config.training.run_dir, str(tmp_path / "b"), settings={"scores": scores})
    assert not (tmp_path / "b").exists()


def test_a_score_that_is_not_finite_is_refused(config, tmp_path):
    with pytest.raises(UserError, match=r"the prediction of 'rank' is nan\nIts formula, watch \*\* 0.5, has no"):
        export(config.training.run_dir, str(tmp_path / "b"), settings={"scores": {"rank": "watch ** 0.5"}})
    assert not (tmp_path / "b").exists()


def test_the_usual_order_of_operators():
    assert evaluate("a + b * 2 ** -a", {"a": 1.0, "b": 3.0}) == 2.5
    assert evaluate("-(a - b) / 4", {"a": 1.0, "b": 3.0}) == 0.5
    with pytest.raises(FormulaError):
        check_formula("a < b", ["a", "b"])
