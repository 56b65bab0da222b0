"""Row keys belong to a place in the global batches, whatever the workers, and no two places share one."""

import numpy as np

from trainer.data.reading.row_keys import row_keys

KEYS = row_keys(7, 1, range(3, 23), range(8), 16)


def test_keys_are_pinned() -> None:
    """A resumed run must draw what it would have drawn: these are part of the contract between versions."""
    assert row_keys(7, 1, range(3, 5), [0, 2], 2).tolist() == [
        [[-5193954339104305811, 6694870379776679610], [4592416665910014186, 522759247269188591]],
        [[-8159510049255157784, 2758543188108683131], [2856239122456447296, -4286837933775643740]],
    ]


def test_any_lanes_and_steps_have_the_keys_of_all() -> None:
    np.testing.assert_array_equal(row_keys(7, 1, range(10, 12), [6, 1], 16), KEYS[7:9, [6, 1]])
    np.testing.assert_array_equal(row_keys(7, 1, range(3, 23), range(8), 4), KEYS[:, :, :4])


def test_no_two_places_share_a_key() -> None:
    others = [row_keys(seed, epoch, range(3, 23), range(-2, 8), 16) for seed, epoch in ((7, 2), (8, 1), (2**70, 1))]
    every = np.concatenate([KEYS.ravel(), *(keys.ravel() for keys in others)])
    assert len(np.unique(every)) == len(every)
