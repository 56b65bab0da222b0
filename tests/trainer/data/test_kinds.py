"""Every kind of Parquet column that pyarrow writes, through a real file: read as what it says, or refused by name."""

import datetime as dt
import itertools
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import DataConfig, DenseFeature, SparseFeature, TableConfig, TaskConfig
from embeddings.features.arrow import is_list
from embeddings.features.feature_transforms import Columns, FeatureTransforms
from embeddings.features.places import for_callers
from tests.trainer.data import rows
from trainer.data.columns.block import Block
from trainer.data.columns.checks import kind
from trainer.data.columns.targets import Targets
from trainer.data.dataset.scan import build_manifest
from trainer.data.reading.decode import Decoder
from trainer.data.reading.reader import Reader

TABLES = {"t": TableConfig(num_embeddings=2**40, embedding_dim=4)}
IDS = {"x": SparseFeature(table="t")}
NUMBERS = {"x": DenseFeature(default=-1.0)}
PAIRS = {"x": DenseFeature(width=2, default=-1.0)}
LABELS = {"x": TaskConfig(loss="mse")}


def written(tmp_path: Path, array: pa.Array, **options: Any) -> pa.Table:
    """What a reader of the file sees, after a look that the file checks' idea of its type holds."""
    path = tmp_path / "train" / "a.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": array}), path, **options)
    return pq.read_table(path)


def features(table: pa.Table, declared: dict) -> Columns:
    return FeatureTransforms(declared, TABLES)(table, "a.parquet")


def bags(table: pa.Table) -> list[list[int]]:
    ragged = features(table, IDS).sparse["x"]
    return [part.tolist() for part in np.split(ragged.values, np.cumsum(ragged.lengths)[:-1])]


def hashed(values: list) -> list[list[int]]:
    """The bags of plain int64 or string lists with the same values."""
    lists = [[] if row is None else [v for v in row if v is not None] for row in values]
    return bags(pa.table({"x": pa.array(lists)}))


INTEGERS = [0, 1, None, 100, 7]
SIGNED = [0, -1, None, 100, -7]
WORDS = ["a", "", None, "bb", "ünïcode"]


@pytest.mark.parametrize(
    ("array", "values"),
    [
        *((pa.array(SIGNED, getattr(pa, f"int{bits}")()), SIGNED) for bits in (8, 16, 32, 64)),
        *((pa.array(INTEGERS, getattr(pa, f"uint{bits}")()), INTEGERS) for bits in (8, 16, 32, 64)),
        (pa.array([2**64 - 1, 2**63, None], pa.uint64()), [-1, -(2**63), None]),  # the same 64 bits
        (pa.array([2**63 - 1, -(2**63)]), [2**63 - 1, -(2**63)]),
        (pa.array([True, False, None]), [1, 0, None]),
        (pa.array([Decimal(5), None, Decimal(-7)], pa.decimal128(9, 0)), [5, None, -7]),
        (pa.array([Decimal(5), None, Decimal(-7)], pa.decimal128(38, 0)), [5, None, -7]),
        (pa.array([Decimal(5), None, Decimal(-7)], pa.decimal256(60, 0)), [5, None, -7]),
        (pa.array(SIGNED).dictionary_encode(), SIGNED),
        (pa.array(WORDS), WORDS),
        (pa.array(WORDS, pa.large_string()), WORDS),
        (pa.array(WORDS).dictionary_encode(), WORDS),
        (pa.array([w and w.encode() for w in WORDS], pa.binary()), WORDS),
        (pa.array([w and w.encode() for w in WORDS], pa.large_binary()), WORDS),
        (pa.array([b"abc", None, b"xyz"], pa.binary(3)), ["abc", None, "xyz"]),
        (pa.nulls(3), [None, None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_ids(tmp_path: Path, array: pa.Array, values: list) -> None:
    table = written(tmp_path, array)
    expected = hashed([None if v is None else [v] for v in values]) if set(values) != {None} else [[]] * len(values)
    assert bags(table) == expected


LISTS = [[1, 2], None, [], [3, None, 4], [None]]
SPARK = pa.list_(pa.field("element", pa.int64(), nullable=False))


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array(LISTS, pa.list_(pa.int64())), LISTS),
        (pa.array(LISTS, pa.large_list(pa.int32())), LISTS),
        (pa.array([[1, 2], None, [3, None]], pa.list_(pa.int16(), 2)), [[1, 2], None, [3, None]]),
        (pa.array([[1, 2], None, [], [3]], SPARK), [[1, 2], None, [], [3]]),
        (pa.array(LISTS, pa.list_(pa.uint64())), LISTS),
        (pa.array([["a"], None, ["b", None, "a"], []], pa.list_(pa.string())), [["a"], None, ["b", None, "a"], []]),
        (pa.array([["a"], None, ["b", None]], pa.list_(pa.dictionary(pa.int32(), pa.string()))), [["a"], None, ["b"]]),
        (pa.array([[True, None], None, [False]], pa.list_(pa.bool_())), [[1], None, [0]]),
        (pa.array([[Decimal(3)], None], pa.list_(pa.decimal128(12, 0))), [[3], None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
@pytest.mark.parametrize("compliant", [True, False])
def test_lists_of_ids(tmp_path: Path, array: pa.Array, values: list, compliant: bool) -> None:
    table = written(tmp_path, array, use_compliant_nested_type=compliant)
    assert bags(table) == hashed(values)


FLOATS = [0.5, None, -3.0]


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array(FLOATS, pa.float32()), FLOATS),
        (pa.array(FLOATS, pa.float64()), FLOATS),
        (pa.array(np.array([0.5, 3.0], np.float16)), [0.5, 3.0]),
        (pa.array([Decimal("0.5"), None, Decimal("-3.0")], pa.decimal128(7, 2)), FLOATS),
        (pa.array([Decimal("0.5"), None, Decimal("-3.0")], pa.decimal256(50, 2)), FLOATS),
        *((pa.array(SIGNED, getattr(pa, f"int{bits}")()), SIGNED) for bits in (8, 16, 32, 64)),
        *((pa.array(INTEGERS, getattr(pa, f"uint{bits}")()), INTEGERS) for bits in (8, 16, 32, 64)),
        (pa.array([True, None, False]), [1, None, 0]),
        (pa.array(FLOATS).dictionary_encode(), FLOATS),
        (pa.nulls(2), [None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_numbers_and_labels(tmp_path: Path, array: pa.Array, values: list) -> None:
    table = written(tmp_path, array)
    assert features(table, NUMBERS).dense[:, 0].tolist() == [-1 if v is None else v for v in values]
    labels, weights = Targets(LABELS, None)(table, "a.parquet")
    assert labels[:, 0].tolist() == [v or 0 for v in values]
    assert weights[:, 0].tolist() == [v is not None for v in values]


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float32())),
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.float64(), 2)),
        pa.array([[1, 2], None, [3, 4]], pa.large_list(pa.int8())),
        pa.array([[1, 2], None, [3, 4]], pa.list_(pa.field("element", pa.float32(), nullable=False))),
    ],
    ids=lambda array: str(array.type),
)
def test_vectors(tmp_path: Path, array: pa.Array) -> None:
    assert features(written(tmp_path, array), PAIRS).dense.tolist() == [[1, 2], [-1, -1], [3, 4]]


MOMENT, DAY = dt.datetime(2024, 2, 29, 12), dt.date(2024, 2, 29)
NO_NUMBERS = [
    *(pa.array([MOMENT, None], pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")),
    pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
    pa.array([DAY, None], pa.date32()),
    pa.array([DAY, None], pa.date64()),
    pa.array([dt.time(12), None], pa.time32("ms")),
    pa.array([dt.time(12), None], pa.time64("us")),
    pa.array([dt.timedelta(1), None], pa.duration("us")),
    pa.array([{"a": 1}, None], pa.struct([("a", pa.int64())])),
    pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
    pa.array([[[1], [2]], None], pa.list_(pa.list_(pa.int64()))),
    pa.array([[{"a": 1}], None], pa.list_(pa.struct([("a", pa.int64())]))),
]


def refused(call: Any, array: pa.Array) -> None:
    with pytest.raises(UserError) as caught:
        call()
    what, *remedy = for_callers(str(caught.value)).splitlines()
    assert what.startswith("a.parquet: column 'x' has type ")
    element = kind(array.type).value_type if is_list(array.type) else kind(array.type)
    assert str(element).partition("[")[0].partition("<")[0] in what
    assert len(remedy) == 1


@pytest.mark.parametrize("array", NO_NUMBERS, ids=lambda array: str(array.type))
def test_what_is_neither_an_id_nor_a_number(tmp_path: Path, array: pa.Array) -> None:
    table = written(tmp_path, array)
    refused(lambda: features(table, IDS), table["x"])
    refused(lambda: features(table.slice(0, 0), PAIRS if is_list(array.type) else NUMBERS), table["x"])
    refused(lambda: Targets(LABELS, None)(table, "a.parquet"), table["x"])
    refused(lambda: features(table.slice(0, 0), IDS), table["x"])  # from the footer alone, before training
    refused(lambda: Targets(LABELS, None)(table.slice(0, 0), "a.parquet"), table["x"])


def test_timestamps_of_96_bits(tmp_path: Path) -> None:
    array = pa.array([MOMENT, None], pa.timestamp("ns"))
    table = written(tmp_path, array, use_deprecated_int96_timestamps=True)
    refused(lambda: features(table, IDS), array)


@pytest.mark.parametrize(
    "array",
    [pa.array(FLOATS), pa.array(FLOATS, pa.float32()), pa.array([Decimal("0.50")], pa.decimal128(5, 2))],
    ids=lambda array: str(array.type),
)
def test_fractions_are_no_ids(tmp_path: Path, array: pa.Array) -> None:
    refused(lambda: features(written(tmp_path, array), IDS), array)


@pytest.mark.parametrize("array", [pa.array(WORDS), pa.array([b"abc"], pa.binary(3))], ids=lambda a: str(a.type))
def test_words_are_no_numbers(tmp_path: Path, array: pa.Array) -> None:
    table = written(tmp_path, array)
    refused(lambda: features(table, NUMBERS), array)
    refused(lambda: Targets(LABELS, None)(table, "a.parquet"), array)


def test_uuids_are_their_bytes(tmp_path: Path) -> None:
    ids = [uuid.uuid5(uuid.NAMESPACE_DNS, name).bytes for name in "ab"]
    storage = pa.array(ids, pa.binary(16))
    table = written(tmp_path, pa.ExtensionArray.from_storage(pa.uuid(), storage))
    assert bags(table) == bags(pa.table({"x": storage}))


ENCODINGS = {
    "row": ["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"],
    "number": ["PLAIN", "BYTE_STREAM_SPLIT"],
    "tags.list.element": ["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"],
    "word": ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"],
    "flag": ["PLAIN", "RLE"],
    "fixed": ["PLAIN", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT"],
}
CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]
SPARSE = {name: SparseFeature(table="t") for name in ("word", "fixed", "flag")}


def mixed(start: int, stop: int) -> pa.Table:
    table = rows.table(start, stop)
    numbers = list(range(start, stop))
    table = table.append_column("word", pa.array([None if i % 7 == 0 else f"item-{i:05}" for i in numbers]))
    table = table.append_column("fixed", pa.array([i.to_bytes(4, "big") for i in numbers], pa.binary(4)))
    return table.append_column("flag", pa.array([i % 3 == 0 for i in numbers]))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", CODECS)
def test_encodings_codecs_and_pages(tmp_path: Path, codec: str, version: str) -> None:
    """Every column in every encoding that its type allows, and dictionaries; many pages, and empty row groups."""
    layouts: list[dict[str, Any]] = [{"use_dictionary": True}]
    for choice in itertools.zip_longest(*ENCODINGS.values(), fillvalue="PLAIN"):
        layouts.append({"use_dictionary": False, "column_encoding": dict(zip(ENCODINGS, choice, strict=True))})
    (tmp_path / "train").mkdir()
    for number, layout in enumerate(layouts):
        table, path = mixed(number * 200, number * 200 + 200), tmp_path / "train" / f"{number}.parquet"
        options = {"compression": codec, "data_page_version": version, "data_page_size": 256, "write_batch_size": 16}
        with pq.ParquetWriter(path, table.schema, write_page_checksum=True, **options, **layout) as writer:
            for part in (table.slice(0, 130), table.slice(0, 0), table.slice(130)):
                writer.write_table(part)
    manifest = build_manifest(str(tmp_path), "train")
    assert 0 in manifest.files[0].rows
    settings = DataConfig(root="", global_batch_size=40, lanes=4, shuffle_window=30)
    seen = rows.everything(rows.reader(manifest, settings).batches(0))
    assert seen == dict.fromkeys(range(200 * len(layouts)), 1)
    declared = FeatureTransforms(SPARSE, TABLES)
    decoder = Decoder(manifest, settings, declared, rows.TASKS, None)
    start = 0
    for number, group in enumerate(manifest.row_groups):
        block = decoder(number)
        plain = mixed(start, start + group.rows)
        expected = Block.of(declared(plain, ""), declared.sparse_names, *Targets(rows.TASKS, None)(plain, ""), None)
        for one, other in zip(block.bags, expected.bags, strict=True):
            assert one.values.tolist() == other.values.tolist()
        start += group.rows


def test_an_empty_row_group_among_others_gives_no_rows(tmp_path: Path) -> None:
    table, path = rows.table(0, 10), tmp_path / "train" / "a.parquet"
    path.parent.mkdir()
    with pq.ParquetWriter(path, table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 10), table.slice(0, 0)):
            writer.write_table(part)
    manifest = build_manifest(str(tmp_path), "train")
    assert [group.rows for group in manifest.row_groups] == [0, 10, 0]
    data = DataConfig(root="", global_batch_size=4, lanes=2, shuffle_window=0)
    reader = Reader(manifest, data, FeatureTransforms(rows.FEATURES, rows.TABLES), rows.TASKS, 7, 0, 1)
    assert rows.everything(reader.batches(0)) == dict.fromkeys(range(10), 1)
