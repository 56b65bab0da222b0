"""Says which tasks have hardly a row to learn from: labels that a join lost, weights of zero, times that are too old.

What footers tell of that is refused before training (`trainer.data.columns.statistics`); this looks at the rows.
"""

from collections.abc import Callable, Collection

from trainer.telemetry.records import StepRecord

_FIRST_LOOK, _NEXT_LOOK = 100_000, 10  # rows trained, and how many times more before the next look
_FEW = 1e-3  # of the rows


class Unlearned:
    """Counts the rows of each task from record to record."""

    def __init__(self, tasks: Collection[str], rows_per_step: int, start: int, say: Callable[[str], None]) -> None:
        """start: steps done before. say: prints a line; once per task."""
        self._rows = dict.fromkeys(tasks, 0)
        self._rows_per_step, self._start, self._say = rows_per_step, start, say
        self._look = _FIRST_LOOK

    def see(self, record: StepRecord) -> None:
        """Takes in the next record of training."""
        for task in self._rows:
            self._rows[task] += int(record.tasks[task]["rows"])
        trained = (record.step - self._start) * self._rows_per_step
        if trained < self._look and record.step != record.total_steps:
            return
        self._look = _NEXT_LOOK * trained
        for task in [task for task, rows in self._rows.items() if rows < _FEW * trained]:
            rows = self._rows.pop(task)
            self._say(
                f"tasks.{task} learns from {rows:,} of {trained:,} rows: the others have no label, or no weight above 0"
            )
