"""What users did before a day: lists of earlier videos.

Events are the impressions of the log, and the sequences from before the log, which count as day 0. A row of day d sees
events of earlier days; rows after the training part see events up to its end, so that no feedback of a validation or
test day is ever an input.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trainer.data.importers._point_in_time import Events

HISTORY_LENGTH = 50


@dataclass(frozen=True)
class Stream:
    """One kind of event, oldest first: user, video and day of each, int64 [N]."""

    user: np.ndarray
    video: np.ndarray
    day: np.ndarray


def days(log: pa.Table) -> np.ndarray:
    """Number of each row's date among the dates of the log, from 1."""
    _, numbers = np.unique(log.column("date").to_numpy(), return_inverse=True)
    return numbers + 1


def known_days(log: pa.Table, last_train_date: int) -> np.ndarray:
    """Day before which a row knows events: its own, or for rows after `last_train_date` the one after that."""
    return np.minimum(days(log), days(log)[log.column("date").to_numpy() <= last_train_date].max(initial=0) + 1)


def stream(log: pa.Table, sequences: pa.Table, sequence: str, feedback: str | None) -> Stream:
    """The lists of the column `sequence`, then the rows of the log whose `feedback` is 1 (None: all rows)."""
    lists = sequences.column(sequence).cast(pa.list_(pa.int64())).combine_chunks()
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    user = np.repeat(sequences.column("user_id").to_numpy(), lengths)
    kept = slice(None) if feedback is None else log.column(feedback).to_numpy() == 1
    return Stream(
        np.concatenate([user, log.column("user_id").to_numpy()[kept]]),
        np.concatenate([lists.flatten().to_numpy(), log.column("video_id").to_numpy()[kept]]),
        np.concatenate([np.zeros_like(user), days(log)[kept]]),
    )


def history_columns(log: pa.Table, sequences: pa.Table, last_train_date: int) -> dict[str, pa.Array]:
    """watched, liked, long_watched: the last videos of each row's user, oldest first."""
    kinds = {
        "watched": ("watch_seq", None),
        "liked": ("like_seq", "is_like"),
        "long_watched": ("long_watch_seq", "long_view"),
    }
    user, known = log.column("user_id").to_numpy(), known_days(log, last_train_date)
    columns = {}
    for name, (sequence, feedback) in kinds.items():
        events = stream(log, sequences, sequence, feedback)
        columns[name] = Events(events.user, events.day).last(events.video, user, known, HISTORY_LENGTH)
    return columns
