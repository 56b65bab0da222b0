"""Bundles that compute on a GPU score as those on a CPU do."""

import numpy as np
import pytest
import torch

from configs.errors import UserError
from tests.trainer.export.exported_runs import make_run, rows
from trainer.export.write import export
from trainer.serving.bundle import Bundle

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@ON_GPU
@pytest.mark.parametrize(
    "settings", [{}, {"tables": "fp16", "max_auc_change": 0.05}, {"precision": "bf16", "max_auc_change": 0.05}]
)
def test_a_gpu_scores_as_the_cpu(tmp_path, settings):
    config = make_run(tmp_path)
    folder = export(config.training.run_dir, str(tmp_path / "gpu"), settings=settings | {"device": "cuda"})
    bundle = Bundle(folder)
    on_cpu = Bundle(export(config.training.run_dir, str(tmp_path / "cpu"), settings={"tables": settings.get("tables")}))
    expected, limit = on_cpu.predict(rows(300)), 0.1 if "precision" in settings else 1e-5
    np.testing.assert_allclose(bundle.predict(rows(300)), expected, atol=limit)
    assert bundle.predict(rows(1)).shape == (1, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_it_is_refused(tmp_path):
    config = make_run(tmp_path, {"price": {"transform": "log1p"}})
    with pytest.raises(UserError, match=r"export.device is cuda, and torch .* finds no GPU"):
        export(config.training.run_dir, settings={"device": "cuda"})
