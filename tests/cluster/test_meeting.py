"""What follows from what agents tell, without processes and without a clock."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.meeting import SILENT_S, STOPPED_S, Cause, Limits, Meeting, Report, Verdict

KILLED = Cause("its process was ended by signal 9 (SIGKILL)", True)
BUG = Cause("ValueError: a fault in the code", False)
PEER = Cause("RuntimeError: [gloo/pair.cc:538] Connection closed by peer [10.0.0.1]:4", False)


class Run:
    """A meeting whose function saves when told to."""

    def __init__(self, size: int, max_failures: int = 3, hang_timeout_s: float = 100) -> None:
        self.saves, self.said, self.size = 0, [], size
        self.meeting = Meeting(
            Limits(max_failures, hang_timeout_s),
            lambda: str(self.saves),
            self.said.append,
            lambda causes, hosts: [f"rank {rank} on {hosts[rank]}: {causes[rank].text}" for rank in sorted(causes)],
        )
        self.group = self.meeting.begin_group(size)

    def arrive(self, now: float = 0) -> None:
        for rank in range(self.size):
            self.meeting.arrive(self.group, rank, f"host {rank}", f"10.0.0.{rank}:1", now, now)

    def fail(self, causes: dict[int, Cause]) -> None:
        self.meeting.fail(self.group, causes, 5.0)


def test_an_attempt_begins_when_all_are_there_where_the_first_is() -> None:
    run = Run(3)
    for rank in (2, 0):
        run.meeting.arrive(run.group, rank, "host", f"10.0.0.{rank}:1", 0, 0)
        assert not run.meeting.has_begun(rank)
    run.meeting.arrive(run.group, 1, "host", "10.0.0.1:1", 0, 0)
    assert all(map(run.meeting.has_begun, range(3)))
    assert (run.meeting.call().attempt, run.meeting.call().address) == (1, "10.0.0.0:1")


@given(st.permutations([(0, PEER), (1, PEER), (2, BUG), (3, KILLED)]), st.integers(0, 3))
def test_whatever_is_heard_first_the_nearest_to_the_cause_is_blamed(order: list[tuple[int, Cause]], left: int) -> None:
    run = Run(4)
    run.arrive()
    heard = [(rank, cause) for rank, cause in order if cause is not KILLED or left]
    for rank, cause in heard:
        run.fail({rank: cause})
        assert run.meeting.verdict is Verdict.AGAIN
    run.arrive()
    (fault,) = run.meeting.faults
    assert (fault.rank, fault.host) == ((3, "host 3") if left else (2, "host 2"))
    assert len([line for line in run.said if line.startswith("rank")]) == 1
    assert run.meeting.call().faults == (fault,)
    assert run.meeting.verdict is Verdict.GO_ON


@settings(max_examples=200)
@given(st.lists(st.booleans(), max_size=30), st.integers(-1, 4))
def test_failures_are_counted_since_the_last_save(saves: list[bool], most: int) -> None:
    run = Run(2, max_failures=most)
    run.arrive()
    count = 0
    for number, saved in enumerate(saves):
        run.saves += saved
        count = 1 if saved or number == 0 else count + 1
        run.fail({0: Cause(f"ValueError: {number}", False)})
        run.arrive()
        if 0 <= most < count:
            first = f"rank 0 on host 0: ValueError: {number - count + 1}"
            assert run.meeting.given_up is not None
            assert run.meeting.given_up.endswith(first)
            assert run.meeting.verdict is Verdict.OVER
            return
        assert run.meeting.given_up is None
        assert run.meeting.attempt == number + 2


def test_silence_and_a_stop_are_failures_after_a_while_and_not_before() -> None:
    run = Run(2)
    run.arrive(now=0)
    run.meeting.hear(run.group, 0, Report(1, 1, 0.0), SILENT_S - 1)
    run.meeting.look(SILENT_S - 0.1, 0)
    assert run.meeting.verdict is Verdict.GO_ON
    run.meeting.hear(run.group, 0, Report(1, 1, STOPPED_S - 0.5), SILENT_S - 0.1)
    run.meeting.hear(run.group, 1, Report(1, 1, 0.0), SILENT_S - 0.1)
    run.meeting.look(SILENT_S + 1, 0)
    assert run.meeting.verdict is Verdict.GO_ON
    run.meeting.look(2 * SILENT_S, 0)
    assert run.meeting.verdict is Verdict.AGAIN
    run = Run(2)
    run.arrive()
    run.meeting.hear(run.group, 1, Report(1, 1, STOPPED_S), 1)
    run.meeting.look(1, 0)
    run.arrive()
    assert run.meeting.faults[0].rank == 1


def test_a_rank_that_goes_on_alone_is_no_hang_and_one_that_has_not_begun_neither() -> None:
    run = Run(2, hang_timeout_s=10)
    run.arrive(now=0)
    for now in range(30):
        for rank in range(2):
            run.meeting.hear(run.group, rank, Report(0, None, 0.0), now)
        run.meeting.look(now, 0)
    assert run.meeting.verdict is Verdict.GO_ON, "no beat by now: it still begins"
    for now in range(30, 60):
        for rank in range(2):
            run.meeting.hear(run.group, rank, Report(5 if rank else now, 7, 0.0), now)
        run.meeting.look(now, 0)
    assert run.meeting.verdict is Verdict.GO_ON
    for now in range(60, 72):
        for rank in range(2):
            run.meeting.hear(run.group, rank, Report(59, 7, 0.0), now)
        run.meeting.look(now, 0)
    assert (run.meeting.verdict, run.meeting.hangs) == (Verdict.AGAIN, True)


def test_all_are_done_only_together() -> None:
    run = Run(3)
    run.arrive()
    for rank in (1, 0):
        run.meeting.done(run.group, rank, f"result {rank}")
        assert run.meeting.verdict is Verdict.GO_ON
    run.fail({2: KILLED})  # at its very end: the function is called again
    run.arrive()
    assert run.meeting.attempt == 2
    for rank in range(3):
        run.meeting.done(run.group, rank, f"result {rank}")
    assert (run.meeting.verdict, run.meeting.result) == (Verdict.OVER, "result 0")


def test_processes_that_are_asked_to_leave_have_a_new_group_without_a_failure() -> None:
    run = Run(2)
    run.arrive()
    run.meeting.leaving = "host 1 goes"
    for rank in range(2):
        run.meeting.done(run.group, rank, None)
    assert run.meeting.verdict is Verdict.LEAVE
    run.group = run.meeting.begin_group(1)
    run.size = 1
    run.arrive()
    assert (run.meeting.attempt, run.meeting.faults, run.meeting.leaving) == (2, [], "")


def test_groups_that_cannot_be_started_are_failures_too() -> None:
    run = Run(2, max_failures=2)
    run.arrive()
    run.fail({1: KILLED})
    run.meeting.settle(0)
    for count in (2, 3):
        run.meeting.fail_to_start(Cause("no package", True), 0)
        run.meeting.settle(0)
        assert len(run.meeting.faults) == count
    assert run.meeting.given_up is not None


def test_where_the_storage_does_not_say_what_is_saved_failures_add_up() -> None:
    run = Run(1, max_failures=2)
    run.arrive()
    for saved in ("step 1", None, "step 1"):
        run.meeting.saved = lambda saved=saved: saved
        run.fail({0: BUG})
        run.arrive()
    assert run.meeting.given_up is not None


def test_it_is_known_whose_agent_has_not_come() -> None:
    run = Run(3)
    run.meeting.arrive(run.group, 1, "host", "10.0.0.1:1", 0, 0)
    assert run.meeting.missing() == [0, 2]


def test_agents_of_an_older_group_change_nothing() -> None:
    run = Run(2)
    run.arrive()
    old, run.group = run.group, run.meeting.begin_group(2)
    run.meeting.fail(old, {0: KILLED}, 0)
    run.meeting.done(old, 0, "old")
    run.meeting.arrive(old, 0, "host", "10.0.0.9:1", 0, 0)
    run.arrive()
    assert (run.meeting.attempt, run.meeting.faults, run.meeting.result) == (2, [], None)


@pytest.mark.parametrize("seed", range(20))
def test_a_night_of_lost_groups_that_save_in_between_ends_no_launch(seed: int) -> None:
    run, chance = Run(2, max_failures=1), random.Random(seed)
    run.arrive()
    for _ in range(50):
        run.saves += 1
        run.fail({chance.randrange(2): KILLED})
        if chance.random() < 0.5:
            run.meeting.settle(0)
            run.group = run.meeting.begin_group(2)
        run.arrive()
    assert run.meeting.given_up is None
    assert len(run.meeting.faults) == 50
