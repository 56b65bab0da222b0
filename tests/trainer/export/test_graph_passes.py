"""Graphs are rewritten before they are compiled, and compute the same."""

import torch
from torch import nn
from torch.export import Dim

from models.tops.dlrm import below_diagonal
from trainer.export.graph_passes import add_biases_apart

aten = torch.ops.aten


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 4, bias=False), nn.Linear(4, 4)
        self.weight, self.bias = nn.Parameter(torch.randn(3, 4, 2)), nn.Parameter(torch.randn(3, 1, 2))

    def forward(self, x):
        x = self.second(torch.relu(self.first(x)))
        x = torch.addmm(self.third.bias, x, self.third.weight.t())
        return torch.baddbmm(self.bias, x.expand(3, -1, -1), self.weight)


def targets(exported):
    return [node.target for node in exported.graph.nodes if node.op == "call_function"]


def test_biases_are_added_apart():
    module, x = Products(), torch.randn(5, 6)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: Dim("rows")},), strict=False)
    assert {aten.addmm.default, aten.baddbmm.default} < set(targets(exported))
    add_biases_apart(exported.graph_module)
    found = targets(exported)
    assert not {aten.addmm.default, aten.baddbmm.default} & set(found)
    assert [found.count(kind) for kind in (aten.linear.default, aten.mm.default, aten.bmm.default)] == [1, 2, 1]
    for rows in (1, 7):
        x = torch.randn(rows, 6)
        torch.testing.assert_close(exported.module()(x), module(x), atol=1e-6, rtol=0)


def test_pairs_of_dlrm_are_slices_in_a_program():
    vectors = torch.randn(5, 4, 3)

    class Pairs(nn.Module):
        def forward(self, x):
            return torch.cat(below_diagonal(torch.bmm(x, x.mT)), dim=1)

    expected = Pairs()(vectors)
    torch.testing.assert_close(
        expected[:, 3], (vectors[:, 3] * vectors[:, 0]).sum(dim=1)
    )  # after (1, 0), (2, 0), (2, 1)
    exported = torch.export.export(Pairs(), (vectors,), dynamic_shapes=({0: Dim("rows")},), strict=False)
    assert aten.index.Tensor not in targets(exported)
    assert torch.equal(exported.module()(vectors), expected)
