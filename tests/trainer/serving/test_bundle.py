"""A bundle is whole or refused, and rows that do not fit it never reach the program."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from configs.errors import UserError
from tests.trainer.export import exported_runs
from tests.trainer.export.exported_runs import rows
from trainer.commands.inspect import describe
from trainer.serving.bundle import Bundle
from trainer.serving.program import compiled_here, why_not_here
from trainer.serving.signature import read_signature, write_signature


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return exported_runs.exported(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "bundle")


def test_it_moves(folder):
    assert Bundle(folder).predict(rows(10)).shape == (10, 2)


def test_probabilities(folder):
    predictions = Bundle(folder).predict(rows(300))
    assert predictions.dtype == np.float32
    assert ((predictions[:, 0] > 0) & (predictions[:, 0] < 1)).all()
    assert len(np.unique(predictions[:, 0])) > 200


def test_rows_do_not_depend_on_their_neighbours(folder):
    bundle, table = Bundle(folder), rows(40)
    whole = bundle.predict(table)
    alone = np.concatenate([bundle.predict(table.slice(row, 1)) for row in range(40)])
    np.testing.assert_allclose(whole, alone, atol=1e-6)


@pytest.mark.parametrize("name", ["weights.safetensors", "program.json", "vocabulary/tag.txt"])
def test_cut_or_missing_files(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(UserError, match=f"{name} is of {len(content) - 1:,} bytes instead of {len(content):,}"):
        Bundle(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        Bundle(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "program.json", "vocabulary/tag.txt"])
def test_flipped_bits(folder, name):
    assert describe(str(folder))[1]["compared"] == "sizes and checksums of all files"
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged: its checksum is"):
        describe(str(folder))
    with pytest.raises(UserError, match=f"{name} is damaged: its checksum is"):
        Bundle(folder)
    if name == "weights.safetensors":
        Bundle(folder, verify=False)


@pytest.mark.parametrize("name", ["weights.safetensors", "program.json", "program.cpu.pt2", "warmup.parquet"])
def test_what_cannot_be_loaded_is_named_without_checksums_too(folder, name):
    if name.endswith(".pt2"):  # its content does not matter: it is read first, and is no archive any more
        (folder / name).write_bytes(b"PK")
        signature = read_signature(folder)
        here = (compiled_here(name, "cpu"),)
        write_signature(folder, signature.model_copy(update={"compiled": here}))
    size = (folder / name).stat().st_size
    (folder / name).write_bytes(b"\xff" * size)
    with pytest.raises(UserError, match=rf"{name} is damaged: its checksum is .*\nCopy the bundle again, or export"):
        Bundle(folder, verify=False)


@pytest.mark.timeout(30)
def test_a_signature_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "signature.json")
    with pytest.raises(UserError, match=r"signature\.json is a pipe, not a file\n"):
        Bundle(tmp_path)


def test_no_bundle(tmp_path):
    with pytest.raises(UserError, match="is not a bundle"):
        Bundle(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ('{"format": 99}', "has format 99, this version reads 2"), ('{"format": 2}', "is damaged")],
)
def test_damaged_signature(folder, text, message):
    (folder / "signature.json").write_text(text)
    with pytest.raises(UserError, match=message):
        Bundle(folder)


@pytest.mark.parametrize("change", [{"files": {}}, {"dense_width": 7}, {"tasks": ["like", "click"]}])
def test_a_changed_signature(folder, change):
    """It names the checksums of all other files, and has one of its own."""
    signature = json.loads((folder / "signature.json").read_text())
    (folder / "signature.json").write_text(json.dumps(signature))
    Bundle(folder)  # laid out anew, it says the same
    (folder / "signature.json").write_text(json.dumps(signature | change))
    with pytest.raises(UserError, match=r"signature.json is damaged: its checksum is"):
        Bundle(folder)


def test_weights_of_another_shape(folder):
    signature = json.loads((folder / "signature.json").read_text())
    signature["weights"][0]["shape"][0] += 1
    (folder / "signature.json").write_text(json.dumps(signature | {"checksum": None}))  # as earlier versions wrote it
    with pytest.raises(
        UserError, match=r"tables.fp16.4 is torch.float16\[100, 4\], the signature says float16\[101, 4\]"
    ):
        Bundle(folder)


def test_columns_that_do_not_fit_are_refused(folder):
    bundle = Bundle(folder)
    columns = bundle.transforms(rows(6), "rows")
    user = columns.sparse["user"]
    bad = [
        replace(columns, dense=columns.dense[:, :2]),
        replace(columns, dense=columns.dense.astype(np.float64)),
        replace(columns, sparse=columns.sparse | {"user": replace(user, values=user.values + 1000)}),
        replace(columns, sparse=columns.sparse | {"user": replace(user, values=user.values - 1000)}),
        replace(columns, sparse=columns.sparse | {"user": replace(user, values=user.values[:-1])}),
        replace(columns, sparse=columns.sparse | {"user": replace(user, lengths=user.lengths[:-1])}),
    ]
    for wrong in bad:
        with pytest.raises(ValueError, match=r"dense|user"):
            bundle.score(wrong)
    with pytest.raises(UserError, match="there is no column 'price'"):
        bundle.predict(rows(6).drop_columns(["price"]))


def test_a_caller_is_told_which_values_are_taken(folder):
    """Not what could be trained otherwise, which none of them can change."""
    table = rows(6)
    lists = table.set_column(table.column_names.index("vector"), "vector", pa.array([[1.0, 2.0]] * 6))
    beyond = table.set_column(table.column_names.index("item"), "item", pa.array([[500]] * 6)).drop_columns(["liked"])
    beyond = beyond.append_column("liked", table["liked"])
    weighted = beyond.set_column(beyond.column_names.index("item_weight"), "item_weight", pa.array([[1.0]] * 6))
    for wrong, said in ((lists, "not 3\nGive 3 numbers in each row."), (weighted, "500 rows\nGive IDs from 0 to 499.")):
        with pytest.raises(UserError) as refused:
            Bundle(folder).predict(wrong)
        assert str(refused.value).endswith(said)


def test_where_a_compiled_program_runs():
    here = compiled_here("program.avx2.pt2", "avx2")
    assert why_not_here(here) is None
    assert "compiled for torch 1.0" in why_not_here(here.model_copy(update={"torch": "1.0"}))
    assert "compiled for machine vax" in why_not_here(here.model_copy(update={"machine": "vax"}))


def test_foreign_compiled_program_is_left_aside(folder, caplog):
    signature = json.loads((folder / "signature.json").read_text())
    compiled = compiled_here("program.avx2.pt2", "avx2").model_copy(update={"torch": "1.0"})
    signature["compiled"] = [compiled.model_dump()]
    signature["checksum"] = None
    (folder / "signature.json").write_text(json.dumps(signature))
    bundle = Bundle(folder)
    assert not bundle.compiled
    assert "program.avx2.pt2 is not used: it was compiled for torch 1.0" in caplog.text
    assert bundle.predict(rows(3)).shape == (3, 2)


def test_ids_of_another_kind_are_refused(folder):
    table = rows(5).set_column(1, "liked", pa.array([["1"]] * 5))
    with pytest.raises(UserError, match="column 'liked' has text, in training it had integers"):
        Bundle(folder).predict(table)
