"""The key of a row in a step, from which the model's layers draw their random numbers.

A pure function of (seed, epoch, step of the epoch, lane, row of the lane in the step): whatever reads the row, and
whenever, it gets the same dropout and the same noise.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from configs.splitmix import GAMMA, scramble, signed

Keys = npt.NDArray[np.int64]


def row_keys(seed: int, epoch: int, steps: range, lanes: Sequence[int], lane_batch_size: int) -> Keys:
    """[S, lanes, lane_batch_size]: keys of the rows that these lanes give to these steps of an epoch."""
    key = np.zeros(1, np.int64)
    for part in (seed, epoch):
        key = scramble(key + signed((part + 1) * GAMMA))
    for part in (np.arange(steps.start, steps.stop)[:, None], np.array(lanes)):
        key = scramble(key + (part + 1) * GAMMA)
    return scramble(key[:, :, None] + np.arange(1, lane_batch_size + 1) * GAMMA)
