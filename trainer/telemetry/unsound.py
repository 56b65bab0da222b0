"""Which steps had a loss that was NaN or infinite: such a run is stopped, or such a step is left out.

A step costs nothing here: whether its loss was a number stays on the device until a log line, or until numbers are
found in a state that was to be saved (`trainer.checkpoint.finite`). Leaving a step out is `trainer.skipping`'s
business.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from configs.errors import TryAgain, UserError
from configs.schema import TrainingConfig
from trainer.data.reading.origin import Largest
from trainer.data.reading.reader import Reader
from trainer.ranks.collectives import gather_over_ranks
from trainer.run.diverged import DivergedError
from trainer.run.position import Position
from trainer.run.saved_names import extra
from trainer.telemetry.divergence import First, refuse_divergence
from trainer.telemetry.records import SKIPPED_STEPS, StepRecord

_SAVED_AS = extra("skipped_steps")
_NONE = 2**62  # a step that no run reaches
_IN_A_ROW = 100  # steps left out, after which it is not the rows


class UnsoundSteps:
    """The steps since the last log line, and how many were left out in all.

    Attributes:
        is_skipping: whether steps are left out; the ranks agree on each of them then.
    """

    def __init__(
        self, training: TrainingConfig, device: torch.device, saved: Mapping[str, Any], say: Callable[[str], None]
    ) -> None:
        """saved: JSON values of the checkpoint that the run resumes from."""
        self.is_skipping = training.non_finite == "skip"
        self._training, self._device, self._say = training, device, say
        self._before = int(saved.get(_SAVED_AS, 0))
        self._in_a_row = 0
        self._has_looked = False
        self._steps: list[int] = []
        self._is_sound: list[Tensor] = []

    def add(self, step: int, is_sound: Tensor) -> None:
        """is_sound: [], on the device."""
        self._steps.append(step)
        self._is_sound.append(is_sound)

    @property
    def state(self) -> dict[str, Any]:
        """Steps left out by now, as a part of a checkpoint's state; nothing where there is none."""
        count = self._before + (len(self._found()) if self.is_skipping else 0)
        return {_SAVED_AS: count} if count else {}

    def scalars(self) -> dict[str, float]:
        """Tag -> steps left out by now."""
        return {SKIPPED_STEPS: float(self._before + len(self._found()))} if self.is_skipping else {}

    def close(self, record: StepRecord, at: Position, reader: Reader) -> None:
        """Ends the window, of which `record` is; all ranks together.

        Raises:
            DivergedError: the loss was not a number, and its step was not left out; or no step has a loss any more.
        """
        if self.is_skipping:
            self._tell(at, reader)
        elif not math.isfinite(record.objective):
            refuse_divergence(record, self._training, self._first(at, reader))
        self._steps, self._is_sound = [], []

    def explained(self, error: DivergedError, at: Position, reader: Reader) -> DivergedError:
        """`error`, of a state that all ranks refuse together, with the step of this window that it came from."""
        first = None if self.is_skipping else self._first(at, reader)
        if first is None:
            return error
        what, _, advice = str(error).partition("\n")
        return DivergedError(f"{what}; the loss was not finite since {first}\n{advice}")

    def close_run(self, steps: int) -> None:
        """Says how much of a run of so many steps was left out."""
        if self.is_skipping and self._before:
            self._say(f"{self._before:,} of {steps:,} steps were left out, as their loss was not finite")

    def _tell(self, at: Position, reader: Reader) -> None:
        found = self._found()
        self._before += len(found)
        for step in self._steps:
            self._in_a_row = self._in_a_row + 1 if step in found else 0
        if first := self._first(at, reader) if found else None:
            more = f", {len(found):,} steps" if len(found) > 1 else ""
            self._say(f"left out, as the loss was not finite{more}: {first}")
        if self._in_a_row >= _IN_A_ROW:
            raise DivergedError(
                f"step {at.step:,}: the loss was not finite in the last {self._in_a_row:,} steps: training has "
                "diverged\n"
                "It is not a few rows: resume with lower learning rates, from an older checkpoint if need be."
            )

    def _first(self, at: Position, reader: Reader) -> First | None:
        """Over all ranks, which call this together. at: the end of the window."""
        mine = torch.tensor(min(self._found(), default=_NONE), device=self._device)
        firsts = gather_over_ranks(mine).tolist()
        step = min(firsts)
        if step == _NONE:
            return None
        ranks = [rank for rank, one in enumerate(firsts) if one == step]
        epoch_step = at.epoch_step - (at.step - step) - 1
        return First(step, reader.origin(at.epoch, epoch_step, ranks), self._largest(at.epoch, epoch_step, reader))

    def _largest(self, epoch: int, epoch_step: int, reader: Reader) -> str:
        """Over all ranks. Their batches are read again, so only once: where a run stops, or first leaves one out."""
        if self._has_looked:
            return ""
        self._has_looked = True
        try:
            mine = reader.largest(epoch, epoch_step)
        except (UserError, TryAgain, OSError):  # what is to be said is more important
            mine = None
        numbers = torch.tensor(mine or (0, 0, -1, 0), dtype=torch.float64, device=self._device)
        found = [row for row in gather_over_ranks(numbers).tolist() if row[2] >= 0]
        if not found:
            return ""
        value, place, row_group, row = max(found, key=lambda row: abs(row[0]))
        return reader.where(Largest(value, int(place), int(row_group), int(row)))

    def _found(self) -> list[int]:
        """Steps of the window whose loss was not a number, as this rank knows."""
        if not self._steps:
            return []
        sound = torch.stack(self._is_sound).tolist()
        return [step for step, is_sound in zip(self._steps, sound, strict=True) if not is_sound]
