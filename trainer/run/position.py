"""How far a run is: what a checkpoint names, and every start begins from. Imports nothing."""

from typing import NamedTuple


class Position(NamedTuple):
    """Optimizer steps in all, the epoch, and the steps done in that epoch.

    The end of an epoch is the start of the next. A run that follows its data has one epoch, which grows.
    """

    step: int
    epoch: int
    epoch_step: int

    def after_step(self) -> "Position":
        return Position(self.step + 1, self.epoch, self.epoch_step + 1)

    def after_epoch(self) -> "Position":
        return Position(self.step, self.epoch + 1, 0)

    @property
    def trained_epoch(self) -> int:
        """The epoch of the last step."""
        return self.epoch - 1 if self.epoch_step == 0 and self.epoch else self.epoch
