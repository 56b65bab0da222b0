"""Rows that are looked up and trained without fbgemm's own forward pass are fbgemm's."""

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor

from configs import formulations
from embeddings.cpu_lookup import CpuLookup, try_updates

FEATURES, BAGS = 4, 6
KINDS = [EmbOptimType.EXACT_ROWWISE_ADAGRAD, EmbOptimType.EXACT_ADAGRAD, EmbOptimType.EXACT_SGD]


@pytest.fixture(autouse=True)
def nothing_chosen():
    formulations.follow({})
    yield
    formulations.follow({})


def tables(kind: EmbOptimType) -> SplitTableBatchedEmbeddingBagsCodegen:
    """Three of them; the second, of another width, is read by two features."""
    made = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, width, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows, width in ((100, 8), (50, 4), (70, 8))],
        feature_table_map=[0, 1, 1, 2],
        optimizer=kind,
        learning_rate=0.1,
        eps=1e-8,
    )
    torch.manual_seed(1)
    made.weights_host.data.uniform_(-1, 1)
    return made


def bags(*, weighted: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """IDs, offsets, weights: bags of none to three, with IDs that come more than once."""
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), torch.randint(0, 4, (FEATURES * BAGS,)).cumsum(0)])
    count = int(offsets[-1])
    return torch.randint(0, 20, (count,)), offsets, torch.rand(count, requires_grad=True) if weighted else None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", ["compiled", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_fbgemms(kind, kernel, weighted):
    formulations.follow({"update of rows": kernel})
    own, other = tables(kind), tables(kind)
    lookup = CpuLookup(own)
    for _ in range(3):
        indices, offsets, weights = bags(weighted=weighted)
        got, want = lookup(indices, offsets, weights, room=3), other(indices, offsets, weights)
        torch.testing.assert_close(got[:, :-3], want)
        grad = torch.randn_like(want)
        got.backward(torch.cat([grad, torch.full((BAGS, 3), torch.nan)], dim=1))
        want.backward(grad)
        torch.testing.assert_close(own.weights_host, other.weights_host)
        torch.testing.assert_close(own.momentum1_host, other.momentum1_host)


def test_weights_of_ids_get_no_gradient():
    indices, offsets, weights = bags(weighted=True)
    CpuLookup(tables(EmbOptimType.EXACT_SGD))(indices, offsets, weights).sum().backward()
    assert weights is not None
    assert weights.grad is None


def test_nothing_is_trained_where_autograd_is_off():
    own = tables(EmbOptimType.EXACT_SGD)
    before = own.weights_host.detach().clone()
    with torch.no_grad():
        assert not CpuLookup(own)(*bags(weighted=False)).requires_grad
    assert torch.equal(own.weights_host, before)


def test_kernels_are_measured():
    with formulations.measuring():
        try_updates(8)
    assert formulations.followed().keys() == {"update of rows"}
