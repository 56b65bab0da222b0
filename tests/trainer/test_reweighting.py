"""Rules that reweight rows, through a whole run: the same on any number of workers, on a resume, not in evaluation."""

from pathlib import Path

from configs.load import load_config
from configs.schema import Config
from tests.trainer.test_train import final_metrics, relative, small
from tests.trainer.workers import losses, train_on

DECAY = "tasks.click.reweight.time_decay={column: row_id, half_life_days: 0.1}"  # row_id as if it were seconds
BY_LABEL = "tasks.like.reweight.by_label={label: watch_time, growth: linear, cap: 3}"


def reweighted(data: str, run_dir: Path, *options: str) -> Config:
    return small(data, run_dir, "model.dropout=0", "training.max_steps=12", DECAY, BY_LABEL, *options)


def test_reweighted_rows_train_the_same_on_any_number_of_workers(data: str, tmp_path: Path) -> None:
    for world_size in (1, 2):
        train_on(reweighted(data, tmp_path / str(world_size)), world_size)
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert max(relative(one[step], two[step]) for step in one) < 1e-5
    train_on(small(data, tmp_path / "plain", "model.dropout=0", "training.max_steps=12"), 1)
    assert relative(one[1], losses(tmp_path / "plain")[1]) > 1e-4


def test_the_newest_row_is_settled_once_and_evaluation_counts_rows_as_they_came(data: str, tmp_path: Path) -> None:
    train_on(reweighted(data, tmp_path / "run", "training.max_steps=6"), 1)
    settled = load_config(tmp_path / "run" / "config.yaml").tasks["click"].reweight["time_decay"]["date"]
    assert settled == "1970-01-01T05:33:19"  # 20,000 rows, from 0
    train_on(reweighted(data, tmp_path / "run"), 1, resume=True)
    assert list(losses(tmp_path / "run")) == list(range(1, 13))
    tiny = "tasks.click.reweight.time_decay.half_life_days=1e-3"  # rows before the last 13,000 weigh nothing
    train_on(reweighted(data, tmp_path / "tiny", tiny, "training.max_steps=1"), 1)
    assert final_metrics(tmp_path / "tiny")["rows/click"] == final_metrics(tmp_path / "run")["rows/click"] == 2000
