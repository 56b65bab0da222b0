"""Reads tables, weights of the top, and what optimizers keep of both, from a checkpoint into the state of a new run.

What is to be taken was decided before: `rows`, `top`. What an optimizer keeps comes along where the other run's kept
the same.
"""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from trainer.run import saved_names
from trainer.warm_start.saved import Saved
from trainer.warm_start.top import Copy

State = Mapping[str, Tensor]


class Taking:
    """
    Attributes:
        without_state: names, as a user knows them, of what is taken without what an optimizer kept of it.
        steps: of the dense optimizer that are behind it after `count_of_steps`.
    """

    def __init__(self, stored: Saved, state: State) -> None:
        self.without_state: set[str] = set()
        self.steps = 0
        self._stored, self._state = stored, state
        self._whole: dict[str, str] = {}  # parameter, as in the model -> where the other run has all of it

    def table(self, name: str, rows: int, rows_there: int) -> None:
        """The rows that this rank holds and the other run had."""
        parameter = _parameter(saved_names.table(name))
        weight = saved_names.table(name)
        self._stored.rows(weight, self._state[weight], rows_there)
        for saved, target in self._kept_of(parameter):
            of_rows = target.shape[0] == rows  # not where there is a number a row for each shard of columns
            count = rows_there if of_rows else target.shape[0]
            if (of_rows or rows == rows_there) and self._has(saved, (count, *target.shape[1:])):
                self._stored.rows(saved, target, count)
            else:
                self.without_state.add(f"tables.{name}")
        if rows == rows_there and f"tables.{name}" not in self.without_state:
            self._whole[parameter] = parameter

    def weight(self, name: str, copies: Sequence[Copy], *, is_whole: bool) -> None:
        """A weight of the top, whole or in part."""
        if not copies:
            return
        target, parameter = self._state[saved_names.top(name)], _parameter(saved_names.top(name))
        self._copy(target, copies, saved_names.top)
        for saved, kept in self._kept_of(parameter):
            kind = saved.removeprefix(saved_names.optimizer(parameter, ""))

            def there(source: str, kind: str = kind) -> str:
                return saved_names.optimizer(_parameter(saved_names.top(source)), kind)

            if kept.shape == target.shape and all(there(copy.source) in self._stored for copy in copies):
                self._copy(kept, copies, there)
            else:
                self.without_state.add(f"top.{name}")
        if is_whole and f"top.{name}" not in self.without_state:
            self._whole[parameter] = _parameter(saved_names.top(copies[0].source))

    def _copy(self, target: Tensor, copies: Sequence[Copy], saved_as: Callable[[str], str]) -> None:
        sources = {name: self._stored.whole(saved_as(name)) for name in {copy.source for copy in copies}}
        for copy in copies:
            target[copy.at].copy_(sources[copy.source][copy.source_at])

    def objective(self) -> None:
        """All of what a task balance keeps and learns, or nothing."""
        names = [name for name in self._state if _parameter(name).startswith(f"{saved_names.OBJECTIVE}.")]
        if all(self._has(name, tuple(self._state[name].shape)) for name in names):
            for name in names:
                if self._state[name].dim() or saved_names.is_weight(name):
                    self._state[name].copy_(self._stored.whole(name))
            parameters = {_parameter(name) for name in names}
            self._whole |= {parameter: parameter for parameter in parameters}

    def count_of_steps(self) -> None:
        """Adam's count, by which it corrects what it keeps: taken over only where it keeps all that it kept there.

        With a count of 0 what was taken over moves carefully at first (.15 to .8 of the usual steps, for about a
        thousand of them) and what is fresh as in any new run; with the other run's count, fresh weights would make
        steps of 3 to 6 times the learning rate.
        """
        counts = [name for name, value in self._state.items() if not value.dim() and not saved_names.is_weight(name)]
        sources = [self._count_there(name) for name in counts]
        if counts and all(sources):
            for name, source in zip(counts, sources, strict=True):
                self._state[name].copy_(self._stored.whole(source))
            self.steps = int(self._state[counts[0]])

    def _count_there(self, saved: str) -> str:
        """Where the other run has the count of a parameter that was taken whole; "" where that is not so."""
        parameter, kind = _parameter(saved), saved.rpartition("/")[2]
        there = saved_names.optimizer(self._whole[parameter], kind) if parameter in self._whole else ""
        return there if there in self._stored else ""

    def _kept_of(self, parameter: str) -> list[tuple[str, Tensor]]:
        """What optimizers keep of a parameter, but for counts."""
        prefix = saved_names.optimizer(parameter, "")
        return [(name, kept) for name, kept in self._state.items() if name.startswith(prefix) and kept.dim()]

    def _has(self, saved: str, size: tuple[int, ...]) -> bool:
        return saved in self._stored and self._stored.size(saved) == size


def _parameter(saved: str) -> str:
    """The name in the model of a weight, or of the parameter of which an optimizer keeps something."""
    section, _, rest = saved.partition("/")
    return rest if section == "model" else rest.rpartition("/")[0]
