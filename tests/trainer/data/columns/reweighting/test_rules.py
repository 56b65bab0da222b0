"""Rules of a task: read from its config, refused when wrong, multiplied into its weights and no other's."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import UserError
from configs.schema import TaskConfig
from trainer.data.columns.reweighting import fill_from_data, rules, without_rules
from trainer.data.columns.targets import Targets
from trainer.data.dataset.scan import build_manifest

BY_WATCH = {"by_label": {"label": "watch", "growth": "linear"}}
DECAY = {"time_decay": {"column": "day", "half_life_days": 1, "date": "1970-01-11", "unit": "days"}}


def test_factors_multiply_and_stay_with_their_task() -> None:
    tasks = {"click": TaskConfig(reweight=BY_WATCH | DECAY, positive_weight=10), "like": TaskConfig()}
    table = pa.table(
        {"click": [1, 0, None, 1], "like": [1, 0, 1, 0], "watch": [3.0, 3.0, 3.0, None], "day": [9, 9, 10, 10]}
    )
    targets = Targets(tasks, None)
    assert targets.columns == ("click", "like", "watch", "day")
    _, weights = targets(table, "f")
    assert weights.T.tolist() == [[10 * 4 / 2, 1 / 2, 0, 10], [1, 1, 1, 1]]


def test_evaluation_has_none() -> None:
    tasks = without_rules({"click": TaskConfig(reweight=BY_WATCH, weight_column="w")})
    assert Targets(tasks, None).columns == ("click", "w")


@pytest.mark.parametrize(
    ("reweight", "words"),
    [
        ({"by_lable": {}}, "'by_lable' is not in trainer/data/columns/reweighting: did you mean by_label"),
        ({"by_label": {}}, r"tasks\.click\.reweight\.by_label\.label is missing\ntrainer/.*/by_label\.py says more"),
        ({"by_label": {"label": "w", "capp": 2}}, r"by_label\.capp unknown key; did you mean cap\?"),
        ({"by_label": {"label": "w", "cap": -1}}, r"by_label\.cap must be greater than 0"),
        ({"time_decay": {"column": "t", "half_life_days": True}}, r"half_life_days must not be true"),
        (
            {"time_decay": {"column": "t", "half_life_days": 1, "date": "May"}},
            r"time_decay\.date invalid isoformat string: 'May'",
        ),
    ],
)
def test_wrong_settings_are_named(reweight: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        rules("click", TaskConfig(reweight=reweight))


def test_what_was_settled_for_a_run_stays_when_its_data_grows(tmp_path: Path) -> None:
    task = TaskConfig(reweight=BY_WATCH | {"time_decay": {"column": "day", "half_life_days": 1, "unit": "days"}})
    dates = []
    former: dict[str, TaskConfig] = {}
    for day in (10, 20):
        pq.write_table(pa.table({"day": [day]}), tmp_path / f"{day}.parquet")
        manifest = build_manifest(str(tmp_path))
        dates.append([fill_from_data({"click": task}, manifest, tasks)["click"].reweight for tasks in (former, {})])
        former = former or fill_from_data({"click": task}, manifest, {})
    assert [[found["time_decay"]["date"][:10] for found in pair] for pair in dates] == [
        ["1970-01-11", "1970-01-11"],
        ["1970-01-11", "1970-01-21"],
    ]
    given = {"click": TaskConfig(reweight={"time_decay": {**task.reweight["time_decay"], "date": "1970-01-19"}})}
    assert fill_from_data(given, manifest, former) == given
    assert fill_from_data({"like": task}, manifest, former)["like"].reweight["by_label"] == BY_WATCH["by_label"]
