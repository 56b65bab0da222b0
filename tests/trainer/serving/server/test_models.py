"""Which versions a process has that starts when a newer bundle has taken an older one's place on disk."""

from pathlib import Path

import pytest

from configs.serve_config import ServeConfig
from tests.trainer.export.exported_runs import exported
from trainer.serving.server.board import Board
from trainer.serving.server.host import Host
from trainer.serving.server.models import _MOST_HALVES
from trainer.serving.server.refusals import RefusedError
from trainer.serving.server.state import first_state


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    folder = str(exported(tmp_path_factory.mktemp("models")))
    state = first_state([("ranker", folder)])
    (version,) = state["ranker"]["versions"]
    state["ranker"]["versions"] = {"1": {"folder": folder, "digest": "of what lay there before"}} | {
        version: state["ranker"]["versions"][version]
    }
    board = Board.create(1, 1)
    board.write(state)
    made = Host(ServeConfig(), board, 0)
    made.models.take(made.models.load(verify=False))
    return made


def test_the_older_version_is_not_answered_with_the_newer_bundle(host: Host) -> None:
    assert Path(host.models.find("ranker").bundle.folder).exists()
    with pytest.raises(RefusedError, match="no version '1'"):
        host.models.find("ranker", "1")


def test_sets_of_shared_columns_are_kept_in_bounds(host: Host) -> None:
    version = host.models.find("ranker")
    for number in range(3 * _MOST_HALVES):
        version.halves(frozenset({f"column {number}"}))
    assert len(version._halves) <= _MOST_HALVES
