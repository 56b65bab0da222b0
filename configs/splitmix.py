"""SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014) on arrays.

The n-th number of the stream with seed s is `scramble(s + n * GAMMA)`: a pure function, so that nothing has to be
drawn in order, saved or agreed on. It takes NumPy's arrays and torch's tensors alike, and lies here because
`embeddings`, `models` and `trainer` share it and cannot import each other.
"""

from typing import Any, TypeVar

Numbers = TypeVar("Numbers", bound=Any)  # int64: a NumPy array or a torch tensor

GAMMA = 0x9E3779B97F4A7C15 - 2**64  # constants are signed, as the numbers are


def scramble(state: Numbers) -> Numbers:
    """64 random bits for each number of `state`, in its place; one to one. Products wrap around."""
    for bits, factor in ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1)):
        shifted = state >> bits
        shifted &= 2 ** (64 - bits) - 1  # without it, the shift of a negative number would bring ones in
        state ^= shifted
        if factor != 1:
            state *= factor
    return state


def signed(number: int) -> int:
    """The number modulo 2^64 as an int64 holds it."""
    return (number + 2**63) % 2**64 - 2**63
