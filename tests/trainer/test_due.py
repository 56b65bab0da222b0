"""What is due after a step, for any config: nothing is missed, and the pipeline is never fed beyond a pause."""

from hypothesis import given
from hypothesis import strategies as st

from trainer.due import NEVER, Calendar, due_after, steps_until_pause

CALENDARS = st.builds(
    Calendar,
    log_every=st.integers(1, 30),
    save_every=st.integers(0, 30),
    link_every=st.integers(0, 30),
    evaluate_every=st.integers(0, 30),
    saves_evaluations=st.booleans(),
    last=st.one_of(st.integers(1, 80), st.just(NEVER)),
    steps_per_epoch=st.integers(1, 25),
)


def walk(calendar: Calendar, steps: int = 80):
    """(step, epoch_step) of the first steps of a run."""
    for step in range(1, min(steps, calendar.last) + 1):
        yield step, (step - 1) % calendar.steps_per_epoch + 1


@given(CALENDARS)
def test_a_run_logs_saves_and_evaluates_when_its_config_says_so(calendar: Calendar) -> None:
    for step, epoch_step in walk(calendar):
        due = due_after(calendar, step, epoch_step)
        is_end = step == calendar.last or step % calendar.steps_per_epoch == 0
        every = calendar.evaluate_every or calendar.steps_per_epoch
        assert due.evaluate == (step == calendar.last or step % every == 0)
        saves = is_end or (bool(calendar.save_every) and step % calendar.save_every == 0)
        assert due.save == (saves or (due.evaluate and calendar.saves_evaluations))
        assert due.link == (bool(calendar.link_every) and step % calendar.link_every == 0 and not due.save)
        assert due.end_of_epoch == (step % calendar.steps_per_epoch == 0)


@given(CALENDARS)
def test_log_lines_do_not_depend_on_what_is_saved(calendar: Calendar) -> None:
    for step, epoch_step in walk(calendar):
        due = due_after(calendar, step, epoch_step)
        assert due.log == (step % calendar.steps_per_epoch == 0 or step % calendar.log_every == 0)
        assert due.last_log == (step == calendar.last and not due.log)


@given(CALENDARS)
def test_pauses_are_where_the_pipeline_must_be_empty_and_nowhere_between(calendar: Calendar) -> None:
    expected, left = 0, 0
    for step, epoch_step in walk(calendar):
        if not left:
            before = epoch_step - 1
            left = steps_until_pause(calendar, step - 1, before)
            assert left >= 1
            expected = step - 1 + left
        left -= 1
        due = due_after(calendar, step, epoch_step)
        assert (due.evaluate or due.end_of_epoch) == (step == expected)


def test_the_end_of_a_partition_is_saved_but_not_evaluated() -> None:
    calendar = Calendar(
        log_every=50,
        save_every=0,
        link_every=0,
        evaluate_every=0,
        saves_evaluations=False,
        last=NEVER,
        steps_per_epoch=9,
    )
    assert due_after(calendar, 4, 4, partition_ends=True) == (True, False, True, False, False, False)
    assert due_after(calendar, 4, 4) == (False, False, False, False, False, False)
    assert due_after(calendar, 9, 9) == (True, False, True, False, True, True)
