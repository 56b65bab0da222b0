"""Where `evaluate` writes when the run's folder cannot be written to."""

import os
from pathlib import Path

import pytest

from trainer.commands import evaluate


def test_logs_go_elsewhere_only_where_they_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate._elsewhere(tmp_path) is None
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    folder = evaluate._elsewhere(tmp_path)
    assert folder is not None
    assert folder.is_dir()
    assert tmp_path not in folder.parents
    folder.rmdir()
