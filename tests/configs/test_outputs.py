"""Where a command may write: what is not its own is never in danger, what is its own only by the flag."""

import os
from pathlib import Path
from typing import Literal

import pytest

from configs.errors import UserError
from configs.outputs import check_output, make_folder


def yes(path: Path) -> bool:
    return True


def test_a_free_place_and_an_empty_folder_are_fine(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "deep" / "out.parquet", "OUT", "file")
    check_output(tmp_path / "new", "OUT", "folder")
    check_output(tmp_path, "OUT", "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("made", ["file", "folder", "dangling link"])
def test_what_is_not_its_own_is_refused_with_any_flag(
    tmp_path: Path, kind: Literal["file", "folder"], made: str
) -> None:
    taken = tmp_path / "taken"
    if made == "file":
        taken.write_text("years of work")
    elif made == "folder":
        (taken / "thesis").mkdir(parents=True)
    else:
        taken.symlink_to("nowhere")
    for overwrite in (None, False, True):
        with pytest.raises(UserError) as refused:
            check_output(taken, "--out", kind, overwrite=overwrite)
        first, second = str(refused.value).splitlines()
        assert first.startswith(f"{taken} is there already")
        assert second == "give --out another name"


def test_its_own_is_replaced_by_the_flag_alone(tmp_path: Path) -> None:
    (tmp_path / "signature.json").write_text("{}")
    with pytest.raises(UserError, match=r"is there already\n--overwrite replaces it, or give --out another name"):
        check_output(tmp_path, "--out", "folder", is_own=yes, overwrite=False)
    with pytest.raises(UserError, match=r"\ngive --out another name"):
        check_output(tmp_path, "--out", "folder", is_own=yes)
    with pytest.raises(UserError, match=r"is there already, a folder\ngive"):
        check_output(tmp_path, "--out", "file", is_own=yes, overwrite=True)
    check_output(tmp_path, "--out", "folder", is_own=yes, overwrite=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=rf"deep/out cannot be written: {tmp_path}/file is not a folder"):
        check_output(tmp_path / "file" / "deep" / "out", "OUT", "file", is_own=yes, overwrite=True)
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        check_output(tmp_path / ("a" * 300), "OUT", "file")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=f"cannot be written: {tmp_path} is read-only, or not yours"):
        check_output(tmp_path / "new" / "out", "OUT", "file")
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written: {tmp_path} is read-only, or not yours"):
        check_output(tmp_path, "training.run_dir", "folder", is_own=yes, overwrite=True)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    make_folder(tmp_path / "new" / "deep", "--out")
    make_folder(tmp_path / "new" / "deep", "--out")
    assert (tmp_path / "new" / "deep").is_dir()
    with pytest.raises(UserError, match=r"/proc/x cannot be written: No such file.*: '?/proc/x'?\ngive --out another"):
        make_folder("/proc/x", "--out")
    with pytest.raises(UserError, match=r"/proc/x cannot be written: .*: '?/proc/\.x\.tmp'?\n"):
        make_folder("/proc/.x.tmp", "--out", "/proc/x")
