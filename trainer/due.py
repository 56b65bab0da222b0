"""What is due after a step: a pure function of how far a run is and of what its config asks for.

All ranks come to the same answer without asking each other, and a resumed run to that of an undisturbed one. What is
then done is `train.fit`'s business.
"""

from dataclasses import dataclass
from typing import NamedTuple

from configs.schema import Config

NEVER = 2**62  # a step that no run reaches


@dataclass(frozen=True)
class Calendar:
    """When a run logs, saves, evaluates and ends. A run that follows its data has a new one for new partitions."""

    log_every: int
    save_every: int  # 0: at ends alone
    link_every: int  # 0: never by steps
    evaluate_every: int  # 0: at the end of an epoch
    saves_evaluations: bool
    last: int  # steps that the run will have done at its end
    steps_per_epoch: int  # of the rows that are known


class Due(NamedTuple):
    log: bool  # and a window of steps ends
    last_log: bool  # the run ends amid a window, which goes on should the run be prolonged
    save: bool
    link: bool  # what changed is saved, where not all is
    evaluate: bool
    end_of_epoch: bool  # or of all partitions that are known


def calendar_of(config: Config, last: int, steps_per_epoch: int) -> Calendar:
    """What `config` asks for."""
    training = config.training
    saves = config.checkpoint
    return Calendar(
        log_every=training.log_every,
        save_every=saves.every_steps,
        link_every=saves.delta_every_steps,
        evaluate_every=training.evaluate_every,
        saves_evaluations=saves.keep_best is not None,
        last=last,
        steps_per_epoch=steps_per_epoch,
    )


def due_after(calendar: Calendar, step: int, epoch_step: int, *, partition_ends: bool = False) -> Due:
    """What is due when `step` steps are done, `epoch_step` of them in this epoch; both are at least 1.

    Log lines do not depend on what is saved: a window that is open then is saved too.

    Args:
        partition_ends: whether a partition of a followed data set ends here.
    """
    end_of_epoch = epoch_step == calendar.steps_per_epoch
    ends = end_of_epoch or partition_ends or step == calendar.last
    by_steps = _is_multiple(step, calendar.evaluate_every) if calendar.evaluate_every else end_of_epoch
    evaluate = by_steps or step == calendar.last
    save = ends or _is_multiple(step, calendar.save_every) or (evaluate and calendar.saves_evaluations)
    log = end_of_epoch or partition_ends or _is_multiple(step, calendar.log_every)
    return Due(
        log=log,
        last_log=step == calendar.last and not log,
        save=save,
        link=not save and _is_multiple(step, calendar.link_every),
        evaluate=evaluate,
        end_of_epoch=end_of_epoch,
    )


def steps_until_pause(calendar: Calendar, step: int, epoch_step: int) -> int:
    """How many more steps can be trained before the next evaluation, or before the known batches or the run end."""
    left = min(calendar.last - step, calendar.steps_per_epoch - epoch_step)
    if not calendar.evaluate_every:
        return left
    return min(left, calendar.evaluate_every - step % calendar.evaluate_every)


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
