"""What `inspect` says of a run as crashes leave it."""

import json
from pathlib import Path

import pytest

from configs.errors import UserError
from tests.trainer.run.test_run_directory import ONE
from trainer.checkpoint.marks import COMPLETE
from trainer.commands.inspect import describe
from trainer.run.run_directory import RunDirectory


def test_a_run_whose_metrics_end_in_half_a_line(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(ONE)
    strange = ['{"step": "9"}', "[9]", '"step"', "{}"]  # as another program might append
    lines = [*strange, *(json.dumps({"kind": "train", "step": step}) for step in (4, 8, 12))]
    run.metrics.write_text("\n".join(lines)[:-9])
    text, values = describe(str(run))
    assert values["step"] == 8
    assert "step: 8" in text


@pytest.mark.parametrize("content", ["{", "{}", None])
def test_a_checkpoint_that_is_damaged(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / COMPLETE
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"complete\.json"):
        describe(str(tmp_path))
