"""Ranks of test_row_log_ranks.py: each trains as it is told, and compares the log with whole tables before and after.

A rank remembers of each row of its shards after which cut it was last looked up or marked, which is what the log says
in fewer bits; and fails if a row has changed that it does not remember so.
"""

import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

import embeddings.row_log
from configs.schema import Config
from embeddings.row_log import Reader, RowLog
from embeddings.tables import local_shards
from tests.embeddings.sharded_runs import (
    GLOBAL_BATCH_SIZE,
    TYPES,
    Run,
    batch,
    config,
    config_of_forms,
)

WHOLE_ROWS = {name: kind for name, kind in TYPES.items() if kind != "column_wise"}
CONFIGS: dict[str, Callable[[str], Config]] = {
    "every form": lambda kind: config_of_forms(kind, weighted=True),
    "no weights": lambda kind: config_of_forms(kind, weighted=False),
    "whole rows": lambda kind: config(WHOLE_ROWS, kind=kind),  # a rank alone looks them up by itself,
    "one group": lambda kind: config({"by_rows": "table_wise"}, kind=kind),  # and calls its only kernels directly
}


class Follower(NamedTuple):
    reader: Reader
    exact: list[bool]  # [whether it has taken no cut but the last one of its time]


class Rank:
    """A run, its log, and what the log should know."""

    def __init__(self, form: str, kind: str) -> None:
        self.run = Run(CONFIGS[form](kind))
        self.log = RowLog(self.run.model)
        self.seen = {name: [torch.full((len(part),), -1) for part, _ in at] for name, at in self._shards().items()}
        self.followers: list[Follower] = []

    def _shards(self) -> dict[str, list[tuple[Tensor, tuple[int, ...]]]]:
        weights = {
            name.split(".")[-2]: v for name, v in self.run.model.state_dict().items() if "embedding_bags" in name
        }
        return {name: list(local_shards(weight)) for name, weight in weights.items() if isinstance(weight, DTensor)}

    def play(self, script: Sequence[tuple[Any, ...]], last: int) -> str | None:
        """A script's steps, from new readers on, and what went wrong first; to the end, as others wait for this rank.

        last: windows that fit into a row's number.
        """
        embeddings.row_log.LAST, wrong = last, None
        for follower in self.followers:
            follower.reader.close()
        self.followers = [Follower(self.log.follow(), [True]) for _ in range(2)]
        for action, *arguments in script:
            try:
                getattr(self, action)(*arguments)
                for follower in self.followers:
                    self.compare(follower)
            except AssertionError:
                wrong = wrong or traceback.format_exc()
        return wrong

    def train(self, step: int) -> None:
        before = self._values()
        kjt, dense, labels = self.run.batch(step)
        self.run.optimizer.zero_grad()
        self.run.optimizer.set_learning_rates(sparse=0.1, dense=0.1)
        (self.run.model(kjt, dense) - labels).square().sum().backward()
        self.run.optimizer.step()
        self._looked_up(step)
        for name, values in self._values().items():
            for number, (old, new) in enumerate(zip(before[name], values, strict=True)):
                changed = (old != new).any(dim=1)
                table, part = name.split(".")[-2], number
                assert (self.seen[table][part][changed] == self.log.cut).all(), f"{name}, shard {part}: not looked up"

    def _values(self) -> dict[str, list[Tensor]]:
        """Of every sharded table and its optimizer state, by rows."""
        state = {name: value for name, value in self.run.state().items() if isinstance(value, DTensor)}
        return {
            name: [part.detach().clone().reshape(len(part), -1) for part, _ in local_shards(value)]
            for name, value in state.items()
            if name.split(".")[-2] in self.seen
        }

    def _looked_up(self, step: int) -> None:
        kjt, _, _ = batch(self.run.config, step, 0, GLOBAL_BATCH_SIZE)
        assert kjt is not None
        for name, feature in self.run.config.sparse_features.items():
            self._remember(feature.table, kjt[name].values())

    def _remember(self, table: str, rows: Tensor) -> None:
        for seen, (part, (first, *_)) in zip(self.seen.get(table, []), self._shards().get(table, []), strict=True):
            inside = rows[(rows >= first) & (rows < first + len(part))]
            seen[inside - first] = self.log.cut

    def evaluate(self, step: int) -> None:
        self.run.model.eval()
        with torch.no_grad():
            self.run.model(*self.run.batch(step)[:2])
        self.run.model.train()

    def mark(self, table: int, rows: list[int]) -> None:
        name = list(self.run.config.tables)[table % len(self.run.config.tables)]
        self.log.mark(name, torch.tensor(rows, dtype=torch.int64))
        self._remember(name, torch.tensor(rows, dtype=torch.int64))

    def cut(self, times: int) -> None:
        before = self.log.cut
        assert [self.log.take_cut() for _ in range(times)] == list(range(before + 1, self.log.cut + 1))

    def advance(self, reader: int, back: int) -> None:
        """To a cut that is some cuts old."""
        follower = self.followers[reader]
        cut = max(follower.reader.since, self.log.cut - back)
        follower.exact[0] = follower.exact[0] and cut in (self.log.cut, follower.reader.since)
        follower.reader.advance(cut)

    def compare(self, follower: Follower) -> None:
        changed = follower.reader.changed()
        assert changed.keys() == self.seen.keys()
        exact = follower.exact[0] or embeddings.row_log.LAST == 255
        for name, parts in changed.items():
            for seen, part in zip(self.seen[name], parts, strict=True):
                expected = (seen >= follower.reader.since).nonzero().squeeze(1)
                found = part if exact else part[torch.isin(part, expected)]
                assert torch.equal(found, expected), (name, follower, part, expected)
                assert (seen[part] >= 0).all(), (name, part)


def serve(connection: Connection, store: str, rank: int, world_size: int) -> None:
    """Answers each (form, kind, script, last) with None, or what went wrong."""
    os.environ["LOCAL_WORLD_SIZE"] = str(world_size)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    ranks: dict[tuple[str, str], Rank] = {}
    while (asked := connection.recv()) is not None:
        form, kind, script, last = asked
        if (form, kind) not in ranks:
            ranks[form, kind] = Rank(form, kind)
        connection.send(ranks[form, kind].play(script, last))
    os._exit(0)  # fbgemm's threads sometimes abort a normal exit
