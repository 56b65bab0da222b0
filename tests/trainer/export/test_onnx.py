"""The portable form, run by ONNX Runtime, predicts what the bundle predicts."""

import numpy as np
import pytest
from torch._inductor import config as inductor

from configs.errors import UserError
from tests.trainer.export.exported_runs import make_run, rows
from trainer.export.onnx import onnx_predictions
from trainer.export.write import export
from trainer.serving.bundle import Bundle


@pytest.fixture(autouse=True)
def no_compiler():
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        yield


def test_onnx_runtime_predicts_the_same(tmp_path):
    """Weighted bags, means, tables of both widths, side towers, empty bags; one row and many."""
    config = make_run(tmp_path, tasks={"click": {"tower_features": ["age", "vector"]}, "watch": {"loss": "mse"}})
    settings = {"format": "onnx", "scores": {"rank": "click ** 0.6 * 2 + watch"}}
    bundle = Bundle(export(config.training.run_dir, settings=settings))
    assert {"model.onnx", "model.onnx.data"} <= set(bundle.signature.files)
    for count in (1, 2, 300):
        columns = bundle.columns(rows(300).slice(0, count), "rows")
        found = onnx_predictions(bundle.folder, bundle.signature.groups, bundle.signature.dense_width, columns)
        np.testing.assert_allclose(found, bundle.score(columns), atol=1e-5)
        np.testing.assert_allclose(found[:, 2], found[:, 0] ** 0.6 * 2 + found[:, 1], atol=1e-5)
    assert "`ids.tables.fp32.8`, feature 0" in (bundle.folder / "README.md").read_text()


def test_what_it_cannot_be(tmp_path):
    config = make_run(tmp_path)
    with pytest.raises(UserError, match=r"export.format is onnx, which (needs packages|has fp32 tops)"):
        export(config.training.run_dir, settings={"format": "onnx", "tables": "int8"})
