"""A chain of links of a real run, by two workers, and everything that can happen to its files.

What each state must be is known from the same run with a whole checkpoint at every step.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.arrow import ArrowFSWrapper
from torch import Tensor

from configs.errors import UserError
from configs.schema import CheckpointConfig
from tests.trainer.checkpoint.whole_tensors import read_tensors
from tests.trainer.data.object_store import BUCKET, ObjectStore, object_store
from tests.trainer.test_train import small
from tests.trainer.workers import train_on
from trainer.checkpoint import files
from trainer.checkpoint.attempts import Attempt, SupersededError, claim
from trainer.checkpoint.chain import State, all_states
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.link_files import Link, drop_whole, link_folders, write_link
from trainer.checkpoint.merge import command, merge
from trainer.checkpoint.there import newest_by_marks, there
from trainer.checkpoint.upkeep import Upkeep
from trainer.commands.inspect import describe
from trainer.run.folder import Folder

LAST = 30
OPTIONS = (
    f"training.max_steps={LAST}",
    "training.log_every=7",
    "tables.hour.sharding=data_parallel",
    "checkpoint.every_steps=0",
)


@pytest.fixture(scope="module")
def truth(data: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Tensor]]:
    """Every second step -> all tensors."""
    run_dir = tmp_path_factory.mktemp("truth")
    train_on(small(data, run_dir / "run", *OPTIONS, "checkpoint.every_steps=2", "checkpoint.keep=99"), 2)
    bases, _ = files.find(Folder(run_dir / "run" / "checkpoints"))
    return {base.step: read_tensors(base) for base in bases}


@pytest.fixture(scope="module")
def run_dir(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a link every second step: a base at 2, links at 4, 6, ... 30, and bases merged of them, one at 30."""
    folder = tmp_path_factory.mktemp("links") / "run"
    train_on(small(data, folder, *OPTIONS, "checkpoint.delta_every_steps=2", "checkpoint.keep=99"), 2)
    return folder


@pytest.fixture
def checkpoints(run_dir: Path, tmp_path: Path) -> Folder:
    """A copy with its first base alone, and with whole parts where they stay when nothing is merged meanwhile."""
    copied = Folder(shutil.copytree(run_dir / "checkpoints", tmp_path / "checkpoints"))
    for step in files.steps_of(copied):
        if step != 2:
            shutil.rmtree(Path(copied.path) / files.folder_name(step))
    for link in there(copied).links:
        if link.step < LAST - 4:
            drop_whole(link)
    return copied


def newest(checkpoints: Folder) -> State:
    state, _ = look(checkpoints)
    return state


def look(checkpoints: Folder) -> tuple[State, list[str]]:
    """The state that a start takes, and what it says."""
    said: list[str] = []
    checkpointer = Checkpointer(str(checkpoints), CheckpointConfig(), {})
    checkpointer.say = said.append
    state = checkpointer.newest_complete()
    assert state is not None
    return state, said


def links(checkpoints: Folder) -> list[Link]:
    state = newest_by_marks(checkpoints)
    assert state is not None
    return list(state.links)


def assert_is(checkpoints: Folder, state: State, truth: dict[int, dict[str, Tensor]]) -> None:
    """Merged, the state has every bit of that step."""
    found, expected = read_tensors(merge(checkpoints, state, Attempt(checkpoints, 0))), truth[state.step]
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_base_and_links_are_a_whole_checkpoint_bit_for_bit(
    checkpoints: Folder, truth: dict[int, dict[str, Tensor]]
) -> None:
    found = there(checkpoints)
    states = all_states(found.bases, found.links, found.went_on_from)
    assert [state.step for state in states] == [2, 26, 28, 30]
    assert [len(state.links) for state in states] == [0, 12, 13, 14]
    for state in states:
        assert_is(checkpoints, state, truth)


def test_the_end_of_a_run_is_a_base(run_dir: Path, truth: dict[int, dict[str, Tensor]]) -> None:
    state = newest(Folder(run_dir / "checkpoints"))
    assert (state.base.step, state.links, state.base.merged_from is not None) == (LAST, (), True)
    tensors = read_tensors(state.base)
    assert [name for name in truth[LAST] if not torch.equal(tensors[name], truth[LAST][name])] == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES: dict[str, Callable[[Path], None]] = {"bit flip": flip, "cut": cut, "missing": Path.unlink}


@pytest.mark.parametrize("what", ["rows_00000_*.bin", "rows_00001_*.bin", "complete.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_link_ends_the_chain_before_it(
    checkpoints: Folder, truth: dict[int, dict[str, Tensor]], what: str, damage: str
) -> None:
    link = next(link for link in links(checkpoints) if link.step == 30)
    (path,) = Path(link.folder.path).glob(what)
    DAMAGES[damage](path)
    state, said = look(checkpoints)
    assert state.step == 28
    if (what, damage) == ("complete.json", "missing"):
        assert said == [], "it is no link: its writer was killed"
    else:
        assert len(said) == 1
        assert str(path) in said[0]
    again, said = look(checkpoints)
    assert (again.step, said) == (28, []), "it was set aside"
    assert_is(checkpoints, state, truth)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_link_damaged_amid_the_chain_ends_it_where_whole_parts_are(
    checkpoints: Folder, truth: dict[int, dict[str, Tensor]], damage: str
) -> None:
    link = next(link for link in links(checkpoints) if link.step == 20)
    (path,) = Path(link.folder.path).glob("rows_00000_*.bin")
    DAMAGES[damage](path)
    state, said = look(checkpoints)
    assert (state.step, state.links) == (2, ())
    assert str(path) in said[0]
    assert_is(checkpoints, state, truth)


@pytest.mark.parametrize("damage", DAMAGES)
def test_whole_parts_that_are_damaged_let_the_link_before_be_the_end(
    checkpoints: Folder, truth: dict[int, dict[str, Tensor]], damage: str
) -> None:
    (path,) = Path(links(checkpoints)[-1].folder.path).glob("whole_00000_*.bin")
    DAMAGES[damage](path)
    state, _ = look(checkpoints)
    assert state.step == 28
    assert_is(checkpoints, state, truth)


def test_a_damaged_base_gives_way_to_the_one_before_and_nothing_is_lost(
    run_dir: Path, tmp_path: Path, truth: dict[int, dict[str, Tensor]]
) -> None:
    copied = Folder(shutil.copytree(run_dir / "checkpoints", tmp_path / "checkpoints"))
    former = files.find(copied)[0][1]
    flip(next(Path(copied.path).glob(f"{files.folder_name(LAST)}/*.bin")))
    state, said = look(copied)
    assert (state.base.step, state.step) == (former.step, LAST)
    assert former.step < LAST
    assert "does not match its checksum; set aside" in said[0]
    assert_is(copied, state, truth)


def test_files_of_two_links_that_were_swapped_are_seen(checkpoints: Folder) -> None:
    one, other = links(checkpoints)[-2:]
    paths = [next(Path(link.folder.path).glob("rows_00000_*.bin")) for link in (one, other)]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    assert newest(checkpoints).step == 26


def test_a_link_of_another_run_follows_nothing(checkpoints: Folder) -> None:
    last = links(checkpoints)[-1]
    stranger = last.folder.path.replace("step_000000030", "step_000000032")
    shutil.copytree(last.folder.path, stranger)
    position = last.position._replace(step=32)
    write_link(Link(**{**vars(last), "folder": Folder(stranger), "position": position, "predecessor": "x"}))
    assert newest(checkpoints).step == 30


def test_a_link_of_an_older_attempt_after_a_newer_one_does_not_count(checkpoints: Folder) -> None:
    """The older one has the same step and follows the same link, and comes last."""
    last = links(checkpoints)[-1]
    for attempt in (3, 2):
        folder = Folder(last.folder.path.replace("attempt_1", f"attempt_{attempt}"))
        shutil.copytree(last.folder.path, folder.path)
        write_link(Link(**{**vars(last), "folder": folder, "attempt": attempt}))
    for attempt in (2, 3):
        Attempt(checkpoints.child("attempts"), attempt).went_on_from(28)
    state = newest(checkpoints)
    assert (state.step, state.links[-1].attempt) == (30, 3)


def test_whole_parts_go_but_for_the_last_three_and_those_that_are_merged(run_dir: Path) -> None:
    found = there(Folder(run_dir / "checkpoints"))
    merged = {base.merged_from for base in found.bases}
    ends = {link.step for link in found.links if link.ends and link.digest not in merged}
    assert ends <= {26, 28, 30}
    assert {link.step for link in found.links if link.ends} >= {26, 28, 30}
    assert {link.number for link in found.links} == set(range(1, 15))


def test_a_merge_that_is_killed_leaves_the_chain(checkpoints: Folder, truth: dict[int, dict[str, Tensor]]) -> None:
    state = newest(checkpoints)
    target = Path(checkpoints.path) / files.folder_name(state.step)
    caught = 0
    for _ in range(6):
        process = subprocess.Popen(command(checkpoints, state, Attempt(checkpoints, 0)))
        while not target.exists() and process.poll() is None:
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        caught += not (target / "complete.json").exists()
        assert newest(checkpoints).step == state.step
        shutil.rmtree(target)
    assert caught, "the kill came before its end"
    subprocess.run(command(checkpoints, state, Attempt(checkpoints, 0)), check=True)
    after = newest(checkpoints)
    assert (after.base.step, after.links) == (LAST, ())
    assert_is(checkpoints, after, truth)


def test_a_merge_of_damaged_files_makes_no_base(checkpoints: Folder) -> None:
    state = newest(checkpoints)
    flip(next(Path(state.links[3].folder.path).glob("rows_*.bin")))
    merging = command(checkpoints, state, Attempt(checkpoints, 0))
    made = subprocess.run(merging, capture_output=True, text=True, check=False)
    assert made.returncode
    assert "does not match its checksum" in made.stderr
    assert [base.step for base in there(checkpoints).bases] == [2]


def test_a_prune_that_is_killed_leaves_what_is_kept(checkpoints: Folder) -> None:
    """The mark goes first: what is left of a folder counts for nothing, and the next prune removes it."""
    state = newest(checkpoints)
    merged = merge(checkpoints, state, Attempt(checkpoints, 0))
    (Path(checkpoints.path) / files.folder_name(2) / "complete.json").unlink()
    for folder in list(link_folders(checkpoints))[:3]:
        folder.remove("complete.json")
    assert newest(checkpoints).base.digest == merged.digest
    Upkeep(checkpoints, CheckpointConfig(keep=1), print).after_base(State(merged))
    assert checkpoints.names() == ["attempts", "deltas", files.folder_name(LAST)]
    assert list(link_folders(checkpoints)) == []


def test_an_attempt_that_was_overtaken_stands_down_from_base_link_merge_and_prune(checkpoints: Folder) -> None:
    """As after workers were stopped and continued: the newer attempt has gone on from the same state."""
    state = newest(checkpoints)
    old, new = claim(checkpoints), claim(checkpoints)
    new.went_on_from(state.step)
    before = sorted(Path(checkpoints.path).rglob("*"))
    with pytest.raises(SupersededError, match=f"attempt {new.number} has taken over from attempt {old.number}"):
        merge(checkpoints, state, old)
    shutil.rmtree(Path(checkpoints.path) / files.folder_name(LAST))
    upkeep = Upkeep(checkpoints, CheckpointConfig(keep=1), print)
    upkeep.attempt = old
    upkeep.after_base(State(state.base))
    assert sorted(Path(checkpoints.path).rglob("*")) == before
    checkpointer = Checkpointer(str(checkpoints), CheckpointConfig(), {})
    checkpointer.upkeep.attempt = old
    with pytest.raises(SupersededError):
        checkpointer.save({"model/x": torch.ones(3)}, step=99, epoch=0, epoch_step=9, blocking=True)
    assert newest(checkpoints).step == state.step


def test_numbers_of_attempts_are_claimed_once(tmp_path: Path) -> None:
    code = "import sys; from trainer.run.folder import Folder; from trainer.checkpoint.attempts import claim\n"
    code += "print([claim(Folder(sys.argv[1])).number for _ in range(20)])"
    process = [sys.executable, "-c", code, str(tmp_path)]
    racing = [subprocess.Popen(process, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    numbers = [number for process in racing for number in json.loads(process.communicate()[0])]
    assert sorted(numbers) == list(range(1, 61))


def test_numbers_are_claimed_once_where_names_appear_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a listing may be some seconds old."""
    monkeypatch.setattr("trainer.checkpoint.attempts._claimed", lambda folder: [])
    assert [claim(Folder(tmp_path)).number for _ in range(3)] == [1, 2, 3]


class _Bucket(ArrowFSWrapper):
    """An S3 server on loopback, as fsspec shows it."""

    protocol = "bucket"
    store: ObjectStore | None = None

    def __init__(self, **options: object) -> None:
        assert self.store is not None
        super().__init__(self.store.file_system(), skip_instance_cache=True)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path.removeprefix("bucket://").rstrip("/")


def test_a_chain_in_an_object_store(
    checkpoints: Folder, truth: dict[int, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    fsspec.register_implementation("bucket", _Bucket, clobber=True)
    with object_store() as _Bucket.store:
        there = Folder(f"bucket://{BUCKET}/chain/checkpoints")
        for path in (path for path in sorted(Path(checkpoints.path).rglob("*")) if path.is_file()):
            inside = path.relative_to(checkpoints.path)
            there.child(str(inside.parent)).write_bytes(inside.name, path.read_bytes())
        attempt = claim(there)
        assert (attempt.number, claim(there).number, attempt.is_newest) == (2, 3, False)
        state = newest(there)
        assert (state.base.step, state.step) == (2, LAST)
        assert_is(there, state, truth)
        merged = newest(there)
        assert (merged.base.step, merged.links) == (LAST, ())
        Upkeep(there, CheckpointConfig(keep=1), print).after_base(merged)
        assert [name for name in there.names() if name.startswith("step_")] == [files.folder_name(LAST)]


def test_inspect_shows_bases_chains_and_damage(run_dir: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_dir, tmp_path / "run")
    _, values = describe(str(copied))
    last, *_, first = values["checkpoints"]
    assert (last["step"], last["merged"], "links" in last) == (LAST, True, False)
    assert (first["step"], first["merged"], first["links"], first["last_link"]["step"]) == (2, False, 14, LAST)
    link = Path(first["last_link"]["path"])
    flip(next(link.glob("rows_00000_*.bin")))
    _, values = describe(str(link))
    assert [values[key] for key in ("kind", "step", "number", "a_chain_may_end_here")] == ["link", LAST, 14, True]
    assert "does not match its checksum" in values["problems"][0]
    flip(link / "complete.json")
    assert str(link) in describe(str(copied))[1]["damaged_checkpoints"][0]


def test_links_whose_base_is_gone_are_not_silently_a_new_run(checkpoints: Folder) -> None:
    shutil.rmtree(Path(checkpoints.path) / files.folder_name(2))
    assert newest_by_marks(checkpoints) is None
    with pytest.raises(UserError, match=r"no checkpoint of .* is whole: there are links, but not the base"):
        Checkpointer(str(checkpoints), CheckpointConfig(), {}).newest_complete()
