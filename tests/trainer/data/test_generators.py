"""The generators: same seed, same rows; rates, ranges and planted structure as documented; mistakes are named."""

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.choices import available
from configs.errors import UserError
from configs.schema import GenerateConfig
from trainer.data.generators import criteo, feed, regression
from trainer.data.generators._generate import generate
from trainer.data.generators._hashing import factors, mix, zipf

KINDS = ["criteo", "feed", "reference", "regression"]


def small(kind, **changes):
    defaults = {"train_rows": 1_000, "validation_rows": 300, "rows_per_file": 250, "rows_per_row_group": 100}
    return GenerateConfig(kind=kind, **(defaults | changes))


def read(folder):
    return ds.dataset(str(folder), partitioning="hive").to_table()


def auc(score, label):
    order = np.argsort(score, kind="stable")
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    positives = label.sum()
    return (ranks[label > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives))


def test_every_kind_is_offered():
    assert available("trainer.data.generators") == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_rows_and_other_seed_other_rows(kind, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(small(kind, seed=seed), str(tmp_path / name))
    assert read(tmp_path / "a" / "train").equals(read(tmp_path / "b" / "train"))
    assert not read(tmp_path / "a" / "train").equals(read(tmp_path / "c" / "train"))
    train, validation = read(tmp_path / "a" / "train"), read(tmp_path / "a" / "validation")
    assert train.num_rows == 1_000
    assert validation.num_rows == 300
    assert not train.column(1)[:300].equals(validation.column(1))


@pytest.mark.parametrize("kind", KINDS)
def test_files_have_the_sizes_asked_for_and_checksums(kind, tmp_path):
    generate(small(kind), str(tmp_path / "data"), "train", "held_out")
    files = sorted((tmp_path / "data").rglob("*.parquet"))
    assert {file.relative_to(tmp_path / "data").parts[0] for file in files} == {"train", "held_out"}
    for file in files:
        metadata = pq.ParquetFile(file, page_checksum_verification=True).metadata
        assert metadata.num_rows <= 250
        assert max(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)) <= 100
        assert metadata.row_group(0).column(0).compression == "ZSTD"
    flipped = bytearray(files[0].read_bytes())
    column = pq.read_metadata(files[0]).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    flipped[start + column.total_compressed_size - 1] ^= 1  # the end of its last page
    files[0].write_bytes(flipped)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(files[0], page_checksum_verification=True)


def test_no_validation_rows_write_no_validation_part(tmp_path):
    generate(small("reference", validation_rows=0), str(tmp_path / "data"))
    assert [folder.name for folder in (tmp_path / "data").iterdir()] == ["train"]


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "regression",
            {"corelation": 0.5},
            r"data\.generate\.options\.corelation unknown key; did you mean correlation",
        ),
        ("regression", {"correlation": 2}, r"options\.correlation must be less than or equal to 1"),
        ("feed", {"users": "many"}, r"options\.users must be a valid integer"),
        ("feed", {"users": 1.5}, r"options\.users must be a valid integer"),
        ("feed", {"partitions": True}, r"options\.partitions must not be true"),
        ("criteo", {"users": 5}, r"options\.users has no effect: it belongs to feed, and this is criteo"),
    ],
)
def test_wrong_options_are_named(kind, options, words, tmp_path):
    with pytest.raises(UserError, match=words):
        generate(small(kind, options=options), str(tmp_path / "data"))


def test_a_failed_generation_leaves_nothing(tmp_path):
    with pytest.raises(UserError):
        generate(small("feed", options={"user": 5}), str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


def test_criteo_has_its_columns_rates_and_cardinalities(tmp_path):
    options = {"click_rate": 0.2, "conversion_rate": 0.1, "null_rate": 0.1, "max_cardinality": 50, "signal": 0.3}
    generate(small("criteo", train_rows=20_000, rows_per_file=20_000, options=options), str(tmp_path / "data"))
    table = read(tmp_path / "data" / "train")
    assert table.num_columns == 2 + criteo.COUNTS + len(criteo.CARDINALITIES)
    for number, cardinality in enumerate(criteo.CARDINALITIES, 1):
        column = table[f"c{number}"]
        assert len(column.unique().drop_null()) == min(cardinality, 50)
        assert column.null_count / len(column) == pytest.approx(0.1, abs=0.02)
    click, conversion = table["label"].to_numpy(), table["conversion"].to_numpy()
    assert click.mean() == pytest.approx(0.2, abs=0.03)
    assert (np.isnan(conversion) == (click == 0)).all()
    assert np.nanmean(conversion) == pytest.approx(0.1, abs=0.05)


def test_criteo_ids_tell_clicks(tmp_path):
    generate(small("criteo", train_rows=20_000, rows_per_file=10_000, options={"signal": 3}), str(tmp_path / "data"))
    table = read(tmp_path / "data" / "train")
    clicks, rows = table["label"].to_numpy(), np.arange(table.num_rows)
    score = np.zeros(table.num_rows)
    for number in range(1, 27):
        values, ids = np.unique(table[f"c{number}"].fill_null(0).to_numpy(), return_inverse=True)
        shown = np.bincount(ids[:10_000], minlength=len(values))
        clicked = np.bincount(ids[:10_000], clicks[:10_000], minlength=len(values))
        score += ((clicked + 10 * clicks.mean()) / (shown + 10))[ids]
    assert auc(score[rows >= 10_000], clicks[rows >= 10_000]) > 0.6


def test_feed_has_days_lists_nulls_and_rates(tmp_path):
    generate(GenerateConfig(train_rows=20_000, validation_rows=2_000), str(tmp_path / "data"))
    train = read(tmp_path / "data" / "train")
    dates = sorted(path.name for path in (tmp_path / "data").glob("*/*"))
    assert dates == [f"date=2025-01-0{day}" for day in (1, 2, 3, 4)]
    assert train.column("row_id").to_pylist() == list(range(20_000))
    assert pa.types.is_string(train.schema.field("author_id").type)
    lengths = train.column("history").combine_chunks().value_lengths()
    assert 0 < lengths.null_count < 1_000
    assert set(lengths.drop_null().to_pylist()) == set(range(21))
    assert lengths.equals(train.column("history_weight").combine_chunks().value_lengths())
    for label, low, high in (("click", 0.2, 0.4), ("like", 0.01, 0.06)):
        values = train.column(label).drop_null().to_numpy()
        assert set(np.unique(values)) == {0.0, 1.0}
        assert low < values.mean() < high
    assert 500 < train.column("like").null_count < 1_500
    assert train.column("watch_time").drop_null().to_numpy().min() > 0
    assert len(train.column("user_id").unique()) > 5_000


def test_feed_items_that_were_clicked_are_clicked_again(tmp_path):
    generate(GenerateConfig(train_rows=50_000, validation_rows=5_000), str(tmp_path / "data"))
    train, validation = read(tmp_path / "data" / "train"), read(tmp_path / "data" / "validation")
    shown, positives = {}, {}
    for item, click in zip(train["item_id"].to_pylist(), train["click"].to_pylist(), strict=True):
        shown[item] = shown.get(item, 0) + 1
        positives[item] = positives.get(item, 0) + click
    score = [(positives.get(i, 0) + 0.3 * 5) / (shown.get(i, 0) + 5) for i in validation["item_id"].to_pylist()]
    assert auc(np.array(score), validation["click"].to_numpy()) > 0.58


def test_feed_partitions_split_rows_evenly_in_bounded_files():
    tables = list(feed.build(feed.Settings(partitions=4))(0, 0, 1_003, 100))
    days = [name.split("/")[0] for name, _ in tables]
    assert len(set(days)) == 4
    assert sum(table.num_rows for _, table in tables) == 1_003
    assert max(table.num_rows for _, table in tables) <= 100
    _, table = next(feed.build(feed.Settings(history_length=0, null_rate=0, partitions=1))(0, 0, 10, 10))
    assert table.column("history").to_pylist() == [[]] * 10


def test_reference_labels_follow_the_inputs(tmp_path):
    config = small("reference", train_rows=4_000, rows_per_file=1_500, options={"noise": 0.1})
    generate(config, str(tmp_path / "data"))
    train, validation = read(tmp_path / "data" / "train"), read(tmp_path / "data" / "validation")
    assert train.schema.field("x").type == pa.list_(pa.float32(), 100)
    x, held_out = (np.array(table["x"].to_pylist()) for table in (train, validation))
    assert set(np.unique(x)) == {0.0, 1.0}
    for label in ("engagement", "click"):
        solution = np.linalg.lstsq(x - 0.5, train[label].to_numpy() - 0.5, rcond=None)[0]
        assert auc((held_out - 0.5) @ solution, validation[label].to_numpy()) > 0.8
    agreement = np.mean(train["engagement"].to_numpy() == train["click"].to_numpy())
    assert 0.7 < agreement < 0.95


@given(st.floats(-1, 1), st.integers(2, 50), st.floats(0.1, 10), st.integers(0, 2**32))
def test_regression_weights_have_the_correlation_asked_for(correlation, dimension, scale, seed):
    settings = regression.Settings(dimension=dimension, correlation=correlation, scale=scale)
    first, second = regression.weight_vectors(settings, np.random.default_rng(seed))
    assert np.linalg.norm(first) == pytest.approx(scale)
    assert np.linalg.norm(second) == pytest.approx(scale)
    assert first @ second / scale**2 == pytest.approx(correlation, abs=1e-9)


def test_regression_targets_are_the_papers_equation():
    projection, phases = np.array([[0.5, -1.0]]), np.array([0.1, 0.2])
    expected = projection + np.sin(projection + 0.1) + np.sin(2 * projection + 0.2)
    np.testing.assert_allclose(regression.targets(projection, phases), expected)


def test_regression_tasks_correlate_as_asked(tmp_path):
    measured = []
    for correlation in (0.0, 0.5, 1.0):
        options = {"correlation": correlation, "noise": 0.0, "sine_terms": 0}
        generate(small("regression", train_rows=5_000, options=options), str(tmp_path / str(correlation)))
        table = read(tmp_path / str(correlation) / "train")
        measured.append(np.corrcoef(table["y1"].to_numpy(), table["y2"].to_numpy())[0, 1])
    np.testing.assert_allclose(measured, [0.0, 0.5, 1.0], atol=0.05)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(1, 1_000))
def test_ids_are_distinct_and_zipf_ranks_in_range(first, seed, count):
    ids = (np.arange(count) + np.int64(first // 2)).astype(np.int64)
    assert len(np.unique(mix(ids, seed))) == count
    u = np.random.default_rng(seed).random(100)
    for exponent in (0.0, 0.5, 1.0, 1.5):
        ranks = zipf(u, count, exponent)
        assert ranks.min() >= 0
        assert ranks.max() < count


def test_zipf_follows_the_power_law_and_factors_are_standard():
    ranks = zipf(np.random.default_rng(0).random(200_000), 1_000, 1.0)
    counts = np.bincount(ranks, minlength=1_000)
    assert counts[10:20].sum() / counts[100:200].sum() == pytest.approx(1.0, abs=0.1)
    drawn = factors(np.arange(50_000), 3, 7)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), np.eye(3), atol=0.02)
