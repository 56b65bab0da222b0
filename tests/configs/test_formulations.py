"""One of several ways is taken: the first, the one that a run follows, or the one that is measured to be fastest."""

import time
from collections.abc import Callable

import pytest

from configs import formulations
from configs.formulations import fastest, follow, followed, measuring


@pytest.fixture(autouse=True)
def nothing_chosen():
    follow({})
    yield
    follow({})


def slow(_: int) -> str:
    time.sleep(0.002)
    return "slow"


def quick(_: int) -> str:
    return "quick"


WAYS: dict[str, Callable[[int], str]] = {"slow": slow, "quick": quick}


def test_the_first_way_is_taken_where_nothing_is_said():
    assert fastest("sum", WAYS, 1)(1) == "slow"
    assert followed() == {}


def test_what_is_measured_is_kept_and_followed():
    with measuring():
        assert fastest("sum", WAYS, 1)(1) == "quick"
    assert followed() == {"sum": "quick"}
    assert fastest("sum", WAYS, 1)(1) == "quick"
    assert fastest("another shape", WAYS, 1)(1) == "slow"


def test_what_is_followed_is_not_measured_again():
    follow({"sum": "slow"})
    with measuring():
        assert fastest("sum", WAYS, 1)(1) == "slow"
    assert followed() == {"sum": "slow"}


def test_a_way_that_is_gone_is_not_followed():
    follow({"sum": "of a former version"})
    assert fastest("sum", WAYS, 1)(1) == "slow"


def test_the_noise_of_a_clock_changes_no_run(monkeypatch):
    monkeypatch.setattr(formulations, "_WORTH_IT", 1e9)
    with measuring():
        assert fastest("sum", WAYS, 1)(1) == "slow"
