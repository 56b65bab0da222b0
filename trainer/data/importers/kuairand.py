"""KuaiRand-Pure: impressions of a short-video feed under the standard policy, with eight kinds of feedback.

Gao et al., CIKM 2022, https://kuairand.com. Source: the log as log_standard_*.csv of the publication or as
log_*.parquet with the same columns, user_features_pure.csv, video_features_basic_pure.csv and, if there is one,
user_sequences_until_0424.parquet (lists of the videos that a user watched, liked and watched long before the log).
Duplicates in (user, video, time) are dropped. Parts hold hive folders date=YYYY-MM-DD: train up to 4 May 2022,
validation 5 and 6 May, test later days if there are any.

Labels, float32 (feedback is never an input):
    is_click, long_view, is_like, is_follow, is_comment, is_forward, is_hate, is_profile_enter: 0 or 1
    watch_ratio: play time / duration, at most 5; null where the duration is unknown
Context of an impression:
    user_id, video_id, time_ms int64; tab, hour int32; duration_s float32
User:
    user_active_degree string; is_live_streamer, is_video_author, onehot_feat0 ... onehot_feat17 int64;
    follow_user_num, fans_user_num, friend_user_num, register_days float32
Video:
    author_id, music_id, music_type int64; video_type, upload_type string; tags list<int64>;
    upload_age_days, width, height float32
Lists of the last videos of the user from before the day, oldest first, list<int64>:
    watched, liked, long_watched
Statistics of earlier days, float32, rates null on the first day where its feedback was never seen before:
    user_impressions, user_click_rate, user_long_view_rate, user_like_rate,
    video_impressions, video_click_rate, video_long_view_rate, video_like_rate

Nothing of a validation or test day enters an input: lists and statistics of those rows end with the training part.
"""

import datetime

import numpy as np
import pyarrow as pa

from configs.choice_settings import ChoiceSettings
from configs.errors import UserError
from trainer.data.dataset.write import whole_or_absent, write_folder
from trainer.data.importers import Importer, left_join, print_summary, split_strings
from trainer.data.importers._kuairand_events import history_columns
from trainer.data.importers._kuairand_files import FEEDBACK, read_log, read_sequences, read_users, read_videos
from trainer.data.importers._kuairand_statistics import statistics_columns

LAST_TRAIN_DATE, LAST_VALIDATION_DATE = 20220504, 20220506
MOST_REPEATS = 5.0
USER_IDS = ("is_live_streamer", "is_video_author", *(f"onehot_feat{number}" for number in range(18)))
USER_NUMBERS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")


def build(settings: ChoiceSettings) -> Importer:
    return prepare


def prepare(source: str, out: str) -> None:
    """Write the parts described above."""
    log, duplicates = read_log(source)
    _check_dates(log)
    sequences = read_sequences(source)
    columns = _labels(log) | _context(log)
    columns |= _user_columns(left_join(log.column("user_id"), read_users(source), "user_id"))
    columns |= _video_columns(left_join(log.column("video_id"), read_videos(source), "video_id"), log)
    columns |= history_columns(log, sequences, LAST_TRAIN_DATE)
    columns |= statistics_columns(log, sequences, LAST_TRAIN_DATE)
    days = _days(pa.table(columns), log.column("date").to_numpy())
    with whole_or_absent(out) as staging:
        for (part, date), rows in days.items():
            write_folder(rows, staging / part / f"date={date.isoformat()}")
    parts = {name: [rows for (part, _), rows in days.items() if part == name] for name, _ in days}
    heading = f"kuairand: wrote {out}; {duplicates:,} duplicate rows dropped"
    print_summary(heading, {name: pa.concat_tables(rows) for name, rows in parts.items()}, FEEDBACK[:4])


def _check_dates(log: pa.Table) -> None:
    first = log.column("date").to_numpy().min()
    if first > LAST_TRAIN_DATE:
        raise UserError(
            f"the log begins on {_date(first)}, after the training part ends ({_date(LAST_TRAIN_DATE)})\n"
            "put the earlier files of the log into the same folder"
        )


def _labels(log: pa.Table) -> dict[str, pa.Array]:
    labels = {name: log.column(name).cast(pa.float32()) for name in FEEDBACK}
    duration, play = log.column("duration_ms").to_numpy(), log.column("play_time_ms").to_numpy()
    ratio = np.minimum(play / np.maximum(duration, 1), MOST_REPEATS).astype(np.float32)
    return labels | {"watch_ratio": pa.array(ratio, mask=duration <= 0)}


def _context(log: pa.Table) -> dict[str, pa.Array]:
    return {
        "user_id": log.column("user_id"),
        "video_id": log.column("video_id"),
        "time_ms": log.column("time_ms"),
        "tab": log.column("tab").cast(pa.int32()),
        "hour": pa.array((log.column("hourmin").to_numpy() // 100).astype(np.int32)),
        "duration_s": pa.array((log.column("duration_ms").to_numpy() / 1000).astype(np.float32)),
    }


def _user_columns(users: pa.Table) -> dict[str, pa.Array]:
    """Columns of the user of every row; null where the user is not in the file."""
    ids = {name: users.column(name).cast(pa.int64()) for name in USER_IDS}
    numbers = {name: users.column(name).cast(pa.float32()) for name in USER_NUMBERS}
    return {"user_active_degree": users.column("user_active_degree")} | ids | numbers


def _video_columns(videos: pa.Table, log: pa.Table) -> dict[str, pa.Array]:
    """Columns of the video of every row; null where the video is not in the file."""
    uploaded = videos.column("upload_dt").cast(pa.date32()).to_numpy().astype("datetime64[D]")
    today = np.array([_date(number) for number in log.column("date").to_pylist()], "datetime64[D]")
    age = (today - uploaded) / np.timedelta64(1, "D")
    tags = split_strings(videos.column("tag").cast(pa.string()), ",").cast(pa.list_(pa.int64()))
    return {
        "author_id": videos.column("author_id"),
        "music_id": videos.column("music_id"),
        "music_type": videos.column("music_type").cast(pa.int64()),
        "video_type": videos.column("video_type"),
        "upload_type": videos.column("upload_type"),
        "tags": tags,
        "upload_age_days": pa.array(age.astype(np.float32), mask=np.isnan(age)),
        "width": videos.column("server_width").cast(pa.float32()),
        "height": videos.column("server_height").cast(pa.float32()),
    }


def _days(rows: pa.Table, dates: np.ndarray) -> dict[tuple[str, datetime.date], pa.Table]:
    """(part, date) -> its rows."""
    return {(_part(day), _date(day)): rows.filter(pa.array(dates == day)) for day in np.unique(dates)}


def _part(day: int) -> str:
    if day <= LAST_TRAIN_DATE:
        return "train"
    return "validation" if day <= LAST_VALIDATION_DATE else "test"


def _date(number: int) -> datetime.date:
    """20220504 -> 4 May 2022."""
    return datetime.date(number // 10_000, number // 100 % 100, number % 100)
