"""Losses of two presets, step for step, as they were when they were recorded: a change of layout or speed keeps them.

A change that is meant to move them records them anew, and says so: `python -m tests.trainer.test_golden_losses`.
Processors differ in the last bits, so equality is relative.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from configs.load import load_config
from configs.schema import Config
from tests.trainer.workers import FEW_ROWS, losses, train_on

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
STEPS = 30
PRESETS = {
    "quickstart": (),
    "ple": ("model.top=ple", "model.num_task_experts=2", "model.num_levels=2"),  # three tasks, as the quickstart has
}


def config_of(preset: str, folder: Path) -> Config:
    """The quickstart on few rows, without random numbers in the model."""
    return load_config(
        REPOSITORY / "configs" / "quickstart.yaml",
        [
            f"data.root={folder / 'data'}",
            *FEW_ROWS,
            f"training.run_dir={folder / 'run'}",
            "training.log_every=1",
            f"training.max_steps={STEPS}",
            *PRESETS[preset],
        ],
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_are_what_they_were(preset: str, tmp_path: Path) -> None:
    train_on(config_of(preset, tmp_path), 2)
    golden = json.loads((GOLDEN / f"{preset}.json").read_text())
    assert list(losses(tmp_path / "run")) == list(range(1, STEPS + 1))
    assert list(losses(tmp_path / "run").values()) == pytest.approx(golden, rel=1e-5)


def _record() -> None:
    for preset in PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            train_on(config_of(preset, Path(folder)), 2)
            values = list(losses(Path(folder) / "run").values())
        (GOLDEN / f"{preset}.json").write_text(json.dumps(values, indent=0) + "\n")


if __name__ == "__main__":
    sys.exit(_record())
