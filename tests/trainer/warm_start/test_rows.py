"""Rows of a table are taken over only where they mean the same IDs, categories or buckets."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import UserError
from configs.schema import Config, WarmStart
from trainer.warm_start.rows import refuse_other_rows

WARM = WarmStart.model_validate({"from": "runs/a"})


def config(rows: int, *features: dict[str, Any]) -> Config:
    named = {f"f{number}": {"table": "t", **feature} for number, feature in enumerate(features)}
    return Config.model_validate(
        {
            "data": {"root": "unused"},
            "features": named,
            "tables": {"t": {"num_embeddings": rows, "embedding_dim": 4}},
            "tasks": {"click": {}},
            "training": {"run_dir": "runs/b"},
        }
    )


IDENTITY: dict[str, Any] = {"transform": "identity"}


def vocabulary(path: Path, lines: str) -> dict[str, Any]:
    path.write_text("\n".join(lines))
    return {"transform": "vocabulary", "vocabulary": str(path)}


def buckets(*boundaries: float) -> dict[str, Any]:
    return {"transform": "bucketize", "boundaries": boundaries}


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (config(9, {}), config(9, {})),
        (config(9, IDENTITY), config(12, IDENTITY)),
        (config(9, {}), config(9, {}, {})),  # one more feature that reads the table alike
        (config(9, buckets(1, 2)), config(12, buckets(1, 2, 3))),
    ],
)
def test_rows_that_mean_the_same(then: Config, now: Config) -> None:
    refuse_other_rows(WARM, now, then)


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (config(9, {}), config(12, {}), r"tables.t: 3 rows more, and features.f0 gives rows by hash"),
        (config(9, IDENTITY), config(8, IDENTITY), r"8 rows cannot hold the 9 there"),
        (config(9, IDENTITY), config(9, {}), r"gives it rows by hash, there it was identity"),
        (config(9, IDENTITY), config(9, IDENTITY, {}), r"features.f1 gives it rows by hash"),
        (config(9, buckets(1, 2)), config(9, buckets(1, 1.5, 2)), r"do not begin with those there"),
    ],
)
def test_rows_that_mean_others(then: Config, now: Config, said: str) -> None:
    with pytest.raises(UserError, match=said):
        refuse_other_rows(WARM, now, then)
    refuse_other_rows(WARM.model_copy(update={"exclude": ("tables.t",)}), now, then)


def test_a_vocabulary_grows_at_its_end(tmp_path: Path) -> None:
    then = config(9, vocabulary(tmp_path / "then", "abc"))
    refuse_other_rows(WARM, config(12, vocabulary(tmp_path / "now", "abcd")), then)
    for lines, said in (("abd", "line 3 .* is 'd', there it was 'c'"), ("ab", "ends before line 3")):
        with pytest.raises(UserError, match=said):
            refuse_other_rows(WARM, config(12, vocabulary(tmp_path / "now", lines)), then)
