"""Runs of many shapes become bundles that score as the trainer does, or nothing is written."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch._inductor import config as inductor

from configs.errors import UserError
from embeddings.features.feature_transforms import FeatureTransforms
from embeddings.kjt import to_kjt
from models.build import top_of
from tests.trainer.export.exported_runs import DENSE, SPARSE, make_run, rows, save
from trainer.build import build
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.state import training_state
from trainer.data.reading.batch import Batch
from trainer.export import write_programs
from trainer.export.forward_pass import ForwardPass
from trainer.export.parity import ParityError, check_parity, largest_difference
from trainer.export.sample import generate_columns, sample_rows
from trainer.export.weights import table_groups
from trainer.export.write import export
from trainer.file_record import checksum
from trainer.run.run_directory import RunDirectory
from trainer.run.vocabularies import keep_vocabularies
from trainer.serving.bundle import Bundle
from trainer.serving.program import instructions_here
from trainer.serving.rows import table_of
from trainer.serving.signature import read_signature

FASTEST = instructions_here("cpu")[:1]


@pytest.fixture
def no_compiler():
    with inductor.patch({"cpp.cxx": ("/no/such/compiler",)}):
        yield


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A compiled bundle of a run with every kind of feature and a side tower, and the run's config.

    Compiled for the fastest instructions alone, since a program takes 10 s; another test compiles for all.
    """
    folder = tmp_path_factory.mktemp("compiled")
    config = make_run(folder, tasks={"click": {"tower_features": ["age", "vector"]}, "watch": {"loss": "mse"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_programs, "instructions_here", lambda *_: FASTEST)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            written = export(config.training.run_dir, say=said.append)
        warned.extend(str(one.message) for one in found if one.category is FutureWarning)
        return Bundle(written), config


said: list[str] = []
warned: list[str] = []
"""What the export of `compiled` showed."""


def test_what_goes_on_is_said_and_nothing_else(compiled):
    assert said == [
        "copying the weights of step 7",
        "tracing the program",
        f"compiling the program for {FASTEST[0]}",
        "tracing the program for rows with columns in common",
        f"compiling the program for rows with columns in common for {FASTEST[0]}",
        "comparing the bundle with the trainer, and timing it",
    ]
    assert warned == []


def test_compiled_bundle_scores_as_the_trainer(compiled):
    bundle, _ = compiled
    assert bundle.compiled
    parity = bundle.signature.parity
    assert parity.largest_difference <= 1e-6
    assert (parity.generated_rows, parity.data_rows) == (512, 300)
    assert set(bundle.signature.milliseconds) == {*FASTEST, "graph"}


def test_the_card_shows_the_scores_of_its_row(compiled):
    bundle, _ = compiled
    card = (bundle.folder / "README.md").read_text()
    (sent,) = json.loads(card.split(" -d '")[1].split("'\n")[0])["rows"]
    (answered,) = json.loads(card.split("'\n# ")[1].splitlines()[0])["predictions"]
    (expected,) = bundle.predict(table_of([sent], bundle.transforms.columns, bundle.id_columns))
    assert answered == pytest.approx(dict(zip(bundle.tasks, expected.tolist(), strict=True)), rel=1e-4)


def test_signature_says_what_it_is(compiled):
    bundle, _ = compiled
    signature = read_signature(bundle.folder)
    assert signature.tasks == ("click", "watch")
    assert (signature.source.step, signature.source.epoch) == (7, 1)
    assert signature.source.facts == {"fingerprint": "f"}
    assert {name: checksum((bundle.folder / name).read_bytes()) for name in signature.files} == {
        name: record.checksum for name, record in signature.files.items()
    }
    files = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert files - set(signature.files) == {"signature.json"}


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_compiled_and_exported_program_agree(compiled, count):
    bundle, _ = compiled
    table = rows(300).slice(0, count)
    exported = Bundle(bundle.folder, compiled=False)
    assert not exported.compiled
    np.testing.assert_allclose(bundle.predict(table), exported.predict(table), atol=1e-6)
    assert bundle.predict(table).shape == (count, 2)


def test_nothing_is_pickled(compiled):
    bundle, _ = compiled
    compiled_files = {f"program{kind}.{name}.pt2" for name in FASTEST for kind in ("", ".shared")}
    names = {path.name for path in bundle.folder.iterdir()}
    others = {"signature.json", "README.md", "weights.safetensors", "program.json", "warmup.parquet"}
    assert names == compiled_files | others | {"program.shared.json", "vocabulary"}
    for file in compiled_files:
        packed = (bundle.folder / file).read_bytes()
        assert not any(word in packed for word in (b".pkl", b".pickle", b"sample_inputs", b"state_dict"))


def test_weights_are_mapped_not_read(compiled):
    bundle, _ = compiled
    with open("/proc/self/maps") as maps:
        assert any(str(bundle.folder / "weights.safetensors") in line for line in maps)


FEATURES = {
    "dense only": DENSE,
    "tables only": {name: SPARSE[name] for name in ("user", "liked")},
    "weighted only": {"item": SPARSE["item"]},
    "fp16 only": {"tag": SPARSE["tag"], "age": SPARSE["age"]},
    "order of features is not that of tables": {name: SPARSE[name] for name in ("age", "user", "tag", "liked", "item")},
}


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
@pytest.mark.usefixtures("no_compiler")
def test_shapes_of_runs(tmp_path, features):
    config = make_run(tmp_path, features, top="shared_bottom")
    bundle = Bundle(export(config.training.run_dir))
    assert bundle.predict(rows(5)).shape == (5, 2)
    assert bundle.signature.parity.largest_difference <= 1e-6


@pytest.mark.parametrize("top", ["single_task", "shared_bottom", "moe", "ple"])
@pytest.mark.usefixtures("no_compiler")
def test_tops(tmp_path, top):
    config = make_run(tmp_path, {"user": SPARSE["user"], **DENSE}, top=top)
    assert Bundle(export(config.training.run_dir)).signature.parity.largest_difference <= 1e-6


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_the_cost_is_said(tmp_path, caplog):
    config = make_run(tmp_path, DENSE)
    bundle = Bundle(export(config.training.run_dir))
    assert bundle.signature.compiled == ()
    assert not bundle.compiled
    assert "no C++ compiler" in caplog.text
    assert f"512 rows {bundle.signature.milliseconds['graph']['512']:.2f} ms" in caplog.text


@pytest.mark.usefixtures("no_compiler")
def test_newer_checkpoint_replaces_the_bundle(tmp_path):
    config = make_run(tmp_path, DENSE, top="shared_bottom")
    target = export(config.training.run_dir, str(tmp_path / "bundle"))
    save(config, step=20)
    with pytest.raises(UserError, match="bundle is there already\n--overwrite replaces it"):
        export(config.training.run_dir, str(target))
    (target / "notes").write_text("mine")
    with pytest.raises(UserError, match="bundle is there already\ngive --out another name"):
        export(config.training.run_dir, str(target), overwrite=True)
    (target / "notes").unlink()
    assert export(config.training.run_dir, str(target), overwrite=True) == target
    assert read_signature(target).source.step == 20
    assert sorted(os.listdir(tmp_path)) == ["bundle", "data", "run", "tags.txt"]


@pytest.mark.usefixtures("no_compiler")
def test_an_unfinished_file_is_skipped_in_the_parity_check(tmp_path, caplog):
    config = make_run(tmp_path, DENSE)
    (tmp_path / "data" / "validation" / "a.parquet").write_bytes(b"PAR1 cut off")
    parity = read_signature(export(config.training.run_dir)).parity
    assert (parity.data_rows, parity.data_file) == (300, str(tmp_path / "data" / "validation" / "part-0.parquet"))
    assert "a.parquet is skipped in the parity check" in caplog.text


@pytest.mark.usefixtures("no_compiler")
def test_run_without_its_data_is_exported(tmp_path):
    config = make_run(tmp_path, DENSE, top="shared_bottom")
    (tmp_path / "data" / "validation" / "part-0.parquet").unlink()
    assert read_signature(export(config.training.run_dir)).parity.data_rows == 0


@pytest.mark.usefixtures("no_compiler")
def test_bundle_scores_as_the_sharded_trainer(tmp_path):
    """Whatever order the tables give their features back in, and wherever dense features stand in the config."""
    sharding = {"item": "data_parallel", "user": "row_wise"}
    order = ("vector", "liked", "user", "price", "item", "tag", "age")
    config = make_run(tmp_path, {name: (SPARSE | DENSE)[name] for name in order})
    for name, table in config.tables.items():
        config.tables[name] = table.model_copy(update={"sharding": sharding.get(name, "table_wise")})
    table = rows(64)
    columns = FeatureTransforms(config.features, config.tables)(table, "rows")
    unlabelled = torch.zeros(64, 2)
    batch = Batch(
        to_kjt(list(columns.sparse), columns.sparse), torch.from_numpy(columns.dense), *[unlabelled] * 2, (0, 0)
    )
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        built = build(config, torch.device("cpu"), 1, None)
        checkpointer = Checkpointer(Path(config.training.run_dir) / "checkpoints", config.checkpoint, {})
        state = training_state(built.model, built.optimizer)
        checkpointer.save(state, step=8, epoch=1, epoch_step=4, blocking=True)
        checkpointer.wait()
        built.model.eval()
        returned = []
        built.model.module.join.register_forward_pre_hook(lambda _, inputs: returned.extend(inputs[0].keys()))
        with torch.no_grad():
            _, outputs = built.model(batch)
        assert returned != list(config.sparse_features), "their order is what this is about"
    finally:
        dist.destroy_process_group()
    bundle = Bundle(export(config.training.run_dir))
    assert bundle.signature.source.step == 8
    np.testing.assert_allclose(bundle.predict(table), outputs.predictions.numpy(), atol=1e-6)


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is not a run"):
        export(str(tmp_path))
    config = make_run(tmp_path, DENSE)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    with pytest.raises(UserError, match="precious is there already"):
        export(config.training.run_dir, str(tmp_path / "precious"))
    (tmp_path / "working_dir_files").mkdir()
    with monkeypatch.context() as job:
        job.chdir(tmp_path / "working_dir_files")
        with pytest.raises(UserError, match="bundle lies in the copy of a folder"):
            export(config.training.run_dir, "bundle")
    with pytest.raises(UserError, match=r"/proc/x cannot be written: .*\ngive --out another name"):
        export(config.training.run_dir, "/proc/x")
    for file in (tmp_path / "run" / "checkpoints").rglob("complete.json"):
        file.unlink()
    with pytest.raises(UserError, match="has no complete checkpoint"):
        export(config.training.run_dir)


def test_a_bundle_of_other_weights_is_refused(compiled):
    bundle, config = compiled
    mapped = {name: torch.ones(table.num_embeddings, table.embedding_dim) for name, table in config.tables.items()}
    top = top_of(config).eval()
    with pytest.raises(ParityError, match="trainer and bundle differ by"):
        check_parity(bundle, config, mapped, top, sample_rows(config, bundle.transforms, bundle.schema))


def test_nothing_is_left_of_a_failed_export(tmp_path, monkeypatch):
    config = make_run(tmp_path, DENSE)
    weights = tmp_path / "run" / "config.yaml"
    weights.write_text(weights.read_text().replace("expert_layers: [64, 32, 16]", "expert_layers: [64, 32, 8]"))
    before = sorted(os.listdir(tmp_path / "run"))
    with pytest.raises(UserError, match=r"does not fit .*/step_000000007: size mismatch for"):
        export(config.training.run_dir)
    assert sorted(os.listdir(tmp_path / "run")) == before


def test_difference_of_nan_is_infinite():
    one = np.ones((1, 2), np.float32)
    assert largest_difference(one, one * np.float32(1.5)) == 0.5
    assert largest_difference(one * 100, one * 101) == pytest.approx(0.01)
    assert largest_difference(one, np.array([[1, np.nan]], np.float32)) == np.inf


def test_generated_rows_reach_the_edges(compiled):
    _, config = compiled
    columns = generate_columns(config)
    for name, bag in columns.sparse.items():
        last = config.tables[config.sparse_features[name].table].num_embeddings - 1
        assert bag.lengths[0] == 0
        assert {0, last} <= set(bag.values.tolist())


def test_groups_stack_tables_of_one_kind(compiled):
    _, config = compiled
    groups = {group.name: group for group in table_groups(config)}
    assert set(groups) == {"tables.fp32.8", "tables.fp16.4"}
    assert groups["tables.fp32.8"].features == ("liked", "user", "item")
    assert groups["tables.fp32.8"].first_rows == (1000, 0, 1000)
    assert groups["tables.fp16.4"].mean == (True, False)


def test_a_bundle_has_the_vocabulary_that_the_run_keeps(tmp_path, no_compiler):
    config = make_run(tmp_path, {"tag": SPARSE["tag"]}, top="shared_bottom")
    keep_vocabularies(RunDirectory(config.training.run_dir), config)
    (tmp_path / "tags.txt").write_text("c\nb\na\n")
    bundle = export(config.training.run_dir)
    assert (bundle / "vocabulary" / "tag.txt").read_text() == "a\nb\nc\n"


@pytest.mark.slow
def test_a_compiled_bundle_of_fewer_bits(tmp_path):
    """Its program calls operators by name, which a compiled program of floats does not. For all instructions."""
    config = make_run(tmp_path)
    settings = {"tables": "int8", "max_auc_change": 0.05}
    bundle = Bundle(export(config.training.run_dir, settings=settings))
    assert bundle.instructions == instructions_here("cpu")[0]
    assert set(bundle.signature.milliseconds) == {*instructions_here("cpu"), "graph"}
    graph = Bundle(bundle.folder, compiled=False)
    np.testing.assert_allclose(bundle.predict(rows(300)), graph.predict(rows(300)), atol=1e-6)


@pytest.mark.usefixtures("no_compiler")
def test_a_program_for_shared_columns_that_scores_otherwise_is_refused(tmp_path, monkeypatch):
    class Wrong(ForwardPass):
        def forward(self, weights, inputs):
            return super().forward(weights, inputs) + float(self.shared)

    monkeypatch.setattr("trainer.export.write_programs.ForwardPass", Wrong)
    config = make_run(tmp_path, {"user": SPARSE["user"]}, top="shared_bottom")
    with pytest.raises(ParityError, match="trainer and bundle differ by"):
        export(config.training.run_dir)
