"""Sums, maxima and exchanges over ranks for metrics: each does nothing when one process runs alone.

Every rank calls them in the same order. Tensors stay on the device they are on, so the process group must serve that
device (NCCL for CUDA, gloo for CPU). `group=None` is the default group.
"""

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None


def ranks(group: Group = None) -> int:
    """Processes of the group; 1 where no process group was ever made."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(values: Tensor, group: Group = None) -> Tensor:
    """The sum of `values` over ranks, on every rank, in place."""
    if ranks(group) > 1:
        dist.all_reduce(values, op=dist.ReduceOp.SUM, group=group)
    return values


def max_over_ranks(values: Tensor, group: Group = None) -> Tensor:
    """The largest of `values` over ranks, on every rank, in place."""
    if ranks(group) > 1:
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=group)
    return values


def gather_over_ranks(values: Tensor, group: Group = None) -> Tensor:
    """[W, ...]: `values` of every rank, on every rank. All ranks pass the same shape."""
    world = ranks(group)
    if world == 1:
        return values[None]
    gathered = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(gathered, values.contiguous(), group=group)
    return torch.stack(gathered)


def exchange(rows: Tensor, destination: Tensor, group: Group = None) -> Tensor:
    """Send row i of `rows` [n, C] to rank `destination[i]`; returns the rows that came here, by rank of origin.

    Rows may be reordered on the way. Every rank holds its own rows and those that it receives, no more.
    """
    world = ranks(group)
    if world == 1:
        return rows
    sent = torch.bincount(destination, minlength=world)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=group)
    here = rows.new_empty((int(received.sum()), *rows.shape[1:]))
    dist.all_to_all_single(
        here,
        rows[torch.argsort(destination, stable=True)].contiguous(),
        output_split_sizes=received.tolist(),
        input_split_sizes=sent.tolist(),
        group=group,
    )
    return here
