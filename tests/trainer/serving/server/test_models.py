"""Which versions a process has: one that starts when bundles were replaced on disk, and one that is given damage."""

import shutil
from http.client import HTTPConnection
from pathlib import Path

import pytest

from configs.errors import UserError
from configs.serve_config import ServeConfig
from tests.trainer.export.exported_runs import exported, save
from tests.trainer.serving.server.running import running
from trainer.serving.server.board import Board
from trainer.serving.server.host import Host
from trainer.serving.server.models import _MOST_HALVES
from trainer.serving.server.refusals import RefusedError
from trainer.serving.server.state import first_state, request_load
from trainer.serving.signature import WEIGHTS


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
    made.begin(verify=False)
    return made


def test_the_older_version_is_not_answered_with_the_newer_bundle(host: Host) -> None:
    assert Path(host.models.find("ranker").bundle.folder).exists()
    with pytest.raises(RefusedError, match="no version '1'"):
        host.models.find("ranker", "1")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Bundles of steps 7 and 9, and one of step 9 whose weights are damaged (0)."""
    folder = tmp_path_factory.mktemp
    made = {7: exported(folder("7")), 9: exported(folder("9"), after=lambda config: save(config, step=9))}
    made[0] = Path(shutil.copytree(made[9], folder("damaged") / "bundle"))
    with (made[0] / WEIGHTS).open("r+b") as file:
        file.write(bytes([255]) * 100)
    return made


@pytest.fixture
def current(steps: dict[int, Path], tmp_path: Path) -> Path:
    """A link to the bundle of step 7."""
    link = tmp_path / "current"
    link.symlink_to(steps[7])
    return link


def point(link: Path, folder: Path) -> None:
    link.unlink()
    link.symlink_to(folder)


def board_of(folder: Path) -> Board:
    board = Board.create(1, 1)
    board.write(first_state([("ranker", str(folder))]))
    return board


def begun(board: Board) -> Host:
    host = Host(ServeConfig(), board, 0)
    host.begin(verify=False)
    return host


def test_a_damaged_bundle_is_refused_and_the_next_one_is_served(steps: dict[int, Path], current: Path) -> None:
    with running(("ranker", str(current)), repository_control=True) as server:

        def load() -> tuple[int, str]:
            connection = HTTPConnection(server.http, timeout=60)
            connection.request("POST", "/v2/repository/models/ranker/load", b"{}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        for _ in range(2):
            point(current, steps[0])
            status, text = load()
            assert (status, server.host.models.find("ranker").version) == (400, "7")
            assert "'ranker' stays as it is" in text
            assert f"{WEIGHTS} is damaged" in text
        point(current, steps[9])
        assert load()[0] == 200
        assert server.host.models.find("ranker").version == "9"


def test_a_process_that_starts_after_a_damaged_bundle_serves_what_the_others_do(
    steps: dict[int, Path], current: Path
) -> None:
    board = board_of(current)
    point(current, steps[0])
    request_load(board, "ranker")
    assert begun(board).models.find("ranker").version == "7"


def test_damage_from_the_beginning_is_an_error(steps: dict[int, Path]) -> None:
    with pytest.raises(UserError, match=f"{WEIGHTS} is damaged"):
        begun(board_of(steps[0]))


def test_a_way_back_holds_for_a_process_that_starts_later(steps: dict[int, Path], current: Path) -> None:
    board = board_of(current)
    point(current, steps[9])
    request_load(board, "ranker")
    request_load(board, "ranker", "7")
    models = begun(board).models
    assert {name: models.find("ranker", name).bundle.signature.source.step for name in ("", "7", "9")} == {
        "": 7,
        "7": 7,
        "9": 9,
    }


def test_a_bundle_that_was_overwritten_is_served_under_its_own_number(steps: dict[int, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(steps[7], folder)
    board = board_of(folder)
    shutil.rmtree(folder)
    shutil.copytree(steps[9], folder)
    models = begun(board).models
    assert (models.find("ranker").version, models.versions("ranker")) == ("9", ["9"])
    assert models.find("ranker").bundle.signature.source.step == 9


def test_sets_of_shared_columns_are_kept_in_bounds(host: Host) -> None:
    version = host.models.find("ranker")
    for number in range(3 * _MOST_HALVES):
        version.halves(frozenset({f"column {number}"}))
    assert len(version._halves) <= _MOST_HALVES
