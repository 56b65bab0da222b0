"""Fixed task weights, `tasks.<name>.weight`, from the first step to the last."""

from collections.abc import Mapping

from configs.choice_settings import ChoiceSettings
from configs.schema import TaskConfig
from models.balancing import Balance


def build(settings: ChoiceSettings, tasks: Mapping[str, TaskConfig]) -> Balance:
    return Balance(tasks)
