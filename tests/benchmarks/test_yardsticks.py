"""The benchmarks of the step run to their end and print what scripts read. No time is judged."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.workers import FEW_ROWS, FORKSERVER

ROOT = Path(__file__).parents[2]
SMALL = ("model.expert_layers=[8,4]", "model.tower_layers=[4]")
PARTS_ALONE = {
    "tables forward",
    "join",
    "top forward",
    "loss",
    "top backward",
    "tables backward",
    "dense optimizer",
    "rest",
}
ALL_PARTS = PARTS_ALONE | {"input", "exchange of IDs", "exchange of rows"}
"""Of several workers, which exchange IDs and rows."""


def _call(module: str, arguments: list[str], output: str) -> None:
    from benchmarks import machine
    from trainer.data.reading.allocation import ALLOCATION

    os.environ.update(ALLOCATION)  # a new program would be started for them
    os.dup2(os.open(output, os.O_CREAT | os.O_WRONLY), 1)
    machine._COPY_MIB = 1, 1
    sys.argv = [module, *arguments]
    main: Callable[[], None] = __import__(module, fromlist=["main"]).main
    main()


def last_line(module: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """What `python -m module arguments --json` ends with."""
    output = folder / "output"
    process = FORKSERVER.Process(target=_call, args=(module, [*arguments, "--json"], str(output)))
    process.start()
    process.join(timeout=200)
    assert process.exitcode == 0
    return json.loads(output.read_text().splitlines()[-1])


def quickstart(folder: Path) -> list[str]:
    settings = (*FEW_ROWS, *SMALL, f"data.root={folder}/data")
    return [str(ROOT / "configs/quickstart.yaml"), *settings, "--steps", "1", "--rounds", "1"]


def test_a_step_has_a_share_of_the_limit_and_a_row_for_each_part(tmp_path: Path) -> None:
    found = last_line("benchmarks.roofline", quickstart(tmp_path), tmp_path)
    assert found["share_of_limit"] == pytest.approx(found["limit_ms"] / found["step_ms"])
    assert found["parts"].keys() >= PARTS_ALONE
    for part in PARTS_ALONE:
        assert found["parts"][part]["ms"] > 0, part
    for part in ("tables forward", "top forward", "top backward", "tables backward", "dense optimizer"):
        row = found["parts"][part]
        assert row["share"] == pytest.approx(row["limit_ms"] / row["ms"]), part
        assert row["limit_ms"] > 0, part
    assert sum(row["limit_ms"] for row in found["parts"].values()) == pytest.approx(found["limit_ms"])


def test_the_top_alone_has_a_share_of_the_limit(tmp_path: Path) -> None:
    found = last_line("benchmarks.roofline", ["top:reference", "--steps", "1", "--rounds", "1"], tmp_path)
    assert 0 < found["share_of_limit"] == pytest.approx(found["limit_ms"] / found["step_ms"])
    assert found["parts"]["dense optimizer"]["ms"] > 0


def test_the_step_is_compared_with_plain_pytorch_and_torchrec(tmp_path: Path) -> None:
    found = last_line("benchmarks.plain", [*quickstart(tmp_path), "--no-compile"], tmp_path)
    assert found["vs_plain"] == pytest.approx(found["plain_ms"] / found["ours_ms"])
    assert found["vs_torchrec"] == pytest.approx(found["torchrec_ms"] / found["ours_ms"])
    assert "vs_plain_compiled" not in found


@pytest.mark.slow
def test_the_plain_loop_is_compiled_where_that_works(tmp_path: Path) -> None:
    assert last_line("benchmarks.plain", quickstart(tmp_path), tmp_path)["vs_plain_compiled"] > 0


@pytest.mark.slow
def test_a_second_worker_has_a_cost_part_by_part(tmp_path: Path) -> None:
    found = last_line("benchmarks.roofline", [*quickstart(tmp_path), "--workers", "2"], tmp_path)
    assert {"speedup", "speedup_without_waiting", "ddp_speedup"} <= found.keys()
    assert found["parts"].keys() >= {*ALL_PARTS, "all-reduce", "step", "step, DDP's buckets"}
    row = found["parts"]["step"]
    assert row["cost_ms"] == pytest.approx(row["cpu_ms"] - row["share_ms"])
    assert row["waited_ms"] == pytest.approx(row["ms"] - row["cpu_ms"])
