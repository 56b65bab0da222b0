"""How often a user's or a video's earlier impressions were clicked, watched long and liked.

Counts are of days before a row's own, as `_kuairand_events` says. A rate is drawn to the rate of the whole log until
then, (positives + 20 * overall) / (impressions + 20), so that a few impressions say little; it is null on days before
which nothing is known of that feedback: the sequences from before the log tell nothing of clicks.
"""

import numpy as np
import pyarrow as pa

from trainer.data.importers._kuairand_events import Stream, known_days, stream
from trainer.data.importers._point_in_time import Events

PRIOR_IMPRESSIONS = 20.0


def statistics_columns(log: pa.Table, sequences: pa.Table, last_train_date: int) -> dict[str, pa.Array]:
    """{user,video}_impressions and {user,video}_{click,long_view,like}_rate, float32."""
    seen = stream(log, sequences, "watch_seq", None)
    logged = stream(log, sequences.slice(0, 0), "watch_seq", None)
    kinds = {
        "click": (stream(log, sequences.slice(0, 0), "watch_seq", "is_click"), logged),
        "long_view": (stream(log, sequences, "long_watch_seq", "long_view"), seen),
        "like": (stream(log, sequences, "like_seq", "is_like"), seen),
    }
    days = known_days(log, last_train_date)
    columns = {}
    for key in ("user", "video"):
        asked = log.column(f"{key}_id").to_numpy()
        columns[f"{key}_impressions"] = pa.array(_counts(getattr(seen, key), seen, asked, days).astype(np.float32))
        for name, (positive, shown) in kinds.items():
            columns[f"{key}_{name}_rate"] = _rates(key, positive, shown, asked, days)
    return columns


def _counts(keys: np.ndarray, events: Stream, asked: np.ndarray, days: np.ndarray) -> np.ndarray:
    return Events(keys, events.day).sums(np.ones(len(keys)), asked, days)


def _rates(key: str, positive: Stream, shown: Stream, asked: np.ndarray, days: np.ndarray) -> pa.Array:
    """Smoothed rates of the rows that ask, null where nothing had been shown to anyone."""
    positives, impressions = (_counts(getattr(events, key), events, asked, days) for events in (positive, shown))
    everyone = np.zeros_like(asked)
    all_positives, all_impressions = (
        _counts(np.zeros_like(events.day), events, everyone, days) for events in (positive, shown)
    )
    overall = all_positives / np.maximum(all_impressions, 1)
    rates = (positives + PRIOR_IMPRESSIONS * overall) / (impressions + PRIOR_IMPRESSIONS)
    return pa.array(rates.astype(np.float32), mask=all_impressions == 0)
