"""The record of what a run was started with."""

import json
import os
import socket
import sys

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


def test_the_commit_of_the_code_is_a_hash_when_it_is_a_checkout():
    git = environment()["git"]
    assert git is None or (len(git["commit"]) == 40 and isinstance(git["changed"], bool))
