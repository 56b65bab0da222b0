"""Folders, local and behind a URL, behave alike; small files are replaced at once."""

import os
import signal
import time

import pytest

from tests.fork_server import fork_server
from trainer.run.folder import Folder


@pytest.fixture(params=["local", "file", "memory"])
def folder(request, tmp_path):
    prefix = {"local": "", "file": "file://", "memory": "memory:/"}[request.param]
    return Folder(f"{prefix}{tmp_path}/a folder")


def test_files_come_back(folder):
    assert folder.names() == []
    folder.write_bytes("b.json", b"one")
    folder.write_bytes("b.json", b"two")
    with folder.writer("a.bin") as file:
        file.write(b"0123456789")
    assert folder.names() == ["a.bin", "b.json"]
    assert folder.read_bytes("b.json") == b"two"
    assert folder.size("a.bin") == 10
    with folder.reader("a.bin") as file:
        file.seek(4)
        assert file.read(3) == b"456"


def test_what_is_not_there_is_an_error_or_nothing_to_remove(folder):
    folder.make()
    for call in (folder.size, folder.read_bytes):
        with pytest.raises(FileNotFoundError):
            call("none")
    folder.remove("none")
    folder.child("none").remove_all()
    assert not folder.exists("none")


def test_rename_and_remove(folder):
    folder.write_bytes("a", b"x")
    folder.rename("a", "b")
    assert folder.names() == ["b"]
    folder.child("deeper").write_bytes("c", b"y")
    assert folder.names() == ["b", "deeper"]
    folder.remove("b")
    folder.child("deeper").remove_all()
    assert folder.names() == []


def test_its_name_opens_it_again(folder):
    folder.write_bytes("a", b"x")
    assert Folder(str(folder)).names() == ["a"]


def rewrite(path):
    for count in range(10**9):
        Folder(path).write_bytes("state", str(count % 10).encode() * 200_000)


def test_a_reader_never_sees_half_a_file_nor_does_a_crash_leave_one(tmp_path):
    process = fork_server().Process(target=rewrite, args=(tmp_path,), daemon=True)
    process.start()
    while not (tmp_path / "state").exists():
        time.sleep(0.01)
    seen, end = set(), time.monotonic() + 0.5
    while time.monotonic() < end or len(seen) < 3:
        content = (tmp_path / "state").read_bytes()
        assert len(content) == 200_000
        assert len(set(content)) == 1
        seen.add(content[0])
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    content = (tmp_path / "state").read_bytes()
    assert len(content) == 200_000
    assert len(set(content)) == 1
