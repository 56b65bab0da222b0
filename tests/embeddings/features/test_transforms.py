"""Each ID transform alone: known rows, edges, and refusals that say what to do."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from configs.schema import SparseFeature, TableConfig
from embeddings.features.feature_transforms import build_transform

WHERE = "part-0.parquet, row group 3: column 'x'"


def build(transform, num_embeddings=10, **settings):
    feature = SparseFeature(table="t", transform=transform, **settings)
    table = TableConfig(num_embeddings=num_embeddings, embedding_dim=4)
    return build_transform("x", feature, table)


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


DECIMAL_TYPES = [pa.decimal32(9, 0), pa.decimal64(18, 0), pa.decimal128(20, 0), pa.decimal256(40, 0)]
INTEGER_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("kind", [*INTEGER_TYPES, *DECIMAL_TYPES], ids=str)
def test_width_of_an_integer_does_not_matter(kind):
    values = [0, 1, 5, 63, 127]
    given = pa.array([Decimal(value) for value in values] if pa.types.is_decimal(kind) else values, kind)
    assert apply("hash", given) == apply("hash", pa.array(values))
    assert apply("identity", given, num_embeddings=128) == values


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


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(0, 3))
def test_decimals_of_any_width_are_their_integers(numbers, skipped):
    expected = apply("hash", pa.array(numbers, pa.int64()))
    for kind in DECIMAL_TYPES:
        if all(abs(number) < 10**kind.precision for number in numbers):
            values = pa.array([Decimal(number) for number in numbers], kind)
            assert apply("hash", values.slice(skipped)) == expected[skipped:]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**25, 10**45])
def test_decimal_beyond_64_bits_is_refused(number):
    with pytest.raises(UserError, match="beyond 64 bits\nWrite the column as strings"):
        apply("hash", pa.array([number], pa.decimal256(50, 0)))


@pytest.mark.parametrize("bad", [-1, 10, 2**62])
def test_identity_out_of_range(bad):
    values = pa.array([0, bad, 9])
    with pytest.raises(
        UserError, match=rf"column 'x' has ID {bad}, outside table 't' of 10 rows\nGive IDs from 0 to 9\."
    ) as refused:
        apply("identity", values)
    assert "\nTo train with these, raise tables.t.num_embeddings, or set features." in str(refused.value)
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
    [
        ("a\nb\na", "line 3 repeats line 1"),
        ("a\n\nb", "line 2 is empty"),
        ("\n".join("abcdefghijk"), "11 IDs, table"),
        ("", "is empty: every ID"),
        ("a\nb\n".encode("utf-16-le").decode(), "line 1 has a zero byte"),
    ],
)
def test_vocabulary_file_is_checked(vocabulary, text, message):
    with pytest.raises(UserError, match=message):
        build("vocabulary", vocabulary=vocabulary(text))


def test_vocabulary_of_words_and_an_integer_column(vocabulary):
    with pytest.raises(UserError, match=r"line 1 is 'a', .*\nThe column has integers"):
        apply("vocabulary", pa.array([1]), vocabulary=vocabulary("a\n"))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    for text, values in (("red\ngreen\n", ["red", "green"]), ("7\n8\n", [7, 8])):
        (tmp_path / "ids.txt").write_bytes(text.encode("utf-8-sig"))
        assert apply("vocabulary", pa.array(values), vocabulary=str(tmp_path / "ids.txt")) == [1, 2]


def test_only_line_ends_end_a_line(vocabulary):
    """Python's splitlines also cuts at form feeds, at U+0085 and at U+2028."""
    ids = ["a\x0bb", "c\x0cd", "e\x85f", "g\u2028h", " i ", "j"]
    assert apply("vocabulary", pa.array(ids), vocabulary=vocabulary("\n".join(ids))) == [1, 2, 3, 4, 5, 6]


def test_bytes_that_are_not_utf8_are_an_unknown_id(vocabulary):
    raw = pa.array([b"caf\xe9", "café".encode(), b"tea"], pa.binary())
    path = vocabulary("tea\ncafé\n")
    for values in (raw, raw.dictionary_encode(), pa.Array.from_buffers(pa.string(), 3, raw.buffers())):
        assert apply("vocabulary", values, vocabulary=path) == [0, 2, 1]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_a_vocabulary_reads_every_kind_of_string(vocabulary, kind):
    assert apply("vocabulary", pa.array(["b", "x", "a", "b"]).cast(kind), vocabulary=vocabulary("a\nb")) == [2, 0, 1, 2]


def test_a_vocabulary_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "ids.txt").write_bytes("café".encode("utf-16"))
    with pytest.raises(UserError, match=r"ids.txt cannot be read: .*\nIt is a UTF-8 file"):
        build("vocabulary", vocabulary=str(tmp_path / "ids.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("5\n05", "line 2 is the same number as line 1: '05'"), ("1_000", "is '1_000', which is no integer")],
)
def test_lines_as_integers_are_checked(vocabulary, text, message):
    with pytest.raises(UserError, match=message):
        apply("vocabulary", pa.array([5]), vocabulary=vocabulary(text))


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, unique_by=lambda number: number % 2**64), st.data())
def test_integers_of_64_bits_find_their_line(tmp_path_factory, numbers, data):
    path = tmp_path_factory.getbasetemp() / "numbers.txt"
    path.write_text("\n".join(map(str, numbers)))
    asked = data.draw(st.lists(st.sampled_from(numbers) if numbers else st.nothing()))
    values = pa.array(np.array([number % 2**64 for number in asked], np.uint64))
    expected = [numbers.index(number) + 1 for number in asked]
    assert apply("vocabulary", values, num_embeddings=1000, vocabulary=str(path)) == expected


def test_vocabulary_file_is_needed(tmp_path):
    with pytest.raises(UserError, match="has no file"):
        build("vocabulary")
    with pytest.raises(UserError, match="cannot be read"):
        build("vocabulary", vocabulary=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(10, 2)], ids=str)
def test_bucket_edges_are_upper(kind):
    values = pa.array([-1.0, 1.0, 1.5, 2.0, 3.0]).cast(kind)
    assert apply("bucketize", values, boundaries=(1, 2)) == [0, 0, 1, 1, 2]


NUMBERS = [pa.float64(), pa.float32(), pa.float16()]


@given(st.lists(st.integers(-500, 500), min_size=1, max_size=9, unique=True), st.lists(st.integers(-500, 500)))
def test_a_number_has_one_bucket_in_every_type(edges, hundredths):
    """Written with two decimal places, which no binary type holds exactly."""
    boundaries = tuple(edge / 100 for edge in sorted(edges))
    decimals = pa.array([Decimal(number) / 100 for number in hundredths], pa.decimal128(9, 2))
    columns = [pa.array([number / 100 for number in hundredths], kind) for kind in NUMBERS]
    columns += [decimals, *(decimals.cast(kind) for kind in (pa.decimal32(7, 2), pa.decimal64(9, 2)))]
    expected = [sum(edge < number for edge in sorted(edges)) for number in hundredths]
    for column in columns:
        assert apply("bucketize", column, boundaries=boundaries) == expected


def test_a_boundary_beyond_float_is_beyond_its_numbers():
    values = pa.array([3e38, np.inf], pa.float32())
    assert apply("bucketize", values, boundaries=(1.0, 1e300)) == [1, 2]


def test_bucketize_takes_infinity_but_no_nan():
    assert apply("bucketize", pa.array([-np.inf, np.inf]), boundaries=(1, 2)) == [0, 2]
    with pytest.raises(UserError, match="is NaN"):
        apply("bucketize", pa.array([0, np.nan]), boundaries=(1, 2))


@pytest.mark.parametrize("boundaries", [(), (2, 1), (1, 1), tuple(range(10))])
def test_boundaries_are_checked(boundaries):
    with pytest.raises(UserError, match="boundaries"):
        build("bucketize", boundaries=boundaries)
