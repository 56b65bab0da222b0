"""Bundles with fewer bits than the trainer: smaller, close to it, and said how close; or refused."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor

from configs.errors import UserError
from tests.trainer.export.exported_runs import DENSE, SPARSE, make_run, rows, save
from trainer.checkpoint.files import find
from trainer.export import small, timing, write_programs
from trainer.export.parity import TOLERANCE, ParityError
from trainer.export.write import export
from trainer.run.folder import Folder
from trainer.serving import program
from trainer.serving.bundle import Bundle
from trainer.serving.row_formats import encode, stored_as, sum_bags
from trainer.serving.signature import read_signature

BF16 = {"precision": "bf16", "max_auc_change": 0.05}
NO_COMPILER = {"cpp.cxx": ("/no/such/compiler",)}
ON_BF16 = pytest.mark.skipif(not program.has_bf16("cpu"), reason="needs a processor with BF16")


@pytest.fixture(autouse=True)
def no_compiler():
    with inductor.patch(NO_COMPILER):
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("forms"))


@pytest.fixture(scope="module")
def exact(config):
    """Its bundle with all bits."""
    with inductor.patch(NO_COMPILER):
        return Bundle(export(config.training.run_dir))


@pytest.mark.parametrize(("kind", "limit"), [("fp32", 1e-6), ("fp16", 1e-3), ("int8", 0.01), ("int4", 0.15)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_stored_rows(kind, limit, weighted):
    torch.manual_seed(0)
    table, offsets = torch.randn(50, 8), torch.tensor([0, 2, 2, 5])
    values = torch.tensor([49, 0, 3, 3, 7])
    weights = torch.rand(5) if weighted else None
    stored = encode(table, kind)
    assert (stored.dtype, stored.shape[1]) == stored_as(kind, 8)
    sums = sum_bags(stored, kind, values, offsets, weights)
    assert sums.dtype == torch.float32
    expected = torch.nn.functional.embedding_bag(values, table, offsets, mode="sum", per_sample_weights=weights)
    assert float((sums - expected).abs().max()) <= limit * 5
    torch.testing.assert_close(encode(table[3:4], kind), stored[3:4])  # a row depends on itself alone


@pytest.mark.parametrize(
    "settings",
    [
        {"tables": "fp16", "max_auc_change": 0.05},
        {"tables": "int8", "max_auc_change": 0.05},
        {"tables": "int4", "max_auc_change": 0.1},
        pytest.param({"tables": "int8", "precision": "bf16", "max_auc_change": 0.05}, marks=ON_BF16),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_fewer_bits(config, exact, tmp_path, settings):
    bundle = Bundle(export(config.training.run_dir, str(tmp_path / "small"), settings=settings))
    parity = bundle.signature.parity
    assert parity.tasks["click"].rows == 300
    assert parity.tasks["click"].trainer_auc == pytest.approx(parity.tasks["click"].bundle_auc, abs=0.05)
    assert set(parity.tasks) == {"click"}  # the data has no column for the other
    assert 1e-7 < parity.largest_difference <= parity.tolerance
    np.testing.assert_allclose(bundle.predict(rows(300)), exact.predict(rows(300)), atol=parity.tolerance)
    sizes = [read.signature.files["weights.safetensors"].size for read in (bundle, exact)]
    assert sizes[0] < sizes[1]
    card = (bundle.folder / "README.md").read_text()
    assert f"{settings['tables']}: " in card
    assert f"{parity.tasks['click'].bundle_auc:.5f}" in card


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of one table and numbers: what is slow in an export is how much there is to trace."""
    return make_run(tmp_path_factory.mktemp("plain"), {"user": SPARSE["user"], **DENSE}, top="shared_bottom")


@ON_BF16
def test_calls_of_few_rows_compute_in_fp32(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "most_rows", lambda *_: 8)
    exact = Bundle(export(plain.training.run_dir, str(tmp_path / "exact")))
    bundle = Bundle(export(plain.training.run_dir, str(tmp_path / "small"), settings=BF16))
    few = bundle.signature.small
    assert few.rows == 8
    assert few.parity.largest_difference <= few.parity.tolerance == TOLERANCE
    assert few.parity.data_rows == bundle.signature.parity.data_rows == 300
    assert bundle.signature.parity.largest_difference > 1e-4
    expected = exact.predict(rows(300))
    np.testing.assert_allclose(bundle.predict(rows(300).slice(0, 8)), expected[:8], atol=1e-6)
    assert abs(bundle.predict(rows(300).slice(0, 9)) - expected[:9]).max() > 1e-4
    names = {weight.name for weight in bundle.signature.weights}
    assert {weight.name for weight in few.top} < names  # of the tables there is one copy
    assert "calls of up to 8 rows compute in fp32" in (bundle.folder / "README.md").read_text()


@ON_BF16
def test_a_wrong_program_for_few_rows_is_refused(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "most_rows", lambda *_: 8)
    save = write_programs.save_file
    doubled = lambda tensors, path: save({name: 2 * tensor for name, tensor in tensors.items()}, path)  # noqa: E731
    monkeypatch.setattr(write_programs, "save_file", doubled)
    with pytest.raises(ParityError, match="trainer and bundle differ by"):
        export(plain.training.run_dir, str(tmp_path / "b"), settings=BF16)


@ON_BF16
def test_a_program_for_few_rows_that_is_slower_is_not_kept(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "most_rows", lambda *_: 0)
    bundle = Bundle(export(plain.training.run_dir, str(tmp_path / "b"), settings=BF16))
    assert bundle.signature.small is None
    assert not list(bundle.folder.glob("*small*"))
    assert bundle.predict(rows(1)).shape == (1, 2)


def test_how_many_rows_are_few_is_measured(plain, monkeypatch):
    """The first number of rows that is not faster ends it, whatever comes after."""

    class Slow:
        def __init__(self, seconds):
            self.seconds, self.calls = seconds, []

        def score(self, columns):
            self.calls.append(len(columns.dense))
            time.sleep(self.seconds(len(columns.dense)))

    monkeypatch.setattr(timing, "_CALLS", 3)
    few, other = Slow(lambda rows: 0.001 if rows < 16 or rows > 24 else 0.09), Slow(lambda rows: 0.03)
    assert timing.most_rows(few, other, plain) == 8
    assert set(few.calls) == {1, 2, 4, 8, 16}
    assert timing.most_rows(other, few, plain) == 0


def test_a_change_of_auc_beyond_the_limit_is_refused(config, tmp_path):
    with pytest.raises(ParityError, match=r"AUC of click is .* in the trainer and .* in the bundle over 300 rows"):
        export(config.training.run_dir, str(tmp_path / "b"), settings={"tables": "int4", "max_auc_change": 0.0})
    assert not (tmp_path / "b").exists()


def test_what_a_machine_has_not_is_refused(exact, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(exact.folder, tmp_path / "b"))
    signature = json.loads((folder / "signature.json").read_text()) | {"checksum": None}
    monkeypatch.setattr(program, "has_bf16", lambda device: False)
    (folder / "signature.json").write_text(json.dumps(signature | {"precision": "bf16"}))
    with pytest.raises(UserError, match="which this processor has not: torch would emulate it"):
        Bundle(folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (folder / "signature.json").write_text(json.dumps(signature | {"device": "cuda"}))
    with pytest.raises(UserError, match=r"computes on a GPU, and torch .* finds none here"):
        Bundle(folder)


def test_a_checkpoint_is_chosen(tmp_path):
    config = make_run(tmp_path, {"user": SPARSE["user"]}, top="shared_bottom")
    for step in (14, 21):
        save(config, step=step)
    run = config.training.run_dir
    evaluated = [(7, 0.6), (14, 0.7), (21, 0.65), (28, 0.9)]
    lines = [{"kind": "eval", "step": step, "auc/click": value, "auc/watch": None} for step, value in evaluated]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert {c.step for c in find(Folder(f"{run}/checkpoints"))[0]} == {7, 14, 21}

    def step_of(which):
        return read_signature(export(run, str(tmp_path / which), checkpoint=which)).source.step

    assert {which: step_of(which) for which in ("latest", "best", "7")} == {"latest": 21, "best": 14, "7": 7}
    assert "auc/click 0.7" in (tmp_path / "best" / "README.md").read_text()
    with pytest.raises(UserError, match="has no complete checkpoint '8'\nThere are, by step: 7, 14, 21"):
        export(run, str(tmp_path / "b"), checkpoint="8")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match="none of the steps that it keeps was evaluated"):
        export(run, str(tmp_path / "b"), checkpoint="best")


def test_identity_is_of_what_rows_mean(tmp_path):
    config = make_run(tmp_path, {"user": SPARSE["user"]}, top="shared_bottom")
    first = read_signature(export(config.training.run_dir, str(tmp_path / "a")))
    save(config, step=20)
    second = read_signature(export(config.training.run_dir, str(tmp_path / "b")))
    small = read_signature(
        export(config.training.run_dir, str(tmp_path / "c"), settings={"tables": "int8", "max_auc_change": 1.0})
    )
    assert first.identity == second.identity != small.identity
    assert first.source.run_digest == second.source.run_digest
    assert first.table_digests == second.table_digests != small.table_digests
