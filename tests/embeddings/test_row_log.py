"""The row log of one worker: what it marks, cuts and readers, holds. test_row_log_ranks.py has several workers."""

import threading
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from embeddings.row_log import RowLog
from embeddings.row_stamps import RowStamps
from embeddings.tables import local_shards
from tests.embeddings.sharded_runs import GLOBAL_BATCH_SIZE, TYPES, Run, config

PREFIX = "model/tables.embedding_bags."


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def run() -> Run:
    return Run(config(TYPES))


def step(run: Run, number: int) -> None:
    kjt, dense, labels = run.batch(number)
    run.optimizer.zero_grad()
    (run.model(kjt, dense) - labels).square().sum().backward()
    run.optimizer.step()


def looked_up(run: Run, *steps: int) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for number in steps:
        kjt, _, _ = run.batch(number)
        assert kjt is not None
        for name, feature in run.config.sparse_features.items():
            found.setdefault(feature.table, set()).update(kjt[name].values().tolist())
    return found


def rows(changed: dict[str, list[torch.Tensor]], table: str) -> set[int]:
    """Of all column shards, which agree."""
    (found,) = {tuple(part.tolist()) for part in changed[table]}
    return set(found)


def test_a_step_marks_the_rows_it_looks_up_and_an_evaluation_none(run: Run) -> None:
    log = RowLog(run.model)
    reader = log.follow()
    assert not any(len(part) for parts in reader.changed().values() for part in parts)
    step(run, 1)
    with torch.no_grad():
        run.model(*run.batch(2)[:2])
    changed = reader.changed()
    expected = looked_up(run, 1)
    assert changed.keys() == TYPES.keys() - {"copied"}
    assert log.whole == {"copied"}
    assert {name: rows(changed, name) for name in changed} == {name: expected[name] for name in changed}
    assert all(part.dtype == torch.int64 for parts in changed.values() for part in parts)


def test_shards_come_in_the_order_of_the_state(run: Run) -> None:
    log, state = RowLog(run.model), run.state()
    changed = log.follow().changed()
    for name, parts in changed.items():
        assert len(parts) == len(list(local_shards(state[f"{PREFIX}{name}.weight"])))
    assert len(changed["by_columns"]) == 2


def test_readers_have_their_own_cuts(run: Run) -> None:
    log = RowLog(run.model)
    early, late = log.follow(), log.follow()
    step(run, 1)
    cut = log.take_cut()
    step(run, 2)
    late.advance(cut)
    assert rows(early.changed(), "whole") == looked_up(run, 1, 2)["whole"]
    assert rows(late.changed(), "whole") == looked_up(run, 2)["whole"]
    late.close()
    early.advance(log.take_cut())
    assert rows(early.changed(), "whole") == set()


def test_others_mark_rows_of_the_whole_table(run: Run) -> None:
    log = RowLog(run.model)
    reader = log.follow()
    log.mark("by_columns", torch.tensor([3, 49, 3]))
    log.mark("copied", torch.tensor([1]))
    changed = reader.changed()
    assert rows(changed, "by_columns") == {3, 49}
    assert rows(changed, "whole") == set()


def test_a_hold_lets_forward_passes_go_on_and_updates_wait(run: Run) -> None:
    log = RowLog(run.model)
    hold = log.hold()
    assert hold is not None
    before = run.whole_state()
    kjt, dense, labels = run.batch(1)
    loss = (run.model(kjt, dense) - labels).square().sum() / GLOBAL_BATCH_SIZE
    backward = threading.Thread(target=loss.backward)
    backward.start()
    backward.join(0.3)
    held = run.whole_state()
    assert backward.is_alive()
    assert all(torch.equal(before[name], held[name]) for name in before)
    hold.release()
    hold.release()
    backward.join(10)
    assert not backward.is_alive()
    after = run.whole_state()
    name = f"{PREFIX}by_rows.weight"
    assert not torch.equal(before[name], after[name])
    step(run, 2)  # nothing holds any more


def test_a_copy_that_fails_releases_its_hold(run: Run) -> None:
    hold = RowLog(run.model).hold()
    assert hold is not None
    with pytest.raises(OSError, match="full"), hold:
        raise OSError("full")
    step(run, 1)


def test_a_scan_amid_which_the_windows_are_renumbered_is_made_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    log, newer_than, interrupted = RowLog(run.model), RowStamps.newer_than, []
    reader = log.follow()
    for _ in range(20):
        log.take_cut()
    reader.advance(log.cut)
    log.mark("whole", torch.tensor([7]))

    def interrupt(stamps: RowStamps, number: int, starts: list[int]) -> list[torch.Tensor]:
        while len(interrupted) < 250:
            interrupted.append(log.take_cut())
        return newer_than(stamps, number, starts)

    monkeypatch.setattr(RowStamps, "newer_than", interrupt)
    assert rows(reader.changed(), "whole") == {7}
    assert len(interrupted) == 250


def test_a_scan_beside_marks_and_renumberings_lacks_no_row_marked_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embeddings.row_log.LAST", 4)
    small = config({"by_rows": "table_wise"})
    table = small.tables["by_rows"].model_copy(update={"num_embeddings": 200_000})  # a scan takes a while
    log = RowLog(Run(small.model_copy(update={"tables": {"by_rows": table}})).model)
    reader, marked, lacking, scans = log.follow(), 0, [], 0

    def scan() -> None:
        nonlocal scans
        while marked < 200:
            before = marked
            (found,) = reader.changed()["by_rows"]
            scans += 1
            if not torch.equal(found[:before], torch.arange(before)):
                lacking.append((before, found))

    scanning = threading.Thread(target=scan)
    scanning.start()
    for row in range(200):
        log.mark("by_rows", torch.tensor([row]))
        marked = row + 1
        log.take_cut()
    scanning.join()
    assert not lacking
    assert scans > 5
