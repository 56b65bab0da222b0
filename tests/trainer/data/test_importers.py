"""The importers, on small files in the original formats: what is written, what is left out, and what is refused."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.choices import available
from configs.errors import UserError
from trainer.data.importers import census_income, importer, kuairand
from trainer.data.importers._kuairand_files import FEEDBACK, LOG
from trainer.data.importers._point_in_time import Events


def read(folder):
    return ds.dataset(str(folder), partitioning="hive").to_table()


def test_importers_are_offered_by_name():
    assert available("trainer.data.importers") == ["census_income", "kuairand", "movielens"]


# census-income

PERSON = (
    "58, Self-employed-not incorporated, 4, 34, Some college but no degree, 0, Not in universe, Divorced, "
    "Construction, Precision production craft & repair, White, All other, Male, Not in universe, Not in universe, "
    "Children or Armed Forces, 0, 0, 12, Head of household, South, Arkansas, Householder, Householder, 1053.55, "
    "MSA to MSA, Same county, Same county, No, Yes, 1, Not in universe, United-States, United-States, "
    "United-States, Native- Born in the United States, 0, Not in universe, 2, 52, 94, - 50000."
)


def census_files(folder, test_rows=40, person=PERSON):
    folder.mkdir(exist_ok=True)
    married = person.replace("Divorced", "Never married").replace("- 50000.", "50000+.").replace("58,", "30,", 1)
    (folder / "census-income.data.gz").write_bytes(gzip.compress(f"{person}\n{married}\n".encode()))
    rows = [person.replace("58,", f"{age},", 1) for age in range(test_rows)]
    (folder / "census-income.test").write_text("\n".join(rows) + "\n")
    return str(folder)


def test_census_income_columns_and_labels(tmp_path):
    census_income.prepare(census_files(tmp_path / "in"), str(tmp_path / "out"))
    first, second = read(tmp_path / "out" / "train").to_pylist()
    assert (first["income_over_50k"], first["never_married"]) == (0.0, 0.0)
    assert (second["income_over_50k"], second["never_married"]) == (1.0, 1.0)
    assert (first["age"], first["dividends"], first["weeks_worked"]) == (58.0, 12.0, 52.0)
    assert first["industry_code"] == "4"
    assert first["class_of_worker"] == "Self-employed-not incorporated"
    assert first["year"] == "94"
    assert len(first) == 40


def test_census_income_writes_nothing_that_a_label_is_made_of(tmp_path):
    census_income.prepare(census_files(tmp_path / "in"), str(tmp_path / "out"))
    first = read(tmp_path / "out" / "train").to_pylist()[0]
    assert not {"education", "marital_status", "instance_weight", "income"} & set(first)
    assert not {"Divorced", "Some college but no degree", 1053.55, "- 50000."} & set(first.values())


def test_census_income_halves_the_test_file_at_random_and_always_alike(tmp_path):
    source = census_files(tmp_path / "in")
    ages = []
    for name in ("a", "b"):
        census_income.prepare(source, str(tmp_path / name))
        ages.append([read(tmp_path / name / part)["age"].to_pylist() for part in ("validation", "test")])
    assert ages[0] == ages[1]
    validation, test = ages[0]
    assert len(validation) == len(test) == 20
    assert sorted(validation + test) == list(range(40))
    assert validation != list(range(20))


def test_census_income_names_a_missing_file_and_a_wrong_one(tmp_path):
    with pytest.raises(UserError, match=r"no file census-income.data.gz or census-income.data\n.*https"):
        census_income.prepare(str(tmp_path), str(tmp_path / "out"))
    source = census_files(tmp_path / "in", person=PERSON.replace("- 50000.", "many"))
    with pytest.raises(UserError, match=r"census-income.data.gz.*'many'"):
        census_income.prepare(source, str(tmp_path / "out"))
    source = census_files(tmp_path / "in", person="1, 2, 3")
    with pytest.raises(UserError, match=r"census-income.data.gz is not a census-income file"):
        census_income.prepare(source, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_importer_does_not_write_over_data(tmp_path):
    source = census_files(tmp_path / "in")
    census_income.prepare(source, str(tmp_path / "out"))
    with pytest.raises(UserError, match="out is there already"):
        census_income.prepare(source, str(tmp_path / "out"))
    with pytest.raises(UserError, match="local folders only"):
        census_income.prepare(source, "s3://bucket/out")


# KuaiRand


def impression(user, video, date, number=0, **changes):
    row = dict.fromkeys(LOG, 0) | {"user_id": user, "video_id": video, "date": date, "hourmin": 1300, "tab": 1}
    noon = np.datetime64(f"{date // 10000}-{date // 100 % 100:02}-{date % 100:02}T12").astype("datetime64[ms]")
    row |= {"time_ms": int(noon.astype(np.int64)) + number, "duration_ms": 10_000, "play_time_ms": 5_000}
    return row | changes


ROWS = [
    impression(1, 10, 20220503, is_like=1, long_view=1, is_click=1),
    impression(1, 10, 20220503, is_like=1, long_view=1, is_click=1),
    impression(1, 11, 20220503, 1),
    impression(1, 10, 20220504, duration_ms=0),
    impression(2, 12, 20220504, 1, play_time_ms=90_000, is_click=1),
    impression(1, 12, 20220505, is_like=1),
    impression(1, 11, 20220506),
    impression(3, 99, 20220507),
]


def kuairand_files(folder, rows=ROWS, text=False, sequences=True):
    folder.mkdir(parents=True, exist_ok=True)
    log = pa.Table.from_pylist(rows)
    if text:
        csv.write_csv(log, folder / "log_standard_4_22_to_5_08_pure.csv")
    else:
        for date in set(log["date"].to_pylist()):
            pq.write_table(log.filter(pa.array(log["date"].to_numpy() == date)), folder / f"log_{date}.parquet")
    user = {name: [0, 1] for name in kuairand.USER_IDS} | {name: [5, 6] for name in kuairand.USER_NUMBERS}
    users = {"user_id": [2, 1], "user_active_degree": ["high_active", "full_active"]} | user
    csv.write_csv(pa.table(users | {"onehot_feat4": [None, 1.0]}), folder / "user_features_pure.csv")
    video = {"author_id": [7, 8, 8], "video_type": ["NORMAL"] * 3, "upload_type": ["Web"] * 3, "music_id": [1, 2, 3]}
    video |= {"video_id": [12, 11, 10], "upload_dt": ["2022-04-10"] * 3, "music_type": [None, 9.0, 9.0]}
    video |= {"server_width": [720.0] * 3, "server_height": [1280.0] * 3, "tag": ["39,68", None, "3"]}
    csv.write_csv(pa.table(video), folder / "video_features_basic_pure.csv")
    if sequences:
        lists = {"user_id": [1], "watch_seq": [[20, 21]], "like_seq": [[]], "long_watch_seq": [[21]]}
        columns = {name: pa.array(value, pa.list_(pa.int64())) for name, value in lists.items() if name != "user_id"}
        pq.write_table(pa.table({"user_id": lists["user_id"]} | columns), folder / "user_sequences_until_0424.parquet")
    return str(folder)


def prepared(tmp_path, **options):
    kuairand.prepare(kuairand_files(tmp_path / "in", **options), str(tmp_path / "out"))
    return {part: read(tmp_path / "out" / part).to_pylist() for part in ("train", "validation", "test")}


def test_kuairand_drops_duplicates_and_splits_by_day(tmp_path, capsys):
    parts = prepared(tmp_path)
    assert [(row["user_id"], row["video_id"], str(row["date"])) for row in parts["train"]] == [
        (1, 10, "2022-05-03"),
        (1, 11, "2022-05-03"),
        (1, 10, "2022-05-04"),
        (2, 12, "2022-05-04"),
    ]
    assert [str(row["date"]) for row in parts["validation"]] == ["2022-05-05", "2022-05-06"]
    assert [str(row["date"]) for row in parts["test"]] == ["2022-05-07"]
    assert "1 duplicate rows dropped" in capsys.readouterr().err


def test_kuairand_joins_users_and_videos_and_leaves_unknown_ones_null(tmp_path):
    parts = prepared(tmp_path)
    first, last = parts["train"][0], parts["test"][0]
    assert first["user_active_degree"] == "full_active"
    assert (first["onehot_feat4"], parts["train"][3]["onehot_feat4"]) == (1, None)
    assert (first["author_id"], first["tags"], first["upload_age_days"]) == (8, [3], 23.0)
    assert (parts["train"][1]["tags"], parts["train"][3]["tags"]) == (None, [39, 68])
    assert (first["hour"], first["tab"], first["duration_s"]) == (13, 1, 10.0)
    for column in ("user_active_degree", "author_id", "tags", "upload_age_days", "follow_user_num"):
        assert last[column] is None


def test_kuairand_labels(tmp_path):
    parts = prepared(tmp_path)
    assert [row["is_like"] for row in parts["train"]] == [1.0, 0.0, 0.0, 0.0]
    assert [row["watch_ratio"] for row in parts["train"]] == [0.5, 0.5, None, 5.0]
    assert set(FEEDBACK) <= set(parts["train"][0])
    assert not {"play_time_ms", "profile_stay_time"} & set(parts["train"][0])


def test_kuairand_lists_end_before_the_day_and_with_the_training_part(tmp_path):
    parts = prepared(tmp_path)
    assert [row["watched"] for row in parts["train"]] == [[20, 21], [20, 21], [20, 21, 10, 11], []]
    assert [row["liked"] for row in parts["train"]] == [[], [], [10], []]
    assert [row["long_watched"] for row in parts["train"]] == [[21], [21], [21, 10], []]
    for row in parts["validation"]:
        assert row["watched"] == [20, 21, 10, 11, 10]
        assert row["liked"] == [10]
    assert parts["test"][0]["watched"] == []


def test_kuairand_rates_are_of_earlier_days_and_smoothed(tmp_path):
    parts = prepared(tmp_path)
    first, third = parts["train"][0], parts["train"][2]
    assert (first["user_impressions"], first["video_impressions"]) == (2.0, 0.0)
    assert (first["user_click_rate"], first["video_click_rate"]) == (None, None)
    assert first["user_long_view_rate"] == pytest.approx(0.5)  # 1 of 2 of the user, 1 of 2 of all
    assert (third["user_impressions"], third["video_impressions"]) == (4.0, 1.0)
    assert third["user_click_rate"] == pytest.approx((1 + 20 * 1 / 2) / (2 + 20))
    assert third["video_click_rate"] == pytest.approx((1 + 20 * 1 / 2) / (1 + 20))
    assert third["user_like_rate"] == pytest.approx((1 + 20 * 1 / 4) / (4 + 20))
    for row in parts["validation"]:
        assert (row["user_impressions"], row["video_impressions"]) == (5.0, {12: 1.0, 11: 1.0}[row["video_id"]])
    assert parts["test"][0]["user_like_rate"] == pytest.approx(1 / 6)


def test_kuairand_inputs_do_not_change_with_the_feedback_of_their_day_or_later(tmp_path):
    labels = {*FEEDBACK, "watch_ratio"}
    changed = [row | dict.fromkeys(FEEDBACK, 1) if row["date"] >= 20220504 else row for row in ROWS]
    before, after = prepared(tmp_path / "a"), prepared(tmp_path / "b", rows=changed)
    held_out_changed = [row | dict.fromkeys(FEEDBACK, 1) if row["date"] >= 20220505 else row for row in ROWS]
    later = prepared(tmp_path / "c", rows=held_out_changed)

    def inputs(rows):
        return [{name: value for name, value in row.items() if name not in labels} for row in rows]

    assert inputs(before["train"]) == inputs(after["train"])
    assert inputs(before["validation"]) != inputs(after["validation"])
    assert inputs(before["validation"]) == inputs(later["validation"])
    assert inputs(before["test"]) == inputs(later["test"])


def test_kuairand_reads_the_published_csv_and_needs_no_sequences(tmp_path):
    assert prepared(tmp_path / "a") == prepared(tmp_path / "b", text=True)
    assert prepared(tmp_path / "c", sequences=False)["train"][2]["watched"] == [10, 11]


def test_kuairand_names_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"no file log_\*.parquet or log_standard_\*.csv\n.*https"):
        kuairand.prepare(str(tmp_path), str(tmp_path / "out"))
    source = kuairand_files(tmp_path / "in")
    (tmp_path / "in" / "user_features_pure.csv").unlink()
    with pytest.raises(UserError, match=r"no file user_features_pure\.csv"):
        kuairand.prepare(source, str(tmp_path / "out"))
    (tmp_path / "in" / "user_features_pure.csv").write_text("user_id\n1\n")
    with pytest.raises(UserError, match=r"user_features_pure.csv has no column 'user_active_degree'"):
        kuairand.prepare(source, str(tmp_path / "out"))
    late = kuairand_files(tmp_path / "late", rows=[row for row in ROWS if row["date"] > 20220504])
    with pytest.raises(UserError, match="begins on 2022-05-05"):
        kuairand.prepare(late, str(tmp_path / "out"))


# MovieLens


def test_movielens_reads_both_formats_and_validates_on_the_newest(tmp_path):
    stars = [(user, 1 + user % 2, 1 + user % 5, 978300000 + 3600 * user) for user in range(20)]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "ratings.dat").write_text("".join(f"{u}::{m}::{r}::{t}\n" for u, m, r, t in stars[::-1]))
    movies = "1::Toy Story (1995)::Animation|Comedy\n2::Misérables, Les::Drama\n"
    (tmp_path / "old" / "movies.dat").write_bytes(movies.encode("latin-1"))
    (tmp_path / "new").mkdir()
    lines = "".join(f"{u},{m},{r:.1f},{t}\n" for u, m, r, t in stars)
    (tmp_path / "new" / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + lines)
    movies = 'movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n2,"Misérables, Les",Drama\n'
    (tmp_path / "new" / "movies.csv").write_text(movies)
    for name in ("old", "new"):
        importer("movielens", {})(str(tmp_path / name), str(tmp_path / f"{name}_out"))
    train, validation = read(tmp_path / "old_out" / "train"), read(tmp_path / "old_out" / "validation")
    assert train.equals(read(tmp_path / "new_out" / "train"))
    assert train["user_id"].to_pylist() == list(range(18))
    assert validation["user_id"].to_pylist() == [18, 19]
    assert train.to_pylist()[3] | {"hour": 0} == {
        "rating": 4.0,
        "liked": 1.0,
        "user_id": 3,
        "movie_id": 2,
        "title": "Misérables, Les",
        "genres": ["Drama"],
        "year": None,
        "hour": 0,
        "timestamp": 978310800,
    }
    assert train["genres"][0].as_py() == ["Animation", "Comedy"]
    assert train["year"][0].as_py() == 1995


def test_movielens_takes_settings(tmp_path):
    lines = "".join(f"{user}::1::{1 + user % 5}::{user}\n" for user in range(20))
    (tmp_path / "ratings.dat").write_text(lines)
    (tmp_path / "movies.dat").write_text("1::Toy Story (1995)::Animation\n")
    importer("movielens", {"validation_share": 0.25, "liked": 3})(str(tmp_path), str(tmp_path / "out"))
    train = read(tmp_path / "out" / "train")
    assert train.num_rows == 15
    assert train["liked"].to_pylist() == [0, 0, 1, 1, 1] * 3
    assert read(tmp_path / "out" / "validation").num_rows == 5


def test_importers_and_settings_that_are_not_there_are_named():
    with pytest.raises(UserError, match="'census_incom' is not in trainer/data/importers: did you mean census_income"):
        importer("census-incom", {})
    with pytest.raises(UserError, match=r"movielens\.likd unknown key; did you mean liked\?"):
        importer("movielens", {"likd": 3})
    with pytest.raises(
        UserError, match=r"kuairand\.liked has no effect: it belongs to movielens, and this is kuairand"
    ):
        importer("kuairand", {"liked": 3})
    with pytest.raises(UserError, match=r"movielens\.liked must be less than or equal to 5"):
        importer("movielens", {"liked": 6})


def test_movielens_names_a_missing_or_broken_file(tmp_path):
    with pytest.raises(UserError, match=r"no file ratings.dat or ratings.csv"):
        importer("movielens", {})(str(tmp_path), str(tmp_path / "out"))
    (tmp_path / "ratings.dat").write_text("1::2::good::3\n")
    with pytest.raises(UserError, match=r"ratings.dat is not a MovieLens file"):
        importer("movielens", {})(str(tmp_path), str(tmp_path / "out"))


# Events before a day


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 9)), max_size=60), st.integers(0, 4))
def test_events_before_a_day_are_those_a_plain_loop_finds(events, length):
    keys, days, values = (np.array([event[i] for event in events], np.int64) for i in range(3))
    ask_key, ask_day = (grid.reshape(-1) for grid in np.meshgrid(np.arange(7), np.arange(8)))
    earlier = [
        [v for d, v in sorted(((d, v) for k, d, v in events if k == key and d < day), key=lambda pair: pair[0])]
        for key, day in zip(ask_key, ask_day, strict=True)
    ]
    found = Events(keys, days)
    assert found.sums(values, ask_key, ask_day).tolist() == [float(sum(one)) for one in earlier]
    assert found.last(values, ask_key, ask_day, length).to_pylist() == [
        one[-length:] if length else [] for one in earlier
    ]
