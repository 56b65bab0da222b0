"""MovieLens ratings (1M: ratings.dat; 20M, 25M, 32M: ratings.csv): how much a user likes a movie, and whether.

Harper and Konstan, "The MovieLens Datasets", ACM TiiS 2015; https://grouplens.org/datasets/movielens. The newest
ratings are the validation part, so that nothing is predicted from its future.

Labels, float32:
    rating (0.5 to 5), liked (1 where the rating is 4 or more, or what `liked` says)
Inputs:
    user_id, movie_id int64; hour int32 (UTC); year int32; title string; genres list<string>
Also written:
    timestamp int64, seconds since 1970
"""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from pydantic import Field

from configs.choice_settings import ChoiceSettings
from configs.errors import UserError
from configs.section import OpenFraction
from trainer.data.dataset.write import whole_or_absent, write_folder
from trainer.data.importers import Importer, find_file, left_join, print_summary, split_strings

DOWNLOAD = "https://grouplens.org/datasets/movielens"
LABELS = ("rating", "liked")
RATINGS = {"user_id": pa.int64(), "movie_id": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}
MOVIES = {"movie_id": pa.int64(), "title": pa.string(), "genres": pa.string()}


class Settings(ChoiceSettings):
    liked: float = Field(default=4.0, ge=0.5, le=5, description="Stars from which on a rating counts as liked.")
    validation_share: OpenFraction = Field(
        default=0.1, description="Share of the ratings, the newest, that is held out. More measures finer, trains less."
    )


def build(settings: Settings) -> Importer:
    return partial(prepare, settings)


def prepare(settings: Settings, source: str, out: str) -> None:
    """Write the parts described above."""
    ratings = _read(find_file(source, "ratings.dat", "ratings.csv", download=DOWNLOAD), RATINGS)
    movies = _read(find_file(source, "movies.dat", "movies.csv", download=DOWNLOAD), MOVIES)
    ratings = ratings.sort_by([("timestamp", "ascending"), ("user_id", "ascending"), ("movie_id", "ascending")])
    rows = _rows(ratings, movies, settings.liked)
    start = int(rows.num_rows * (1 - settings.validation_share))
    parts = {"train": rows.slice(0, start), "validation": rows.slice(start)}
    with whole_or_absent(out) as staging:
        for part, table in parts.items():
            write_folder(table, staging / part)
    print_summary(f"movielens: wrote {out}", parts, LABELS)


def _read(path: Path, types: dict[str, pa.DataType]) -> pa.Table:
    """One original file with the names of `types`: `::` between columns and Latin-1 in .dat, CSV with a header else."""
    text, header = path.read_bytes(), 1
    if path.suffix == ".dat":
        # Titles hold commas and quotes but no tab, and Arrow separates by one character.
        text, header = text.decode("latin-1").replace("::", "\t").encode(), 0
    tab = path.suffix == ".dat"
    try:
        return csv.read_csv(
            pa.BufferReader(text),
            read_options=csv.ReadOptions(column_names=list(types), skip_rows=header),
            parse_options=csv.ParseOptions(delimiter="\t" if tab else ",", quote_char=False if tab else '"'),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a MovieLens file: {error}\ndownload it again from {DOWNLOAD}") from error


def _rows(ratings: pa.Table, movies: pa.Table, liked: float) -> pa.Table:
    movies = movies.append_column("year", _years(movies))
    movie = left_join(ratings.column("movie_id"), movies, "movie_id")
    stars, seconds = ratings.column("rating").to_numpy(), ratings.column("timestamp").to_numpy()
    return pa.table(
        {
            "rating": ratings.column("rating"),
            "liked": pa.array((stars >= liked).astype(np.float32)),
            "user_id": ratings.column("user_id"),
            "movie_id": ratings.column("movie_id"),
            "title": movie.column("title"),
            "genres": split_strings(movie.column("genres"), "|"),
            "year": movie.column("year"),
            "hour": pa.array((seconds // 3600 % 24).astype(np.int32)),
            "timestamp": ratings.column("timestamp"),
        }
    )


def _years(movies: pa.Table) -> pa.Array:
    """Year of every movie, the "(1995)" at the end of its title; null where a title has none."""
    found = (re.search(r"\((\d{4})\)\s*$", title or "") for title in movies.column("title").to_pylist())
    return pa.array([int(match[1]) if match else None for match in found], pa.int32())
