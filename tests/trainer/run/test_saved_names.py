"""The names that a checkpoint uses are those of the modules that are saved."""

import torch
from torch import nn

from configs.schema import Config
from embeddings.tables import build_tables
from models.build import top_of
from tests.trainer.data import rows
from trainer.objective import Objective
from trainer.ranker import Ranker
from trainer.run import saved_names


def test_every_tensor_of_a_ranker_has_the_name_of_its_part() -> None:
    config = Config(
        data={"root": "data"}, features=rows.FEATURES, tables=rows.TABLES, tasks=rows.TASKS, training={"run_dir": "run"}
    )
    top: nn.Module = top_of(config)
    ranker = Ranker(build_tables(config, torch.device("cpu")), config, top, Objective(config, 1))
    saved = {saved_names.model(name) for name in ranker.state_dict()}
    of_tables = {saved_names.table(name) for name in {f.table for f in config.sparse_features.values()}}
    of_top = {saved_names.top(name) for name in top.state_dict()}
    assert of_tables <= saved
    assert of_top <= saved
    assert {name for name in saved if saved_names.name_in_top(name) is not None} == of_top
    assert {saved_names.name_in_top(name) for name in of_top} == set(top.state_dict())
    assert {name for name in ranker.state_dict() if saved_names.is_in_tables(name)} == {
        name.removeprefix("model/") for name in of_tables
    }
    assert {saved_names.section(name) for name in saved} == {"model"}
