"""Learning rates over a run, step by step, against their formulas; a warm-up that the run would not outlast."""

import math

import pytest

from configs.errors import UserError
from configs.schema import Config, TrainingConfig
from trainer.due import NEVER
from trainer.schedule import learning_rate_factor, learning_rates, refuse_endless_warmup


def training(**changes) -> TrainingConfig:
    return TrainingConfig(run_dir="run", **changes)


def factors(last: int, **changes) -> list[float]:
    return [learning_rate_factor(training(**changes), step, last) for step in range(last)]


def test_without_a_schedule_rates_are_what_the_config_says() -> None:
    assert factors(5) == [1, 1, 1, 1, 1]
    assert learning_rates(training(), 3, NEVER) == {"sparse": 0.05, "dense": 1e-3}


def test_a_warm_up_grows_linearly_and_reaches_the_rate_at_its_last_step() -> None:
    assert factors(7, warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_linear_decay_begins_after_the_warm_up_and_ends_a_step_above_zero() -> None:
    assert factors(5, decay="linear") == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert factors(6, warmup_steps=2, decay="linear") == pytest.approx([0.5, 1, 1, 0.75, 0.5, 0.25])


def test_cosine_decay_is_half_a_cosine() -> None:
    found = factors(100, warmup_steps=20, decay="cosine")
    expected = [(1 + math.cos(math.pi * done / 80)) / 2 for done in range(80)]
    assert found[20:] == pytest.approx(expected)
    assert found[60] == pytest.approx(0.5)


def test_both_rates_follow_the_schedule() -> None:
    changes = {"dense_optimizer": {"learning_rate": 0.01}, "sparse_optimizer": {"learning_rate": 2.0}}
    assert learning_rates(training(decay="linear", **changes), 3, 4) == pytest.approx({"sparse": 0.5, "dense": 0.0025})


def test_a_warm_up_that_the_run_does_not_outlast_is_refused() -> None:
    def config(**changes) -> Config:
        return Config(
            data={"root": "data", "order": "by_partition", **changes.pop("data", {})},
            features={"price": {}},
            tasks={"click": {}},
            training={"run_dir": "run", **changes},
        )

    refuse_endless_warmup(config(warmup_steps=79, epochs=2), 40)
    refuse_endless_warmup(config(), 0)
    refuse_endless_warmup(config(warmup_steps=10**9, data={"follow": True}), 40)  # new partitions may come
    with pytest.raises(UserError, match=r"training.warmup_steps = 80: .* has 80 steps\nLower training.warmup_steps"):
        refuse_endless_warmup(config(warmup_steps=80, epochs=2), 40)
