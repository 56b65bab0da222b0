"""SplitMix64 against its authors' published numbers, on NumPy's arrays and on torch's tensors."""

import numpy as np
import torch

from configs.splitmix import GAMMA, scramble, signed

OF_SEED_0 = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]


def test_the_stream_of_seed_0_is_the_published_one():
    states = [signed(n * GAMMA) for n in range(1, 5)]
    wanted = [signed(number) for number in OF_SEED_0]
    assert scramble(np.array(states)).tolist() == wanted
    assert scramble(torch.tensor(states)).tolist() == wanted


def test_large_numbers_are_taken_modulo_two_to_the_64():
    assert [signed(n) for n in (5, -5, 2**63, 2**64 + 5)] == [5, -5, -(2**63), 5]
