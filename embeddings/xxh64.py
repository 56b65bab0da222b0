"""XXH64 (seed 0) of many short inputs at once, in NumPy: the hash that turns raw IDs into table rows.

The hash is part of what a trained model is: a table is useless under another one. It is pinned by known values in the
tests, and compared there with the xxhash library. Which bytes stand for an ID is decided here too: an integer of any
width is its 8 little-endian bytes (two's complement), a string its UTF-8 bytes. So 5 and "5" are different IDs.

Algorithm: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

import numpy as np
import numpy.typing as npt
import xxhash

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_5_PLUS_8 = np.uint64(0x27D4EB2F165667C5 + 8)  # the state of seed 0 after an input of 8 bytes
_CHUNK = 8192  # 64 KiB of values and as much scratch: both stay in the L2 cache over the dozen passes


def _rotate_left(h: npt.NDArray[np.uint64], bits: int, scratch: npt.NDArray[np.uint64]) -> None:
    np.right_shift(h, np.uint64(64 - bits), out=scratch)
    np.left_shift(h, np.uint64(bits), out=h)
    np.bitwise_or(h, scratch, out=h)


def _xor_shift(h: npt.NDArray[np.uint64], bits: int, scratch: npt.NDArray[np.uint64]) -> None:
    np.right_shift(h, np.uint64(bits), out=scratch)
    np.bitwise_xor(h, scratch, out=h)


def _mix(h: npt.NDArray[np.uint64], scratch: npt.NDArray[np.uint64]) -> None:
    """From value * PRIME_2 to the hash, in place: the closed form of XXH64 for an input of 8 bytes."""
    _rotate_left(h, 31, scratch)
    h *= _PRIME_1
    h ^= _PRIME_5_PLUS_8
    _rotate_left(h, 27, scratch)
    h *= _PRIME_1
    h += _PRIME_4
    _xor_shift(h, 33, scratch)
    h *= _PRIME_2
    _xor_shift(h, 29, scratch)
    h *= _PRIME_3
    _xor_shift(h, 32, scratch)


def hash_integers(values: npt.NDArray[np.int64], modulus: int | None = None) -> npt.NDArray[np.uint64]:
    """XXH64 of each of `values` [N] as 8 little-endian bytes; its remainder by `modulus` where one is given."""
    raw = values.view(np.uint64)
    hashes = np.empty(len(raw), np.uint64)
    scratch = np.empty(min(_CHUNK, len(raw)), np.uint64)
    for start in range(0, len(raw), _CHUNK):
        h = hashes[start : start + _CHUNK]
        np.multiply(raw[start : start + _CHUNK], _PRIME_2, out=h)
        _mix(h, scratch[: len(h)])
        if modulus is not None:
            reduce_modulo(h, modulus, scratch[: len(h)])
    return hashes


def hash_bytes(inputs: list[bytes]) -> npt.NDArray[np.uint64]:
    """XXH64 of each input [N]."""
    return np.fromiter(map(xxhash.xxh64_intdigest, inputs), np.uint64, len(inputs))


def reduce_modulo(
    hashes: npt.NDArray[np.uint64], modulus: int, scratch: npt.NDArray[np.uint64] | None = None
) -> npt.NDArray[np.uint64]:
    """`hashes` [N] modulo `modulus` as unsigned numbers, in place.

    Through a division: NumPy divides by a constant with multiplications, but takes remainders one by one.
    """
    quotient = np.floor_divide(hashes, np.uint64(modulus), out=scratch)
    quotient *= np.uint64(modulus)
    hashes -= quotient
    return hashes
