"""Parquet in, Parquet with predictions out, in a process that knows nothing of training."""

import json
import subprocess
import sys

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from tests.trainer.data.object_store import BUCKET, object_store
from tests.trainer.export.exported_runs import DENSE, SPARSE, exported, rows
from trainer.serving.bundle import Bundle
from trainer.serving.score import find_inputs, score_files


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Of few layers: each call loads it again."""
    features = {name: SPARSE[name] for name in ("user", "age")} | DENSE
    return Bundle(exported(tmp_path_factory.mktemp("bundle"), features=features, top="shared_bottom"))


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
    assert all(name.startswith(("trainer.serving", "trainer.data", "trainer.file_record")) for name in own), own


def test_repeated_names_are_refused(bundle, data, tmp_path):
    files = [str(data / day / "part-0.parquet") for day in ("day=1", "day=2")]
    with pytest.raises(UserError, match="have the same name"):
        score_files(str(bundle.folder), files, str(tmp_path / "out"))


def test_nothing_to_score(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not exist"):
        find_inputs([str(tmp_path / "none")])
    with pytest.raises(UserError, match="has no Parquet file"):
        find_inputs([str(tmp_path / "empty")])


def test_inputs_are_never_replaced(bundle, data):
    source, other = data / "day=1" / "part-0.parquet", data / "day=2" / "part-0.parquet"
    before = other.read_bytes()
    (data / "link.parquet").symlink_to(source)
    (data / "hard.parquet").hardlink_to(source)
    pairs = [([source], source), ([data], data), ([data], data / "scored"), ([source], other)]
    pairs += [([source], data / "link.parquet"), ([source], data / "hard.parquet"), ([source], source.parent)]
    for files, out in (*pairs, ([data.as_uri()], data / "scored")):
        for overwrite in (False, True):
            with pytest.raises(UserError, match=r"is there already|lies in .*, which is scored"):
                score_files(str(bundle.folder), [str(file) for file in files], str(out), overwrite=overwrite)
    assert other.read_bytes() == before


def test_what_was_scored_is_replaced_if_that_is_said(bundle, data, tmp_path):
    out = str(tmp_path / "out")
    score_files(str(bundle.folder), [str(data)], out)
    with pytest.raises(UserError, match="--overwrite replaces it"):
        score_files(str(bundle.folder), [str(data)], out)
    score_files(str(bundle.folder), [str(data)], out, overwrite=True)


def test_what_is_made_from_a_scored_file_is_not_replaced(bundle, data, tmp_path):
    """Readers of Parquet hand the marks in a footer on to what they write."""
    source, out = data / "day=1" / "part-0.parquet", tmp_path / "scored.parquet"
    score_files(str(bundle.folder), [str(source)], str(out))
    scored = pq.ParquetFile(out).read()
    place = scored.column_names.index("predicted_watch")
    calibrated = scored.set_column(place, scored.field(place), pc.multiply(scored[place], np.float32(0.5)))
    for made in (calibrated, scored.append_column("mine", scored["row"]), scored.drop_columns(["predicted_click"])):
        pq.write_table(made, out)
        with pytest.raises(UserError, match=r"scored.parquet is there already\ngive OUT"):
            score_files(str(bundle.folder), [str(source)], str(out), overwrite=True)


@pytest.mark.parametrize("out", ["", "scored"])
def test_scores_that_would_be_lost(bundle, data, tmp_path, monkeypatch, out):
    job = tmp_path / "working_dir_files" / "job"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    with pytest.raises(UserError, match=r"is empty|Ray deletes that copy"):
        score_files(str(bundle.folder), [str(data)], out)
    assert list(job.iterdir()) == []


def test_strings_as_views(bundle, tmp_path):
    table = rows(20)
    place = table.column_names.index("user")
    pq.write_table(table.set_column(place, "user", table["user"].cast(pa.string_view())), tmp_path / "a.parquet")
    (written,) = score_files(str(bundle.folder), [str(tmp_path / "a.parquet")], str(tmp_path / "out"))
    found = pq.ParquetFile(written).read()["predicted_click"].to_numpy()
    np.testing.assert_allclose(found, bundle.predict(table)[:, 0], atol=1e-6)


def test_a_column_that_cannot_be_converted_is_no_fault_of_the_output(bundle, data, tmp_path, monkeypatch):
    def convert(*_):
        raise pa.ArrowNotImplementedError("no kernel for list_view")

    monkeypatch.setattr("trainer.serving.bundle.AsTrained.__call__", convert)
    monkeypatch.setattr(Bundle, "warm", lambda bundle: None)
    with pytest.raises(UserError, match=r"part-0.parquet: a column cannot be converted: no kernel for list_view"):
        score_files(str(bundle.folder), [str(data)], str(tmp_path / "out"))


def test_out_in_the_way(bundle, data, tmp_path):
    source = str(data / "day=1" / "part-0.parquet")
    (tmp_path / "taken").write_text("notes")
    (tmp_path / "folder.parquet").mkdir()
    for out in ("taken", "taken/out.parquet", "folder.parquet"):
        with pytest.raises(UserError, match=out.partition("/")[0]):
            score_files(str(bundle.folder), [source], str(tmp_path / out))


def test_the_same_files_as_training(bundle, tmp_path):
    for name in ("a.pq", "part-1", "day.parquet/b.parquet", "_temporary/c.parquet", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows(3), tmp_path / "in" / name)
    said = []
    assert list(find_inputs([str(tmp_path / "in")], said.append)) == ["a.pq", "part-1", "day.parquet/b.parquet"]
    assert "_temporary" in said[0]
    assert "notes.txt" in said[0]


@pytest.mark.parametrize("given", ["in", "in/age=12", "in/age=12/a.parquet"])
def test_columns_of_folders(bundle, tmp_path, given):
    (tmp_path / "in" / "age=12").mkdir(parents=True)
    pq.write_table(rows(5).drop_columns(["age"]), tmp_path / "in" / "age=12" / "a.parquet")
    (written,) = score_files(str(bundle.folder), [str(tmp_path / given)], str(tmp_path / "out"))
    whole = rows(5).set_column(rows(5).column_names.index("age"), "age", pa.array([12] * 5))
    found = pq.ParquetFile(written).read()["predicted_click"].to_numpy()
    np.testing.assert_allclose(found, bundle.predict(whole)[:, 0], atol=1e-6)


def test_flipped_bits_of_a_page_are_refused(bundle, tmp_path):
    path = tmp_path / "a.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(rows(3000), path, **options)
    content = bytearray(path.read_bytes())
    start = next(
        chunk.data_page_offset
        for chunk in (pq.read_metadata(path).row_group(0).column(place) for place in range(20))
        if chunk.path_in_schema == "age"
    )
    content[start + 500] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a.parquet, row group 0 cannot be read"):
        score_files(str(bundle.folder), [str(path)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_rows_are_counted_from_the_start_of_the_file(bundle, tmp_path):
    prices = np.ones(300)
    prices[250] = np.nan
    table = rows(300).set_column(rows(1).column_names.index("price"), "price", pa.array(prices))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    with pytest.raises(UserError, match=r"a.parquet, row 250: column 'price' is nan"):
        score_files(str(bundle.folder), [str(tmp_path / "a.parquet")], str(tmp_path / "out"))


def test_a_column_twice(bundle, tmp_path):
    table = rows(5)
    pq.write_table(pa.table([*table.columns, table["user"]], [*table.column_names, "user"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: there are 2 columns 'user'"):
        score_files(str(bundle.folder), [str(tmp_path / "a.parquet")], str(tmp_path / "out"))


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
    messages = {"missing column": "there is no column 'price'", "cut file": "does not end as a Parquet file"}
    with pytest.raises(UserError, match=messages[damage]):
        score_files(str(bundle.folder), [str(source)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_folders_that_were_there(bundle, tmp_path):
    (tmp_path / "out").mkdir()
    pq.write_table(rows(5).drop_columns(["price"]), tmp_path / "a.parquet")
    for out in ("out", "out/deeper/still"):
        with pytest.raises(UserError, match="there is no column 'price'"):
            score_files(str(bundle.folder), [str(tmp_path / "a.parquet")], str(tmp_path / out))
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "a.parquet"}


def test_what_was_done_is_said(bundle, data, tmp_path):
    said = []
    score_files(str(bundle.folder), [str(data)], str(tmp_path / "out"), say=said.append)
    assert said == [f"done: 100 rows of 2 files, scored into {tmp_path}/out"]
    pq.write_table(rows(0), tmp_path / "none.parquet")
    score_files(str(bundle.folder), [str(tmp_path / "none.parquet")], str(tmp_path / "b.parquet"), say=said.append)
    assert said[1:] == [
        f"{tmp_path}/none.parquet has no rows",
        f"done: 0 rows of 1 file, scored into {tmp_path}/b.parquet",
    ]


def test_a_resumed_score_does_what_is_left(bundle, data, tmp_path):
    """A file that is missing, was cut, or was scored by another bundle or from another input is scored again."""
    out, lines = tmp_path / "out", []
    written = score_files(str(bundle.folder), [str(data)], str(out))
    before = {path: path.read_bytes() for path in written}
    times = {path: path.stat().st_mtime_ns for path in written}
    written[-1].unlink()
    assert set(score_files(str(bundle.folder), [str(data)], str(out), resume=True, say=lines.append)) == set(written)
    assert lines[0] == f"{len(written) - 1} of {len(written)} files are scored already"
    assert lines[1].startswith("done: 50 rows of 1 file, ")
    assert {path: path.read_bytes() for path in written} == before
    assert [path for path in written if path.stat().st_mtime_ns != times[path]] == [written[-1]]
    first = sorted(data.rglob("*.parquet"))[0]
    pq.write_table(pq.read_table(first, partitioning=None).slice(1), first)
    score_files(str(bundle.folder), [str(data)], str(out), resume=True)
    assert sum(path.read_bytes() != before[path] for path in written) == 1


def test_an_object_store_and_a_folder_get_the_same_scores(bundle, data, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    local = score_files(str(bundle.folder), [str(data)], str(tmp_path / "local"))
    with object_store() as store:
        fs.copy_files(str(data), f"{BUCKET}/to_score", destination_filesystem=store.file_system())
        remote = score_files(str(bundle.folder), [store.url("/to_score")], str(tmp_path / "remote"))
    assert [path.relative_to(tmp_path / "remote") for path in remote] == [
        path.relative_to(tmp_path / "local") for path in local
    ]
    for path, other in zip(local, remote, strict=True):
        assert pq.ParquetFile(path).read().equals(pq.ParquetFile(other).read())


def test_scores_go_to_an_object_store(bundle, data, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    local = score_files(str(bundle.folder), [str(data)], str(tmp_path / "local"))
    with object_store() as store:
        files, said = store.file_system(), []
        store.address = store.server  # the proxy before it takes no uploads
        out = store.url("/scores/of_today")

        def there():
            found = files.get_file_info(fs.FileSelector(f"{BUCKET}/scores", recursive=True))
            return {info.path: info.mtime_ns for info in found if info.type == fs.FileType.File}

        written = score_files(str(bundle.folder), [str(data)], out)
        assert written == [f"s3://{BUCKET}/scores/of_today/day={day}/part-0.parquet" for day in (1, 2)]
        paths = [url.removeprefix("s3://") for url in written]
        assert sorted(there()) == paths
        for path, other in zip(paths, local, strict=True):
            assert pq.read_table(path, filesystem=files, partitioning=None).equals(pq.ParquetFile(other).read())
        with pytest.raises(UserError, match=r"part-0.parquet is there already\n--overwrite replaces it"):
            score_files(str(bundle.folder), [str(data)], out)
        files.delete_file(paths[1])
        before = there()
        score_files(str(bundle.folder), [str(data)], out, resume=True, say=said.append)
        assert said == [
            "1 of 2 files are scored already",
            f"done: 50 rows of 1 file, scored into s3://{BUCKET}/scores/of_today",
        ]
        assert there()[paths[0]] == before[paths[0]]
        assert sorted(there()) == paths
        with files.open_output_stream(paths[0]) as stream:
            stream.write(b"notes")
        with pytest.raises(UserError, match=r"part-0.parquet is there already\ngive OUT, the last argument, another"):
            score_files(str(bundle.folder), [str(data)], out, overwrite=True)
        with pytest.raises(UserError, match=r"lies in .*of_today, which is scored"):
            score_files(str(bundle.folder), [out], store.url("/scores/of_today/again"))
        prices = np.ones(50)
        prices[30] = np.nan  # in the second row group
        table = rows(50).set_column(rows(1).column_names.index("price"), "price", pa.array(prices))
        pq.write_table(table, data / "day=2" / "part-0.parquet", row_group_size=20)
        with pytest.raises(UserError, match="row 30: column 'price' is nan"):
            score_files(str(bundle.folder), [str(data / "day=2")], store.url("/scores/failed"))
        assert not [path for path in there() if "failed" in path]
        for most in (5 << 30, 0):  # bytes that S3 copies in one request: beyond, a file is read and written anew
            monkeypatch.setattr("trainer.serving.scored_file._MOST_COPIED", most)
            url, already = store.url(f"/scores/{most}.parquet"), set(there())
            (one,) = score_files(str(bundle.folder), [str(data / "day=1" / "part-0.parquet")], url)
            assert one == f"s3://{BUCKET}/scores/{most}.parquet"
            assert {*there()} - already == {f"{BUCKET}/scores/{most}.parquet"}
            assert pq.read_table(one.removeprefix("s3://"), filesystem=files).equals(pq.ParquetFile(local[0]).read())


def test_scores_go_where_fsspec_knows_the_way(bundle, data):
    written = score_files(str(bundle.folder), [str(data)], "memory://scores")
    assert written == [f"memory://scores/day={day}/part-0.parquet" for day in (1, 2)]
    assert len(score_files(str(bundle.folder), [str(data)], "memory://scores", resume=True)) == 2
    store = fsspec.filesystem("memory")
    assert sorted(store.find("/scores")) == [f"/scores/day={day}/part-0.parquet" for day in (1, 2)]
