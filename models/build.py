"""Build what a config chooses of the dense part of a model: its top, with side towers where tasks have some, its
balance."""

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from configs import choices
from configs.choice_settings import settings_of
from configs.layout import InputLayout
from configs.schema import Config, ModelConfig, TaskConfig
from models.balance import BalanceModule
from models.balancing import Balance
from models.side_towers import WithSideTowers
from models.tops import TopModule


def top_of(config: Config) -> nn.Module:
    """The top of a run, for inputs laid out as config.input_layout; on any device, meta included.

    Raises:
        UserError: as `build_top`.
    """
    top = build_top(config.model, config.tasks, config.input_layout)
    if any(task.tower_features for task in config.tasks.values()):
        return WithSideTowers(top, config)
    return top


def build_top(model: ModelConfig, tasks: Mapping[str, TaskConfig], inputs: InputLayout) -> nn.Module:
    """The top `model.top` with its own settings, `model.options`; `models.tops` says what it returns.

    Raises:
        UserError: models/tops has no such module, it has no such setting, or a funnel leads nowhere.
    """
    module = choices.load("models.tops", model.top)
    settings = settings_of(module, model.options, "model.options")
    return cast(TopModule, module).build(settings, model, tasks, inputs)


def build_balance(name: str, tasks: Mapping[str, TaskConfig], options: Mapping[str, Any] | None = None) -> Balance:
    """The balance that `training.task_balance` names, with `training.task_balance_options`.

    Raises:
        UserError: models/balance has no such module, or it has no such setting.
    """
    module = choices.load("models.balance", name)
    settings = settings_of(module, options or {}, "training.task_balance_options")
    return cast(BalanceModule, module).build(settings, tasks)
