"""Each ID transform alone: known rows, edges, and refusals that say what to do."""

import numpy as np
import pyarrow as pa
import pytest

from configs import choices
from configs.errors import UserError
from configs.schema import SparseFeature, TableConfig

WHERE = "part-0.parquet, row group 3: column 'x'"


def build(transform, num_embeddings=10, **settings):
    feature = SparseFeature(table="t", transform=transform, **settings)
    table = TableConfig(num_embeddings=num_embeddings, embedding_dim=4)
    return choices.load("embeddings.features.transforms", transform).build("x", feature, table)


def apply(transform, values, **settings):
    rows = build(transform, **settings)(values, WHERE)
    assert rows.dtype == np.int64
    return rows.tolist()


def test_hash_is_pinned():
    assert apply("hash", pa.array([0, 1, 5, -1, 2**63 - 1]), num_embeddings=1_000_003) == [
        0x34C96ACDCADB1BBB % 1_000_003,
        0x9F29CB17A2A49995 % 1_000_003,
        0x89BE0B2DD5C2593D % 1_000_003,
        0x85D136ADB773C6C9 % 1_000_003,
        0xFF70CC60366E770C % 1_000_003,
    ]
    assert apply("hash", pa.array(["", "5", "user_5"]), num_embeddings=1_000_003) == [
        0xEF46DB3751D8E999 % 1_000_003,
        0x6A81B47405B648ED % 1_000_003,
        0x4E26AD9A4F181CE4 % 1_000_003,
    ]


INTEGER_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("kind", [*INTEGER_TYPES, pa.decimal128(20, 0), pa.decimal256(40, 0)], ids=str)
def test_width_of_an_integer_does_not_matter(kind):
    values = [0, 1, 5, 127]
    assert apply("hash", pa.array(values).cast(kind)) == apply("hash", pa.array(values))
    assert apply("identity", pa.array(values).cast(kind), num_embeddings=128) == values


TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_kind_of_a_string_does_not_matter(kind):
    values = pa.array(["a", "naïve", "", "a"])
    assert apply("hash", values.cast(kind)) == apply("hash", values)


def test_dictionary_is_as_its_values():
    values = pa.array(["b", "a", "b", "b"])
    assert apply("hash", values.dictionary_encode()) == apply("hash", values)


def test_slice_is_as_its_values():
    values = pa.array(["b", "a", "c", "b"])
    assert apply("hash", values.slice(1, 2)) == apply("hash", pa.array(["a", "c"]))
    assert apply("hash", values.dictionary_encode().slice(1, 2)) == apply("hash", pa.array(["a", "c"]))


def test_integer_and_its_text_differ():
    assert apply("hash", pa.array([5]), num_embeddings=2**40) != apply("hash", pa.array(["5"]), num_embeddings=2**40)


@pytest.mark.parametrize("values", [pa.array([1.5]), pa.array([0], pa.timestamp("us")), pa.array([0], pa.date32())])
def test_hash_refuses_what_is_no_id(values):
    with pytest.raises(UserError, match=r"part-0.parquet, row group 3: column 'x' has type .*\nWrite integers"):
        apply("hash", values)


def test_decimal_beyond_64_bits_is_refused():
    with pytest.raises(UserError, match="beyond 64 bits"):
        apply("hash", pa.array([10**25], pa.decimal128(38, 0)))


@pytest.mark.parametrize("bad", [-1, 10, 2**62])
def test_identity_out_of_range(bad):
    values = pa.array([0, bad, 9])
    with pytest.raises(UserError, match=rf"column 'x' has ID {bad}, outside table 't' of 10 rows\n.*out_of_range=drop"):
        apply("identity", values)
    assert apply("identity", values, out_of_range="drop") == [0, -1, 9]


def test_identity_refuses_strings():
    with pytest.raises(UserError, match="use transform: hash or vocabulary"):
        apply("identity", pa.array(["1"]))


@pytest.fixture
def vocabulary(tmp_path):
    def write(text):
        path = tmp_path / "ids.txt"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("text", ["30\n10\n20", "30\n10\n20\n", "30\r\n10\r\n20\r\n"])
def test_vocabulary_rows_are_line_numbers(vocabulary, text):
    path = vocabulary(text)
    assert apply("vocabulary", pa.array([10, 99, 30, -5, 20, 10**12]), vocabulary=path) == [2, 0, 1, 0, 3, 0]
    assert apply("vocabulary", pa.array(["10", "99", "30", "10"]), vocabulary=path) == [2, 0, 1, 2]
    assert apply("vocabulary", pa.array(["10", "30", "10"]).dictionary_encode(), vocabulary=path) == [2, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\nb\na", "line 3 repeats line 1"), ("a\n\nb", "line 2 is empty"), ("\n".join("abcdefghijk"), "11 IDs, table")],
)
def test_vocabulary_file_is_checked(vocabulary, text, message):
    with pytest.raises(UserError, match=message):
        build("vocabulary", vocabulary=vocabulary(text))


def test_vocabulary_of_words_and_an_integer_column(vocabulary):
    with pytest.raises(UserError, match="Write integers, one a line"):
        apply("vocabulary", pa.array([1]), vocabulary=vocabulary("a\n"))


def test_vocabulary_file_is_needed(tmp_path):
    with pytest.raises(UserError, match="has no file"):
        build("vocabulary")
    with pytest.raises(UserError, match="cannot be read"):
        build("vocabulary", vocabulary=str(tmp_path / "none.txt"))


def test_empty_vocabulary_knows_nothing(vocabulary):
    assert apply("vocabulary", pa.array([1, 2]), vocabulary=vocabulary("")) == [0, 0]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(10, 2)], ids=str)
def test_bucket_edges_are_upper(kind):
    values = pa.array([-1.0, 1.0, 1.5, 2.0, 3.0]).cast(kind)
    assert apply("bucketize", values, boundaries=(1, 2)) == [0, 0, 1, 1, 2]


def test_bucketize_takes_infinity_but_no_nan():
    assert apply("bucketize", pa.array([-np.inf, np.inf]), boundaries=(1, 2)) == [0, 2]
    with pytest.raises(UserError, match="NaN at element 1"):
        apply("bucketize", pa.array([0, np.nan]), boundaries=(1, 2))


@pytest.mark.parametrize("boundaries", [(), (2, 1), (1, 1), tuple(range(10))])
def test_boundaries_are_checked(boundaries):
    with pytest.raises(UserError, match="boundaries"):
        build("bucketize", boundaries=boundaries)
