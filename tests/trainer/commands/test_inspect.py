"""What `inspect` says of a run as crashes leave it."""

import json
from pathlib import Path

from tests.trainer.run.test_run_directory import ONE
from trainer.commands.inspect import describe
from trainer.run.run_directory import RunDirectory


def test_a_run_whose_metrics_end_in_half_a_line(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(ONE)
    lines = [json.dumps({"kind": "train", "step": step}) for step in (4, 8, 12)]
    run.metrics.write_text("\n".join(lines)[:-9])
    text, values = describe(str(run))
    assert values["step"] == 8
    assert "step: 8" in text
