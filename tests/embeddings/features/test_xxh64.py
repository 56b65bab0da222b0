"""The hash is a contract between every trained table and whoever serves it: known values, and the library's word."""

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embeddings.features.xxh64 import hash_bytes, hash_integers, reduce_modulo

INTEGERS = hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(-(2**63), 2**63 - 1))
COPIES = st.sampled_from((1, 100))  # few are hashed one by one, many in NumPy


@pytest.mark.parametrize("copies", [1, 100], ids=["by the library", "in NumPy"])
def test_known_integers(copies):
    values = np.array([0, 1, 5, -1, 2**63 - 1, -(2**63)] * copies, np.int64)
    assert hash_integers(values).tolist() == copies * [
        0x34C96ACDCADB1BBB,
        0x9F29CB17A2A49995,
        0x89BE0B2DD5C2593D,
        0x85D136ADB773C6C9,
        0xFF70CC60366E770C,
        0x3F425EACF01544E0,
    ]


def hash_all(inputs):
    lengths = np.array([len(text) for text in inputs], np.int64)
    data = np.frombuffer(b"".join(inputs), np.uint8)
    return hash_bytes(data, np.cumsum(lengths) - lengths, lengths).tolist()


@pytest.mark.parametrize("copies", [1, 100], ids=["by the library", "in NumPy"])
def test_known_strings(copies):
    # the first is the XXH64 of nothing in the algorithm's own specification
    assert hash_all([b"", b"5", "naïve".encode(), b"x" * 40] * copies) == copies * [
        0xEF46DB3751D8E999,
        0x6A81B47405B648ED,
        0xC07351DC8A26AFE6,
        0x926F564E1B3E18D5,
    ]


@given(INTEGERS, COPIES)
def test_integers_as_the_library(values, copies):
    expected = [xxhash.xxh64_intdigest(int(v).to_bytes(8, "little", signed=True)) for v in values]
    assert hash_integers(np.tile(values, copies)).tolist() == expected * copies


@given(st.integers(0, 140), st.integers(1, 200), st.randoms(use_true_random=False))
def test_bytes_as_the_library(length, count, random):
    inputs = [random.randbytes(length) for _ in range(count)] + [random.randbytes(random.randrange(80))]
    assert hash_all(inputs) == [xxhash.xxh64_intdigest(text) for text in inputs]


@given(INTEGERS, COPIES, st.integers(1, 2**63 - 1))
def test_modulo_is_unsigned(values, copies, modulus):
    values = np.tile(values, copies)
    expected = [int(h) % modulus for h in hash_integers(values)]
    assert hash_integers(values, modulus).tolist() == expected
    assert reduce_modulo(hash_integers(values), modulus).tolist() == expected


def test_chunks_do_not_show():
    values = np.arange(50_001, dtype=np.int64)
    pieces = [hash_integers(values[start : start + 999], 1000) for start in range(0, len(values), 999)]
    assert np.array_equal(hash_integers(values, 1000), np.concatenate(pieces))
