"""A rank that the others wait for is found, and named at the end."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.telemetry.slow_rank import SlowRank, awake_seconds, ratio


def test_sleep_is_not_a_rank_s_own_time_and_work_is() -> None:
    before = awake_seconds()
    time.sleep(0.3)
    asleep = awake_seconds() - before
    until = time.thread_time() + 0.1
    while time.thread_time() < until:
        pass
    worked = awake_seconds() - before - asleep
    assert asleep < 0.1
    assert worked >= 0.1 * 0.9


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=9))
def test_the_ratio_is_that_of_the_slowest_to_the_median(own: list[float]) -> None:
    found = ratio(own)
    assert found >= 1
    assert sum(value * found >= max(own) * 0.999 for value in own) >= len(own) // 2
    assert ratio([3 * value for value in own]) == pytest.approx(found)


def test_only_a_rank_that_is_slow_over_the_whole_run_is_named() -> None:
    hosts = ["a", "b", "c"]
    slow = SlowRank()
    assert slow.line(hosts) is None
    slow.add([1.0, 1.5, 1.0])
    slow.add([1.5, 1.0, 1.0])
    assert slow.line(hosts) is None
    slow.add([1.0, 1.0, 9.0])
    line = slow.line(hosts)
    assert line is not None
    assert line.startswith("rank 2 on c is slow: its own part of a step takes 3.1 times that of the median rank")
    alone = SlowRank()
    alone.add([5.0])
    assert alone.line(["a"]) is None
