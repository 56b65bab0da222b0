"""What a step costs at least is what torch counts of its products, without what nobody needs; rows and IDs by hand."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.step_costs import dense_optimizer_cost, table_cost, top_cost
from configs.layout import lay_out
from configs.schema import Config, ModelConfig, TaskConfig
from models.build import build_top
from trainer.data.reading.batch import Batch

ROWS, SPARSE, DENSE = 64, {"a": 8, "b": 8}, {"x": 8}
WIDTH, FED = 24, 16
TASKS = {"click": TaskConfig(), "like": TaskConfig()}


def top_on_meta(**settings: Any) -> nn.Module:
    with torch.device("meta"):
        return build_top(ModelConfig(**settings), TASKS, lay_out(SPARSE, DENSE))


def counted_by_torch(top: nn.Module) -> tuple[int, int]:
    """Operations of products, forward and backward, with a gradient for all columns of the input."""
    x = torch.empty(ROWS, WIDTH, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        logits = top(x)[0]
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


MMOE = {"num_experts": 3, "expert_layers": (20, 12), "gate_layers": (6,), "tower_layers": (10,)}
MIXING = 2 * ROWS * len(TASKS) * 3 * 12  # torch counts no multiplications and sums


def test_products_and_mixing_of_an_mmoe_are_counted_as_torch_counts_them() -> None:
    forward, backward = counted_by_torch(top_on_meta(**MMOE))
    cost = top_cost(top_on_meta(**MMOE), ROWS, WIDTH, WIDTH)
    assert (cost.forward.flops, cost.backward.flops) == (forward + MIXING, backward + 2 * MIXING)


def test_products_between_activations_are_counted() -> None:
    settings = {"top": "dlrm", "options": {"bottom_layers": (16, 8), "top_layers": (12, 6)}}
    forward, backward = counted_by_torch(top_on_meta(**settings))
    cost = top_cost(top_on_meta(**settings), ROWS, WIDTH, FED)
    raw_dense = 2 * ROWS * 8 * 16  # the bottom's first layer reads raw columns alone
    assert (cost.forward.flops, cost.backward.flops) == (forward, backward - raw_dense)


def test_no_gradient_is_counted_for_columns_that_no_table_feeds() -> None:
    whole, fed = (top_cost(top_on_meta(**MMOE), ROWS, WIDTH, columns).backward.flops for columns in (WIDTH, FED))
    first_layer = 3 * 20 + 2 * 6
    assert whole - fed == pytest.approx(2 * ROWS * first_layer * (WIDTH - FED))


def test_activations_move_once_each_way() -> None:
    cost = top_cost(top_on_meta(num_experts=3, expert_layers=(20, 12), tower_layers=()), ROWS, WIDTH, FED)
    columns = 3 * 20 + 2 * 3 + 3 * 12  # first layers of experts and gates, second layers
    mixed = 2 * 3 + 2 * 12  # weights of the gates, mixtures
    assert cost.forward.bytes == 4 * ROWS * (columns + mixed + 2 * 1 + (WIDTH - FED))
    assert cost.backward.bytes == 4 * ROWS * (columns + mixed + 2 * 1 + WIDTH)


def test_distinct_rows_move_with_their_optimizer_state() -> None:
    config = Config.model_validate(
        {
            "data": {"root": "nowhere", "global_batch_size": 2},
            "features": {"a": {"table": "t"}, "b": {"table": "t"}, "x": {"transform": "log1p"}},
            "tables": {"t": {"num_embeddings": 10, "embedding_dim": 8}},
            "tasks": {"click": {}},
            "training": {"run_dir": "nowhere"},
        }
    )
    sparse = KeyedJaggedTensor(
        keys=["a", "b"], values=torch.tensor([1, 2, 2, 3, 3]), lengths=torch.tensor([1, 1, 2, 1])
    )
    batch = Batch(sparse, torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, 1), (0, 0))
    forward, backward = table_cost(config, [batch])
    ids, rows, pooled = 5 * 8 + 4 * 4, 3 * 8 * 4, 2 * 16 * 4
    assert forward.bytes == ids + rows + pooled
    assert backward.bytes == ids + pooled + 2 * (rows + 3 * 4), "row-wise Adagrad has a number a row"


def test_adam_reads_and_writes_a_parameter_and_two_numbers_and_reads_the_gradient() -> None:
    assert dense_optimizer_cost(10, "adam").bytes == 10 * 4 * 7
