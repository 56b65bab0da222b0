"""Reads the original files of KuaiRand-Pure, Parquet or CSV; what to make of their columns is left to `kuairand`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from configs.errors import UserError
from trainer.data.importers import find_file

DOWNLOAD = "https://kuairand.com"
FEEDBACK = ("is_click", "long_view", "is_like", "is_follow", "is_comment", "is_forward", "is_hate", "is_profile_enter")
LOG = ("user_id", "video_id", "date", "hourmin", "time_ms", "tab", "duration_ms", "play_time_ms", *FEEDBACK)
EMPTY_IS_NULL = csv.ConvertOptions(strings_can_be_null=True)
SEQUENCES = "user_sequences_until_0424.parquet"


def read_log(source: str) -> tuple[pa.Table, int]:
    """All log files, oldest row first, without duplicates in (user, video, time), and how many of these there were.

    Columns are `LOG`, int64.
    """
    folders = (Path(source), Path(source) / "data")
    paths = [
        path
        for folder in folders
        for pattern in ("log_*.parquet", "log_standard_*.csv")
        for path in folder.glob(pattern)
    ]
    if not paths:
        raise UserError(
            f"{source} has no file log_*.parquet or log_standard_*.csv\ndownload the original files from {DOWNLOAD}"
        )
    schema = pa.schema([(name, pa.int64()) for name in LOG])
    log = pa.concat_tables([_read(path, LOG).cast(schema) for path in sorted(paths)])
    log = log.append_column("row", pa.array(range(log.num_rows)))
    first = log.group_by(["user_id", "video_id", "time_ms"]).aggregate([("row", "min")])
    unique = log.take(first.column("row_min")).sort_by([("time_ms", "ascending"), ("row", "ascending")])
    return unique.drop_columns(["row"]), log.num_rows - unique.num_rows


def read_users(source: str) -> pa.Table:
    return _read(find_file(source, "user_features_pure.csv", download=DOWNLOAD), ("user_id", "user_active_degree"))


def read_videos(source: str) -> pa.Table:
    return _read(find_file(source, "video_features_basic_pure.csv", download=DOWNLOAD), ("video_id", "author_id"))


def read_sequences(source: str) -> pa.Table:
    """user_id, watch_seq, like_seq, long_watch_seq; no rows where there is no such file."""
    names = ("user_id", "watch_seq", "like_seq", "long_watch_seq")
    path = Path(source) / SEQUENCES
    if path.is_file():
        return _read(path, names).select(names)
    lists = [(name, pa.list_(pa.int64())) for name in names[1:]]
    return pa.schema([("user_id", pa.int64()), *lists]).empty_table()


def _read(path: Path, needed: tuple[str, ...]) -> pa.Table:
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else csv.read_csv(path, convert_options=EMPTY_IS_NULL)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read: {error}\ndownload it again from {DOWNLOAD}") from error
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}\ncheck that it is the original file from {DOWNLOAD}")
    return table.select(LOG) if needed == LOG else table
