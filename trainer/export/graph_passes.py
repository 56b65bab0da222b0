"""What a traced graph computes, written so that a compiler makes less of it: copies that need not be."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import fx

_END = 2**63 - 1  # of a slice that ends with its tensor
_WHOLE = (0, 0, _END)  # dim, start and end of a slice, where they are left out
aten = torch.ops.aten


def see_through_cats(graph: fx.GraphModule) -> None:
    """What takes whole blocks back out of blocks side by side, as a top does that computes on the tables' vectors
    alone, gets the blocks: copying them there and back costs as much as a matrix product."""
    for node in list(graph.graph.nodes):
        if node.target is not aten.slice.Tensor:
            continue
        source, dim, start, end = cast(tuple[fx.Node, int, int, int], (*node.args, *_WHOLE[len(node.args) - 1 :]))
        if start == 0 and end == _END:
            node.replace_all_uses_with(source)
        elif dim == 1 and source.target is aten.cat.default and source.args[1:] == (1,):
            blocks = _blocks_between(cast(Sequence[fx.Node], source.args[0]), start, end)
            if blocks:
                with graph.graph.inserting_before(node):
                    found = blocks[0] if len(blocks) == 1 else graph.graph.call_function(aten.cat.default, (blocks, 1))
                found.meta.setdefault("val", node.meta["val"])
                node.replace_all_uses_with(found)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _blocks_between(blocks: Sequence[fx.Node], start: int, end: int) -> list[fx.Node]:
    """Those of `blocks` side by side that fill the columns [start, end); none if it cuts one."""
    edges = [0, *accumulate(block.meta["val"].shape[1] for block in blocks)]
    end = min(end, edges[-1])
    return list(blocks[edges.index(start) : edges.index(end)]) if {start, end} <= set(edges) else []


def add_biases_apart(graph: fx.GraphModule) -> None:
    """A product's bias is added to it, by the kernel that applies what follows: inside the product it would first be
    copied to every row of the result.

    It is subtracted, negative: Inductor puts what is added to a product back into it.
    """
    for node in list(graph.graph.nodes):
        parts = _biased_product(node)
        if parts is None:
            continue
        product, left, right, bias = parts
        with graph.graph.inserting_before(node):
            if node.target is aten.linear.default:
                right = _call(graph, aten.t.default, right)
            found = _call(
                graph, aten.sub.Tensor, _call(graph, product, left, right), _call(graph, aten.neg.default, bias)
            )
        node.replace_all_uses_with(found)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _biased_product(node: fx.Node) -> tuple[Any, Any, Any, Any] | None:
    """(its operator without bias, left, right, bias) of a product with a bias."""
    if node.kwargs or len(node.args) != 3:
        return None
    first, second, third = cast(tuple[fx.Node, fx.Node, fx.Node], node.args)
    if node.target is aten.linear.default and first.meta["val"].dim() == 2:
        return aten.mm.default, first, second, third
    if node.target is aten.addmm.default:
        return aten.mm.default, second, third, first
    if node.target is aten.baddbmm.default:
        return aten.bmm.default, second, third, first
    return None


def _call(graph: fx.GraphModule, operator: Any, *args: fx.Node) -> fx.Node:
    node = graph.graph.call_function(operator, args)
    node.meta["val"] = operator(*(arg.meta["val"] for arg in args))
    return node
