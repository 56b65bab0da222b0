"""The task balances that `training.task_balance` names: one module each, with `build` and `Settings` if it has any.

One that combines the tasks' gradients, which needs a top whose tasks share something, says `COMBINES = True`. What a
balance is: `models.balancing`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from configs.schema import TaskConfig
from models.balancing import Balance


class BalanceModule(Protocol):
    """What a module of this package has."""

    def build(self, settings: Any, tasks: Mapping[str, TaskConfig], /) -> Balance: ...
