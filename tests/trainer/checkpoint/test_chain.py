"""Which state is taken of bases and links: as marks say it, without files."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint.chain import all_states, longest, newest_state
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.link_files import Link
from trainer.run.folder import Folder
from trainer.run.position import Position

FOLDER = Folder("memory://nothing")


def base(step: int, *, attempt: int = 1, merged_from: str | None = None) -> Checkpoint:
    digest = f"base {step} by {attempt}"
    return Checkpoint(FOLDER, Position(step, 0, step), 1, {}, {}, {}, attempt, merged_from, digest)


def link(step: int, follows: Checkpoint | Link, *, attempt: int = 1, ends: bool = True) -> Link:
    digest = f"link {step} by {attempt} after {follows.digest}"
    return Link(FOLDER, Position(step, 0, step), 1, attempt, step, follows.digest, {}, {}, (), (), digest, ends)


def chain(first: Checkpoint, *steps: int, attempt: int = 1) -> list[Link]:
    made: list[Link] = []
    for step in steps:
        made.append(link(step, made[-1] if made else first, attempt=attempt))
    return made


def test_the_longest_chain_of_the_newest_base_is_taken() -> None:
    first, links = base(10), chain(base(10), 12, 14, 16)
    merged = base(14, merged_from=links[1].digest)
    state = newest_state([first, merged], links, {})
    assert state is not None
    assert (state.base, state.links) == (merged, (links[2],))


def test_the_base_before_leads_to_the_same_state_when_a_merged_one_is_gone() -> None:
    links = chain(base(10), 12, 14, 16, 18)
    state = newest_state([base(10)], links, {})
    assert state is not None
    assert state.step == 18


def test_a_chain_ends_where_whole_parts_are() -> None:
    first, second, third = chain(base(10), 12, 14, 16)
    state = longest(base(10), [first, replace(second, ends=False), replace(third, ends=False)], {})
    assert state.links == (first,)
    assert longest(base(10), [first, replace(second, ends=False), third], {}).step == 16


def test_a_gap_ends_the_chain() -> None:
    first, _, third = chain(base(10), 12, 14, 16)
    assert longest(base(10), [first, third], {}).links == (first,)


def test_a_link_of_another_run_follows_nothing() -> None:
    stranger = link(12, base(10, attempt=77))
    assert longest(base(10), [stranger], {}).links == ()


def test_of_two_links_that_follow_the_same_the_newer_attempt_counts() -> None:
    """The step is the same, and so may be the time."""
    older, newer = link(12, base(10), attempt=1), link(12, base(10), attempt=2)
    for went_on_from in ({2: 10}, {}):  # the newer one may not have said yet from where it went on
        assert longest(base(10), [newer, older], went_on_from).links == (newer,)
        assert longest(base(10), [older, newer], went_on_from).links == (newer,)


def test_of_two_links_of_one_attempt_that_follow_the_same_the_later_counts() -> None:
    """The writer of the first was told of a failure after its mark was there; the second has all that changed since."""
    first, second = link(12, base(10)), link(14, base(10))
    third = link(16, second)
    assert longest(base(10), [first, second, third], {}).links == (second, third)
    assert longest(base(10), [third, second, first], {}).links == (second, third)


def test_what_an_older_attempt_wrote_beyond_the_step_that_a_newer_went_on_from_is_no_part_of_the_run() -> None:
    """Cut-off workers go on writing links, and a base; the newer attempt has not saved anything yet."""
    links = chain(base(10), 12, 14, 16)
    late_base = base(20, attempt=1)
    state = newest_state([base(10), late_base], links, {2: 12})
    assert state is not None
    assert state.step == 12
    assert newest_state([base(10), late_base], links, {}).step == 20  # pyright: ignore[reportOptionalMemberAccess]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_however_attempts_take_over_the_state_is_what_the_last_one_had(
    attempts: list[tuple[int, int, int]], order: object
) -> None:
    """Attempts that save some links, are overtaken some links before their end, and go on writing for a while."""
    root = base(100, attempt=1)
    story: list[Checkpoint | Link] = [root]  # of the run
    written: list[Link] = []
    went_on_from: dict[int, int] = {}
    for number, (saved, lost, late) in enumerate(attempts, 1):
        if number > 1:
            went_on_from[number] = story[-1].step
        for _ in range(saved):
            story.append(link(story[-1].step + 1, story[-1], attempt=number))
            written.append(story[-1])
        if number == len(attempts):
            break
        last = story[-1]
        for _ in range(late):  # after the next attempt has begun
            last = link(last.step + 1, last, attempt=number)
            written.append(last)
        for _ in range(lost):  # links that the next attempt does not see yet, or that are damaged
            if isinstance(story[-1], Link):
                story.pop()
    order.shuffle(written)  # type: ignore[attr-defined]
    state = newest_state([root], written, went_on_from)
    assert state is not None
    assert [state.base, *state.links] == story


def test_all_states_are_those_where_a_chain_may_end() -> None:
    links = chain(base(10), 12, 14, 16)
    links[1] = replace(links[1], ends=False)
    merged = base(16, merged_from=links[2].digest)
    states = all_states([base(10), merged], [*links, link(18, links[2])], {})
    assert [(state.step, state.base.step, len(state.links)) for state in states] == [
        (10, 10, 0),
        (12, 10, 1),
        (16, 16, 0),
        (18, 16, 1),
    ]


@pytest.mark.parametrize("found", [[], [link(12, base(10))]])
def test_without_a_base_there_is_nothing(found: list[Link]) -> None:
    assert newest_state([], found, {}) is None
