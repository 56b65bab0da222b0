"""XXH64 (seed 0) of many short inputs at once, in NumPy: the hash that turns raw IDs into table rows.

The hash is part of what a trained model is: a table is useless under another one. It is pinned by known values in the
tests, and compared there with the xxhash library. Which bytes stand for an ID is decided here too: an integer of any
width is its 8 little-endian bytes (two's complement), a string its UTF-8 bytes. So 5 and "5" are different IDs.

Algorithm: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

import itertools

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

_PRIME_1 = np.uint64(0x9E3779B185EBCA87)
_PRIME_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_PRIME_3 = np.uint64(0x165667B19E3779F9)
_PRIME_4 = np.uint64(0x85EBCA77C2B2AE63)
_PRIME_5 = np.uint64(0x27D4EB2F165667C5)
_PRIME_5_PLUS_8 = _PRIME_5 + np.uint64(8)  # the state of seed 0 before the only word of an input of 8 bytes
_ACCUMULATORS = (0x60EA27EEADC0B5D6, 0xC2B2AE3D27D4EB4F, 0, 0x61C8864E7A143579)  # of seed 0: P1 + P2, P2, 0, -P1
_FEW, _FEW_OF_A_LENGTH = 256, 64  # inputs, below which the library is faster than a dozen NumPy calls
_FEW_INTEGERS = 128  # the same: 26 take 5 us instead of 23, 128 take 15
_CHUNK = 8192  # 64 KiB of values and as much scratch: both stay in the L2 cache over the dozen passes


def _rotate_left(h: Hashes, bits: int, scratch: Hashes) -> None:
    np.right_shift(h, np.uint64(64 - bits), out=scratch)
    np.left_shift(h, np.uint64(bits), out=h)
    np.bitwise_or(h, scratch, out=h)


def _xor_shift(h: Hashes, bits: int, scratch: Hashes) -> None:
    np.right_shift(h, np.uint64(bits), out=scratch)
    np.bitwise_xor(h, scratch, out=h)


def _avalanche(h: Hashes, scratch: Hashes) -> None:
    _xor_shift(h, 33, scratch)
    h *= _PRIME_2
    _xor_shift(h, 29, scratch)
    h *= _PRIME_3
    _xor_shift(h, 32, scratch)


def _round(h: Hashes, scratch: Hashes) -> None:
    """From value * PRIME_2 to what enters the state."""
    _rotate_left(h, 31, scratch)
    h *= _PRIME_1


def hash_integers(values: npt.NDArray[np.int64], modulus: int | None = None) -> Hashes:
    """XXH64 of each of `values` [N] as 8 little-endian bytes; its remainder by `modulus` where one is given."""
    raw = values.view(np.uint64)
    if len(raw) < _FEW_INTEGERS:
        few = np.fromiter(map(xxhash.xxh64_intdigest, raw.view("V8").tolist()), np.uint64, len(raw))
        return few if modulus is None else reduce_modulo(few, modulus)
    hashes = np.empty(len(raw), np.uint64)
    scratch = np.empty(min(_CHUNK, len(raw)), np.uint64)
    for start in range(0, len(raw), _CHUNK):
        h = hashes[start : start + _CHUNK]
        part = scratch[: len(h)]
        np.multiply(raw[start : start + _CHUNK], _PRIME_2, out=h)
        _round(h, part)
        h ^= _PRIME_5_PLUS_8
        _rotate_left(h, 27, part)
        h *= _PRIME_1
        h += _PRIME_4
        _avalanche(h, part)
        if modulus is not None:
            reduce_modulo(h, modulus, part)
    return hashes


def hash_bytes(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Hashes:
    """XXH64 of each input [N]: `lengths[i]` bytes of `data` from `starts[i]`. Inputs of one length go together."""
    if len(starts) < _FEW:
        return _one_by_one(data, starts, lengths)
    hashes = np.empty(len(starts), np.uint64)
    padded = np.concatenate([data, np.zeros(8, np.uint8)])
    words = np.ndarray((len(data) + 1,), "<u8", padded, strides=(1,))  # the 8 bytes from every place on
    order = np.argsort(lengths, kind="stable")
    edges = np.flatnonzero(np.diff(lengths[order], prepend=-1, append=-1))
    for first, last in itertools.pairwise(edges):
        if last - first < _FEW_OF_A_LENGTH:
            few = order[first:last]
            hashes[few] = _one_by_one(data, starts[few], lengths[few])
            continue
        length = int(lengths[order[first]])
        for chunk in range(first, last, _CHUNK):
            chosen = order[chunk : min(chunk + _CHUNK, last)]
            hashes[chosen] = _hash_of_length(words, starts[chosen], length)
    return hashes


def _one_by_one(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> Hashes:
    view, digest = data.data, xxhash.xxh64_intdigest
    spans = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
    return np.array([digest(view[first:last]) for first, last in spans], np.uint64)


def _hash_of_length(words: Hashes, starts: npt.NDArray[np.int64], length: int) -> Hashes:
    """XXH64 of the `length` bytes at each of `starts` [N]; every input takes the same steps."""
    scratch = np.empty(len(starts), np.uint64)
    stripes = length // 32
    h = _stripes(words, starts, stripes, scratch) if stripes else np.full(len(starts), _PRIME_5)
    h += np.uint64(length)
    place = 32 * stripes
    while place + 8 <= length:
        k = words[starts + place] * _PRIME_2
        _round(k, scratch)
        h ^= k
        _rotate_left(h, 27, scratch)
        h *= _PRIME_1
        h += _PRIME_4
        place += 8
    if place + 4 <= length:
        h ^= (words[starts + place] & np.uint64(0xFFFFFFFF)) * _PRIME_1
        _rotate_left(h, 23, scratch)
        h *= _PRIME_2
        h += _PRIME_3
        place += 4
    rest = words[starts + place]
    for _ in range(length - place):
        h ^= (rest & np.uint64(0xFF)) * _PRIME_5
        _rotate_left(h, 11, scratch)
        h *= _PRIME_1
        rest >>= np.uint64(8)
    _avalanche(h, scratch)
    return h


def _stripes(words: Hashes, starts: npt.NDArray[np.int64], stripes: int, scratch: Hashes) -> Hashes:
    """The state after the first 32 * `stripes` bytes."""
    accumulators = [np.full(len(starts), seed, np.uint64) for seed in _ACCUMULATORS]
    for stripe in range(stripes):
        for lane, v in enumerate(accumulators):
            v += words[starts + (32 * stripe + 8 * lane)] * _PRIME_2
            _round(v, scratch)
    h = np.zeros(len(starts), np.uint64)
    for v, bits in zip(accumulators, (1, 7, 12, 18), strict=True):
        turned = v.copy()
        _rotate_left(turned, bits, scratch)
        h += turned
    for v in accumulators:
        v *= _PRIME_2
        _round(v, scratch)
        h ^= v
        h *= _PRIME_1
        h += _PRIME_4
    return h


def reduce_modulo(hashes: Hashes, modulus: int, scratch: Hashes | None = None) -> Hashes:
    """`hashes` [N] modulo `modulus` as unsigned numbers, in place.

    Through a division: NumPy divides by a constant with multiplications, but takes remainders one by one.
    """
    quotient = np.floor_divide(hashes, np.uint64(modulus), out=scratch)
    quotient *= np.uint64(modulus)
    hashes -= quotient
    return hashes
