"""Which folders count as checkpoints, and which are deleted."""

import subprocess
import sys
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import CheckpointConfig
from trainer.checkpoint.chain import State
from trainer.checkpoint.files import Checkpoint, find, folder_name, problems, read_complete, write_complete
from trainer.checkpoint.upkeep import Upkeep
from trainer.file_record import FileRecord, checksum
from trainer.run.folder import Folder
from trainer.run.position import Position


def make(directory, step, complete=True):
    folder = directory.child(folder_name(step))
    folder.write_bytes("rank_00000_aa.bin", b"values")
    checkpoint = Checkpoint(
        folder=folder,
        position=Position(step, 1, 2),
        world_size=4,
        facts={"config": "abc"},
        extra={"extra/seen": [1, {"a": None}]},
        files={"rank_00000_aa.bin": FileRecord(6, checksum(b"values"))},
    )
    if complete:
        return replace(checkpoint, digest=write_complete(checkpoint))
    return checkpoint


def test_complete_json_says_what_was_written(tmp_path):
    written = make(Folder(tmp_path), 12)
    read = read_complete(written.folder)
    assert replace(read, folder=written.folder) == written
    assert problems(read) == {}


def test_no_bit_of_complete_json_can_flip_unseen(tmp_path):
    written = make(Folder(tmp_path), 12)
    path = tmp_path / folder_name(12) / "complete.json"
    content, seen = path.read_bytes(), 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            harmless = replace(read_complete(written.folder), folder=written.folder)
        except ValueError:
            seen += 1
        else:
            assert harmless == written, f"a flip at byte {position} changed what is read"
    assert seen > 0.7 * len(content), "the rest is white space"


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 12), st.booleans(), max_size=8), st.integers(1, 12), st.integers(1, 4))
def test_pruning_keeps_the_newest_complete_and_what_is_later(there, step, keep):
    directory = Folder("memory://prune")
    directory.remove_all()
    for one, complete in there.items():
        make(directory, one, complete)
    directory.write_bytes("step_of_mine.txt", b"not a checkpoint")
    saved, there = make(directory, step), there | {step: True}
    newest = sorted((one for one, complete in there.items() if complete and one <= step), reverse=True)[:keep]
    expected = {*newest, *(one for one in there if one > step)}
    Upkeep(directory, CheckpointConfig(keep=keep), print).after_base(State(saved))
    assert set(directory.names()) == {folder_name(one) for one in expected} | {"step_of_mine.txt"}
    found, damaged = find(directory)
    assert [one.step for one in found] == sorted((one for one in expected if there[one]), reverse=True)
    assert damaged == {}


def test_steps_beyond_nine_digits_stay_in_order(tmp_path):
    for step in (999_999_999, 1_000_000_000, 7):
        make(Folder(tmp_path), step)
    assert [one.step for one in find(Folder(tmp_path))[0]] == [1_000_000_000, 999_999_999, 7]


def test_torch_is_not_imported():
    code = "import sys, trainer.checkpoint.files, trainer.run.run_directory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
