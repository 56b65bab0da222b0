"""Parquet in, Parquet with predictions out, in a process that knows nothing of training."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch._inductor import config as inductor

from configs.errors import UserError
from tests.trainer.export.exported_runs import make_run, rows
from trainer.export.write import export
from trainer.serving.bundle import Bundle
from trainer.serving.score import parquet_files, score_files


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        return Bundle(export(make_run(folder).training.run_dir))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    for day, start in (("day=1", 0), ("day=2", 50)):
        (folder / day).mkdir(parents=True)
        pq.write_table(rows(100).slice(start, 50), folder / day / "part-0.parquet", row_group_size=20)
    return folder


def test_folder_keeps_its_shape(bundle, data, tmp_path):
    written = score_files(str(bundle.folder), [str(data)], str(tmp_path / "out"))
    assert written == [tmp_path / "out" / day / "part-0.parquet" for day in ("day=1", "day=2")]
    scored = pa.concat_tables([pq.ParquetFile(path).read() for path in written])
    assert scored.drop_columns(["predicted_click", "predicted_watch"]).equals(rows(100))
    expected = bundle.predict(rows(100))
    np.testing.assert_allclose(scored["predicted_click"].to_numpy(), expected[:, 0], atol=1e-6)
    np.testing.assert_allclose(scored["predicted_watch"].to_numpy(), expected[:, 1], atol=1e-6)


def test_one_file_to_one_file(bundle, data, tmp_path):
    source, out = data / "day=1" / "part-0.parquet", tmp_path / "scored.parquet"
    assert score_files(str(bundle.folder), [str(source)], str(out)) == [out]
    assert pq.ParquetFile(out).metadata.num_rows == 50


def test_neither_training_code_nor_its_libraries_are_imported(bundle, data, tmp_path):
    script = (
        "import json, sys\n"
        "from trainer.serving.score import score_files\n"
        f"score_files({str(bundle.folder)!r}, [{str(data)!r}], {str(tmp_path / 'out')!r})\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(run.stdout.splitlines()[-1]))
    roots = {name.split(".")[0] for name in modules}
    assert not roots & {"ray", "torchrec", "fbgemm_gpu", "models", "cluster", "tensorboard"}
    own = {name for name in modules if name.startswith("trainer.")}
    assert all(name.startswith("trainer.serving") for name in own), own


def test_repeated_names_are_refused(bundle, data, tmp_path):
    files = [str(data / day / "part-0.parquet") for day in ("day=1", "day=2")]
    with pytest.raises(UserError, match="have the same name"):
        score_files(str(bundle.folder), files, str(tmp_path / "out"))


def test_nothing_to_score(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        parquet_files([str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"has no \*.parquet"):
        parquet_files([str(tmp_path / "empty")])


def test_inputs_are_never_replaced(bundle, data):
    source = data / "day=1" / "part-0.parquet"
    before = source.read_bytes()
    for out in (source, data):
        with pytest.raises(UserError, match="would replace its own input"):
            score_files(str(bundle.folder), [str(source if out == source else data)], str(out))
    assert source.read_bytes() == before


def test_taken_column_is_refused(bundle, tmp_path):
    pq.write_table(rows(5).append_column("predicted_click", pa.array([0] * 5)), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has a column 'predicted_click' already"):
        score_files(str(bundle.folder), [str(tmp_path / "a.parquet")], str(tmp_path / "out"))


@pytest.mark.parametrize("damage", ["missing column", "cut file"])
def test_failure_leaves_no_file(bundle, tmp_path, damage):
    source = tmp_path / "a.parquet"
    table = rows(5).drop_columns(["price"]) if damage == "missing column" else rows(5)
    pq.write_table(table, source)
    if damage == "cut file":
        source.write_bytes(source.read_bytes()[:-100])
    message = "a.parquet, row group 0: there is no column 'price'" if damage == "missing column" else "cannot be read"
    with pytest.raises(UserError, match=message):
        score_files(str(bundle.folder), [str(source)], str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == []
