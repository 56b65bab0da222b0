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
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from configs.section import OpenFraction
from trainer.data.generators import Generator, random_stream
from trainer.data.generators._columns import probability, raw_ids, with_nulls
from trainer.data.generators._hashing import factors, mix, uniform, zipf

FIRST_DAY = datetime.date(2025, 1, 1)
ITEMS_PER_AUTHOR = 20
TASKS = ("click", "like", "watch_time")

# Seeds of the properties of IDs, apart from each other and from the seed of the data set.
USER_ID, ITEM_ID, ITEM_AUTHOR, HISTORY = 1, 2, 3, 4
USER_FACTORS, ITEM_FACTORS = 10, 20
USER_BIAS, ITEM_BIAS, AUTHOR_BIAS = 30, 40, 50


class Settings(ChoiceSettings):
    users: int = Field(default=200_000, ge=1, le=2**62, description="Distinct users; costs no memory.")
    items: int = Field(default=50_000, ge=1, le=2**62, description="Distinct items; costs no memory.")
    zipf: float = Field(default=1.05, ge=0, le=10, description="Exponent of the IDs' popularity; 0: all alike.")
    partitions: int = Field(default=3, ge=1, le=3_650, description="Days, one folder each, of the training part.")
    history_length: int = Field(default=20, ge=0, le=10_000, description="Longest list of earlier items.")
    factors: int = Field(default=4, ge=1, le=256, description="Latent factors of a task's taste; more are harder.")
    task_correlation: float = Field(default=0.6, ge=0, le=1, description="Share of the affinity that tasks share.")
    signal: float = Field(default=1.5, ge=0, le=100, description="How strongly scores spread; 0: nothing to learn.")
    click_rate: OpenFraction = Field(default=0.3, description="Share of clicks, about.")
    like_rate: OpenFraction = Field(default=0.03, description="Share of likes, about.")
    missing_labels: float = Field(default=0.05, ge=0, le=1, description="Share of likes and watch times that are null.")
    null_rate: float = Field(default=0.02, ge=0, le=1, description="Share of histories and ages that are null.")


def build(settings: Settings) -> Generator:
    return partial(files, settings)


def files(settings: Settings, seed: int, part: int, rows: int, rows_per_file: int) -> Iterator[tuple[str, pa.Table]]:
    """Files of consecutive days; the columns are listed above."""
    days = settings.partitions if part == 0 else 1
    first_day = 0 if part == 0 else settings.partitions
    number = 0
    for day in range(days):
        date = FIRST_DAY + datetime.timedelta(days=first_day + day)
        end = rows * (day + 1) // days
        for start in range(rows * day // days, end, rows_per_file):
            rng = random_stream(seed, part, number)
            name = f"date={date.isoformat()}/part-{number:05}.parquet"
            yield name, _table(settings, seed, rng, np.arange(start, min(start + rows_per_file, end)))
            number += 1


def _table(settings: Settings, seed: int, rng: np.random.Generator, row_ids: np.ndarray) -> pa.Table:
    rows = len(row_ids)
    user = zipf(rng.random(rows), settings.users, settings.zipf)
    item = zipf(rng.random(rows), settings.items, settings.zipf)
    author = _author(settings, seed, item)
    hour = rng.integers(0, 24, rows, dtype=np.int32)
    age = np.round(18 + 60 * uniform(user, USER_BIAS + 1) ** 2)
    duration = np.exp(rng.normal(3.0, 0.8, rows))
    context = rng.standard_normal((rows, 4)).astype(np.float32)
    history, lengths = _history(settings, seed, rng, user)
    scores = _scores(settings, seed, user, item, author)
    scores += 0.3 * _history_match(settings, seed, item, history, lengths)[:, None]
    scores += (0.3 * np.sin(hour * (np.pi / 12)) - 0.2 * (age - 40) / 20 + 0.2 * context[:, 0])[:, None]
    columns = {
        "row_id": pa.array(row_ids),
        "user_id": raw_ids(user, seed + USER_ID),
        "item_id": raw_ids(item, seed + ITEM_ID),
        "author_id": pa.array([f"a{number:05x}" for number in author.tolist()]),
        **_history_columns(settings, seed, rng, history, lengths),
        "hour": pa.array(hour),
        "device": pa.array((mix(user, USER_BIAS + 2) % np.uint64(5)).astype(np.int32)),
        "age": with_nulls(rng, age.astype(np.float32), settings.null_rate),
        "duration_s": pa.array(duration.astype(np.float32)),
        "context": pa.FixedSizeListArray.from_arrays(pa.array(context.reshape(-1)), 4),
    }
    return pa.table(columns | _labels(settings, rng, scores, duration))


def _author(settings: Settings, seed: int, item: np.ndarray) -> np.ndarray:
    authors = max(1, settings.items // ITEMS_PER_AUTHOR)
    return (mix(item, seed + ITEM_AUTHOR) % np.uint64(authors)).astype(np.int64)


def _scores(settings: Settings, seed: int, user: np.ndarray, item: np.ndarray, author: np.ndarray) -> np.ndarray:
    """[rows, tasks], about standard normal: biases of the IDs, and affinities that the tasks partly share."""
    count = settings.factors * (len(TASKS) + 1)
    product = factors(user, count, seed + USER_FACTORS) * factors(item, count, seed + ITEM_FACTORS)
    affinity = product.reshape(len(user), len(TASKS) + 1, settings.factors).sum(axis=-1) / np.sqrt(settings.factors)
    shared, own = np.sqrt(settings.task_correlation), np.sqrt(1 - settings.task_correlation)
    affinity = shared * affinity[:, :1] + own * affinity[:, 1:]
    bias = factors(item, 1, seed + ITEM_BIAS) + 0.7 * factors(user, 1, seed + USER_BIAS)
    bias = bias + 0.5 * factors(author, 1, seed + AUTHOR_BIAS)
    return (affinity + bias) / np.sqrt(2.74)


def _history(
    settings: Settings, seed: int, rng: np.random.Generator, user: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Items [rows, history_length] that the user chose: of two candidates the one with the greater affinity.

    The lists of a user share most items, since a candidate depends on the user and a slot. Lengths [rows] are from 0.
    """
    rows, length = len(user), settings.history_length
    slot = rng.integers(0, 2 * length + 1, (rows, length))
    key = mix(user[:, None] * np.int64(4 * length + 4) + 2 * slot, seed + HISTORY)
    pair = zipf(np.stack([uniform(key, 1), uniform(key, 2)]), settings.items, settings.zipf)
    taste = factors(user, 2, seed + USER_FACTORS)[:, None, :]
    liking = (factors(pair, 2, seed + ITEM_FACTORS) * taste).sum(axis=-1)
    chosen = np.where(liking[0] > liking[1], pair[0], pair[1])
    return chosen, rng.integers(0, length + 1, rows)


def _history_match(
    settings: Settings, seed: int, item: np.ndarray, history: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """[rows]: cosine-like similarity of the item and the mean of the history, 0 for an empty one."""
    if settings.history_length == 0:
        return np.zeros(len(item))
    mask = np.arange(settings.history_length) < lengths[:, None]
    mean = (factors(history, 2, seed + ITEM_FACTORS) * mask[..., None]).sum(axis=1)
    mean /= np.sqrt(np.maximum(lengths, 1))[:, None]
    return (mean * factors(item, 2, seed + ITEM_FACTORS)).sum(axis=-1) / np.sqrt(2)


def _history_columns(
    settings: Settings, seed: int, rng: np.random.Generator, history: np.ndarray, lengths: np.ndarray
) -> dict[str, pa.Array]:
    null = rng.random(len(lengths)) < settings.null_rate
    kept = np.where(null, 0, lengths)
    mask = np.arange(settings.history_length) < kept[:, None]
    age = kept[:, None] - np.arange(settings.history_length)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    weights = pa.array((1.0 / np.sqrt(np.maximum(age, 1)))[mask].astype(np.float32))
    return {
        "history": _lists(offsets, raw_ids(history[mask], seed + ITEM_ID), null),
        "history_weight": _lists(offsets, weights, null),
    }


def _lists(offsets: np.ndarray, values: pa.Array, null: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(null))


def _labels(
    settings: Settings, rng: np.random.Generator, scores: np.ndarray, duration: np.ndarray
) -> dict[str, pa.Array]:
    click = rng.random(len(scores)) < probability(settings.click_rate, scores[:, 0], settings.signal)
    like = rng.random(len(scores)) < probability(settings.like_rate, scores[:, 1], settings.signal)
    watch_time = duration / 60 * np.exp(0.5 * scores[:, 2] + rng.normal(-0.5, 0.3, len(scores)))
    return {
        "click": pa.array(click.astype(np.float32)),
        "like": with_nulls(rng, like.astype(np.float32), settings.missing_labels),
        "watch_time": with_nulls(rng, watch_time.astype(np.float32), settings.missing_labels),
    }
