"""The record of what a run was started with."""

import json
import os
import socket
import subprocess
import sys

import trainer.run.environment as module
from trainer.run.environment import environment


def test_it_is_json_and_says_where_and_with_what():
    found = json.loads(json.dumps(environment()))
    assert found["host"] == socket.gethostname()
    assert found["folder"] == os.getcwd()
    assert found["command"][1:] == sys.orig_argv[1:]
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert found["packages"]["torch"].startswith("2.")
    assert 1 <= found["cpu"]["usable"] <= found["cpu"]["cores"]
    assert found["memory_gib"] > 0.1


def test_the_commit_of_the_code_is_that_of_its_checkout(tmp_path, monkeypatch):
    """A checkout made here: the one that the tests run in may be a copy without its history."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "code.py").write_text("one")
    assert environment_of(tmp_path, monkeypatch)["git"] is None, "an installed copy"
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "first")):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert len(commit) == 40
    assert environment_of(tmp_path, monkeypatch)["git"] == {"commit": commit, "changed": False}
    (tmp_path / "code.py").write_text("two")
    assert environment_of(tmp_path, monkeypatch)["git"] == {"commit": commit, "changed": True}


def environment_of(folder, monkeypatch):
    """As if the code lay in `folder`."""
    monkeypatch.setattr(module, "__file__", str(folder / "environment.py"))
    return environment()
