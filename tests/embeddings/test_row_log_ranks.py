"""Every row that changes is in the log, and none else: whatever the sharding, optimizer and number of workers."""

import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.embeddings.row_log_ranks import CONFIGS, serve
from tests.embeddings.sharded_runs import FUSED
from tests.trainer.workers import FORKSERVER

EVERYDAY = {("every form", "rowwise_adagrad", 2), ("every form", "adagrad", 3), ("one group", "sgd", 1)} | {
    ("whole rows", "rowwise_adagrad", 1)
}
CASES = [
    pytest.param(*case, marks=() if case in EVERYDAY else pytest.mark.slow)
    for case in ((form, kind, size) for form in CONFIGS for kind in FUSED for size in (1, 2, 3))
]
Play = Callable[[int, str, str, list[Any], int], None]

STEP = st.one_of(
    st.tuples(st.just("train"), st.integers(0, 40)),
    st.tuples(st.just("evaluate"), st.integers(0, 40)),
    st.tuples(st.just("cut"), st.integers(1, 3)),
    st.tuples(st.just("advance"), st.integers(0, 1), st.integers(0, 3)),
    st.tuples(st.just("mark"), st.integers(0, 40), st.lists(st.integers(0, 60), max_size=4)),
)


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    """Has the ranks of a group play a script; a group is started when it is first needed."""
    groups: dict[int, list[Connection]] = {}
    processes = []

    def group(size: int) -> list[Connection]:
        store = tempfile.mktemp(prefix="store-")
        for rank in range(size):
            ours, theirs = FORKSERVER.Pipe()
            groups.setdefault(size, []).append(ours)
            processes.append(FORKSERVER.Process(target=serve, args=(theirs, store, rank, size)))
            processes[-1].start()
        return groups[size]

    def played(size: int, *asked: Any) -> None:
        connections = groups.get(size) or group(size)
        for connection in connections:
            connection.send(asked)
        assert all(connection.poll(60) for connection in connections), "a rank hangs"
        wrong = [answer for connection in connections if (answer := connection.recv()) is not None]
        assert not wrong, "\n".join(wrong)

    yield played
    for connection in (connection for connections in groups.values() for connection in connections):
        connection.send(None)
    for process in processes:
        process.join(10)


@pytest.mark.parametrize(("form", "kind", "size"), CASES)
def test_the_log_names_the_rows_that_changed(play: Play, form: str, kind: str, size: int) -> None:
    @settings(max_examples=8, deadline=None)
    @given(script=st.lists(STEP, min_size=1, max_size=12), last=st.sampled_from([255, 4, 5, 7]))
    def check(script: list[Any], last: int) -> None:
        play(size, form, kind, script, last)

    check()
