"""Training in BF16 and compiled, on real workers: near FP32, through evaluation, conflict samples and a resume."""

import json
import math
from pathlib import Path

import pytest

from tests.trainer.test_train import final_state, relative, small
from tests.trainer.workers import losses, start_workers, train_on, wait
from trainer.checkpoint.files import find
from trainer.run.folder import Folder

OPTIONS = (
    "model.dropout=0.2",
    "model.gate_noise=0.5",
    "model.gate_dropout=0.2",
    "training.gradient_cosines_every=4",
    "checkpoint.every_steps=6",
)


@pytest.fixture(scope="module")
def plain(data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses in FP32."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    train_on(small(data, run_dir, *OPTIONS, "training.max_steps=12"), 1)
    return losses(run_dir)


def records(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_bf16_is_near_fp32_and_keeps_weights_in_fp32(data: str, plain: dict[int, float], tmp_path: Path) -> None:
    options = (*OPTIONS, "training.precision=bf16")
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=6"), 2)
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=12"), 1, resume=True)
    found = losses(tmp_path / "run")
    assert list(found) == list(plain)
    differences = [relative(plain[step], found[step]) for step in plain]
    assert 1e-6 < max(differences) < 0.02
    dense = {name: value for name, value in final_state(tmp_path / "run").items() if name.startswith("model/top.")}
    assert {str(value.dtype) for value in dense.values()} == {"torch.float32"}
    cosines = [record["gradient_cosine/click-like"] for record in records(tmp_path / "run") if record["step"] == 8][:1]
    assert -1 <= cosines[0] <= 1
    _assert_evaluated_in_fp32(data, tmp_path / "run")


def _assert_evaluated_in_fp32(data: str, run_dir: Path) -> None:
    """The last evaluation of a run says of its weights what the same run without BF16 says of them."""
    evaluated = records(run_dir)[-1]
    metrics = run_dir / "metrics.jsonl"
    metrics.write_text("".join(f"{line}\n" for line in metrics.read_text().splitlines()[:-1]))
    train_on(small(data, run_dir, *OPTIONS, "training.max_steps=12"), 1, resume=True)
    again = records(run_dir)[-1]
    assert (again["kind"], again["step"]) == ("eval", 12)
    for metric in ("loss/click", "auc/click", "calibration/click", "rmse/watch_time"):
        assert evaluated[metric] == again[metric]


@pytest.mark.parametrize("world_size", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_compiled_is_equal_to_fp32(data: str, plain: dict[int, float], tmp_path: Path, world_size: int) -> None:
    """With dropout and both kinds of noise, whose numbers belong to rows: on two workers too."""
    train_on(small(data, tmp_path / "run", *OPTIONS, "training.max_steps=12", "training.compile=true"), world_size)
    found = losses(tmp_path / "run")
    assert list(found) == list(plain)
    assert max(relative(plain[step], found[step]) for step in plain) < 1e-5


def test_a_diverged_run_stops_all_ranks_with_one_message_and_saves_nothing_of_it(data: str, tmp_path: Path) -> None:
    diverging = ("training.dense_optimizer.kind=sgd", "training.dense_optimizer.learning_rate=1e30")
    options = ("training.log_every=5", "checkpoint.every_steps=10", "training.max_steps=20", *diverging)
    config = small(data, tmp_path / "run", *options)
    assert wait(start_workers(config, 2)) == [1, 1]
    logs = [(tmp_path / "run" / f"logs/latest/rank_{rank}.log").read_text() for rank in range(2)]
    messages = [[line for line in log.splitlines() if "training has diverged" in line] for log in logs]
    assert messages[0] == messages[1]
    assert len(messages[0]) == 1
    assert "step 5: the loss of click, like, watch_time is NaN" in messages[0][0]
    assert "--resume resumes at the newest checkpoint: with lower learning rates" in logs[0]
    assert find(Folder(tmp_path / "run" / "checkpoints")) == ([], {})


def test_weights_that_become_infinite_in_the_last_update_are_not_saved(data: str, tmp_path: Path) -> None:
    """Every loss is a number, as it is of before the update; what is there afterwards is not."""
    options = ("checkpoint.every_steps=2", "training.log_every=2", "training.dense_optimizer.kind=sgd")
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=2"), 2)
    too_fast = ("training.dense_optimizer.learning_rate=1e38", "training.max_steps=3")
    config = small(data, tmp_path / "run", *options, *too_fast)
    assert wait(start_workers(config, 2, resume=True)) == [1, 1]
    logs = [(tmp_path / "run" / f"logs/latest/rank_{rank}.log").read_text() for rank in range(2)]
    messages = [[line for line in log.splitlines() if "training has diverged" in line] for log in logs]
    assert messages[0] == messages[1]
    assert "step 3 is not saved: model/" in messages[0][-1]
    assert "became NaN or too large after step 2" in messages[0][-1]
    assert [checkpoint.step for checkpoint in find(Folder(tmp_path / "run" / "checkpoints"))[0]] == [2]
    assert [record["step"] for record in records(tmp_path / "run") if record["kind"] == "eval"] == [2]
    train_on(small(data, tmp_path / "run", *options, "training.max_steps=3"), 1, resume=True)
    assert math.isfinite(records(tmp_path / "run")[-1]["total/loss"])
