"""Impressions of a short-video feed: Zipf users and items, an ID list, dense columns and three related tasks.

What an ID likes is a function of the ID (`_hashing`), so that tables of any size can be learned from it. A task's score
is a bias of user, item and author, an affinity of user and item factors, a match of the history, and the dense columns;
`task_correlation` says how much of the affinity the tasks share. Columns:

    row_id          int64, position in the part
    user_id         int64, 63 bits; item_id int64, 63 bits; author_id string such as "a1f03"
    history         list<int64>, earlier items of the user, at most `history_length`; some empty, some null
    history_weight  list<float>, as long as `history`; recent items weigh more
    hour, device    int32
    age             float, some null; duration_s float, skewed; context fixed-size list<float>[4]
    click, like     float, 0 or 1; like is rare, and null for `missing_labels` of the rows
    watch_time      float, minutes, positive, skewed: a regression target; null for `missing_labels` of the rows

in hive folders date=YYYY-MM-DD, of which validation has one, the day after the last of training.
"""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.data.generators import parse_options, random_stream
from trainer.data.generators._columns import probability, raw_ids, with_nulls
from trainer.data.generators._hashing import factors, mix, uniform, zipf

FIRST_DAY = datetime.date(2025, 1, 1)
ITEMS_PER_AUTHOR = 20
TASKS = ("click", "like", "watch_time")

# Seeds of the properties of IDs, apart from each other and from the seed of the data set.
USER_ID, ITEM_ID, ITEM_AUTHOR, HISTORY = 1, 2, 3, 4
USER_FACTORS, ITEM_FACTORS = 10, 20
USER_BIAS, ITEM_BIAS, AUTHOR_BIAS = 30, 40, 50


@dataclass(frozen=True)
class Options:
    """users, items: distinct IDs; zipf: exponent of their popularity; partitions: days of the training part;
    click_rate, like_rate: about; missing_labels, null_rate: shares of rows; signal: how strongly scores spread."""

    users: int = 200_000
    items: int = 50_000
    zipf: float = 1.05
    partitions: int = 3
    history_length: int = 20
    factors: int = 4
    task_correlation: float = 0.6
    signal: float = 1.5
    click_rate: float = 0.3
    like_rate: float = 0.03
    missing_labels: float = 0.05
    null_rate: float = 0.02


RANGES = {
    "users": (1, 2**62),
    "items": (1, 2**62),
    "zipf": (0, 10),
    "partitions": (1, 3_650),
    "history_length": (0, 10_000),
    "factors": (1, 256),
    "task_correlation": (0, 1),
    "signal": (0, 100),
    "click_rate": (1e-6, 1 - 1e-6),
    "like_rate": (1e-6, 1 - 1e-6),
    "missing_labels": (0, 1),
    "null_rate": (0, 1),
}


def parse(options: Mapping[str, Any]) -> Options:
    return parse_options("feed", Options, options, RANGES)


def files(options: Options, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Files of consecutive days; the columns are listed above."""
    days = options.partitions if part == 0 else 1
    first_day = 0 if part == 0 else options.partitions
    number = 0
    for day in range(days):
        date = FIRST_DAY + datetime.timedelta(days=first_day + day)
        end = rows * (day + 1) // days
        for start in range(rows * day // days, end, rows_per_file):
            rng = random_stream(seed, part, number)
            name = f"date={date.isoformat()}/part-{number:05}.parquet"
            yield name, _table(options, seed, rng, np.arange(start, min(start + rows_per_file, end)))
            number += 1


def _table(options: Options, seed: int, rng: np.random.Generator, row_ids: np.ndarray) -> pa.Table:
    rows = len(row_ids)
    user = zipf(rng.random(rows), options.users, options.zipf)
    item = zipf(rng.random(rows), options.items, options.zipf)
    author = _author(options, seed, item)
    hour = rng.integers(0, 24, rows, dtype=np.int32)
    age = np.round(18 + 60 * uniform(user, USER_BIAS + 1) ** 2)
    duration = np.exp(rng.normal(3.0, 0.8, rows))
    context = rng.standard_normal((rows, 4)).astype(np.float32)
    history, lengths = _history(options, seed, rng, user)
    scores = _scores(options, seed, user, item, author)
    scores += 0.3 * _history_match(options, seed, item, history, lengths)[:, None]
    scores += (0.3 * np.sin(hour * (np.pi / 12)) - 0.2 * (age - 40) / 20 + 0.2 * context[:, 0])[:, None]
    columns = {
        "row_id": pa.array(row_ids),
        "user_id": raw_ids(user, seed + USER_ID),
        "item_id": raw_ids(item, seed + ITEM_ID),
        "author_id": pa.array([f"a{number:05x}" for number in author.tolist()]),
        **_history_columns(options, seed, rng, history, lengths),
        "hour": pa.array(hour),
        "device": pa.array((mix(user, USER_BIAS + 2) % np.uint64(5)).astype(np.int32)),
        "age": with_nulls(rng, age.astype(np.float32), options.null_rate),
        "duration_s": pa.array(duration.astype(np.float32)),
        "context": pa.FixedSizeListArray.from_arrays(pa.array(context.reshape(-1)), 4),
    }
    return pa.table(columns | _labels(options, rng, scores, duration))


def _author(options: Options, seed: int, item: np.ndarray) -> np.ndarray:
    authors = max(1, options.items // ITEMS_PER_AUTHOR)
    return (mix(item, seed + ITEM_AUTHOR) % np.uint64(authors)).astype(np.int64)


def _scores(options: Options, seed: int, user: np.ndarray, item: np.ndarray, author: np.ndarray) -> np.ndarray:
    """[rows, tasks], about standard normal: biases of the IDs, and affinities that the tasks partly share."""
    count = options.factors * (len(TASKS) + 1)
    product = factors(user, count, seed + USER_FACTORS) * factors(item, count, seed + ITEM_FACTORS)
    affinity = product.reshape(len(user), len(TASKS) + 1, options.factors).sum(axis=-1) / np.sqrt(options.factors)
    shared, own = np.sqrt(options.task_correlation), np.sqrt(1 - options.task_correlation)
    affinity = shared * affinity[:, :1] + own * affinity[:, 1:]
    bias = factors(item, 1, seed + ITEM_BIAS) + 0.7 * factors(user, 1, seed + USER_BIAS)
    bias = bias + 0.5 * factors(author, 1, seed + AUTHOR_BIAS)
    return (affinity + bias) / np.sqrt(2.74)


def _history(options: Options, seed: int, rng: np.random.Generator, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items [rows, history_length] that the user chose: of two candidates the one with the greater affinity.

    The lists of a user share most items, since a candidate depends on the user and a slot. Lengths [rows] are from 0.
    """
    rows, length = len(user), options.history_length
    slot = rng.integers(0, 2 * length + 1, (rows, length))
    key = mix(user[:, None] * np.int64(4 * length + 4) + 2 * slot, seed + HISTORY)
    pair = zipf(np.stack([uniform(key, 1), uniform(key, 2)]), options.items, options.zipf)
    taste = factors(user, 2, seed + USER_FACTORS)[:, None, :]
    liking = (factors(pair, 2, seed + ITEM_FACTORS) * taste).sum(axis=-1)
    chosen = np.where(liking[0] > liking[1], pair[0], pair[1])
    return chosen, rng.integers(0, length + 1, rows)


def _history_match(
    options: Options, seed: int, item: np.ndarray, history: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """[rows]: cosine-like similarity of the item and the mean of the history, 0 for an empty one."""
    if options.history_length == 0:
        return np.zeros(len(item))
    mask = np.arange(options.history_length) < lengths[:, None]
    mean = (factors(history, 2, seed + ITEM_FACTORS) * mask[..., None]).sum(axis=1)
    mean /= np.sqrt(np.maximum(lengths, 1))[:, None]
    return (mean * factors(item, 2, seed + ITEM_FACTORS)).sum(axis=-1) / np.sqrt(2)


def _history_columns(
    options: Options, seed: int, rng: np.random.Generator, history: np.ndarray, lengths: np.ndarray
) -> dict[str, pa.Array]:
    null = rng.random(len(lengths)) < options.null_rate
    kept = np.where(null, 0, lengths)
    mask = np.arange(options.history_length) < kept[:, None]
    age = kept[:, None] - np.arange(options.history_length)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    weights = pa.array((1.0 / np.sqrt(np.maximum(age, 1)))[mask].astype(np.float32))
    return {
        "history": _lists(offsets, raw_ids(history[mask], seed + ITEM_ID), null),
        "history_weight": _lists(offsets, weights, null),
    }


def _lists(offsets: np.ndarray, values: pa.Array, null: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(null))


def _labels(
    options: Options, rng: np.random.Generator, scores: np.ndarray, duration: np.ndarray
) -> dict[str, pa.Array]:
    click = rng.random(len(scores)) < probability(options.click_rate, scores[:, 0], options.signal)
    like = rng.random(len(scores)) < probability(options.like_rate, scores[:, 1], options.signal)
    watch_time = duration / 60 * np.exp(0.5 * scores[:, 2] + rng.normal(-0.5, 0.3, len(scores)))
    return {
        "click": pa.array(click.astype(np.float32)),
        "like": with_nulls(rng, like.astype(np.float32), options.missing_labels),
        "watch_time": with_nulls(rng, watch_time.astype(np.float32), options.missing_labels),
    }
