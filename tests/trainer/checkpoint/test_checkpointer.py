"""Saving and loading in one process: what comes back, what is refused, what a damaged file does."""

import json
import math
import pickle
import re
import time
from pathlib import Path

import pytest
import torch

from configs.errors import UserError
from configs.schema import CheckpointConfig
from trainer.checkpoint.checkpointer import Checkpointer
from trainer.checkpoint.files import DAMAGED, find, folder_name
from trainer.checkpoint.marks import COMPLETE
from trainer.checkpoint.outcome import CheckpointError
from trainer.file_record import checksum
from trainer.run.diverged import DivergedError
from trainer.run.folder import Folder


def state(step):
    return {
        "model/table": torch.full((100, 8), float(step)),
        "optim/table/sum": torch.full((100,), step / 2).double(),
        "extra/seen": [step, {"file": "a"}],
    }


def empty():
    return {"model/table": torch.zeros(100, 8), "optim/table/sum": torch.zeros(100).double(), "extra/seen": None}


def save(folder, *steps, keep=3, **facts):
    checkpointer = Checkpointer(folder, CheckpointConfig(keep=keep), facts)
    for step in steps:
        checkpointer.save(state(step), step=step, epoch=1, epoch_step=step)
    checkpointer.wait()


def load(folder):
    """Step of the checkpoint that was taken, after all values were found to be that step's."""
    target = empty()
    position = Checkpointer(folder, CheckpointConfig(), {}).load(target)
    if position is None:
        return None
    assert position == (position.step, 1, position.step)
    assert target["extra/seen"] == state(position.step)["extra/seen"]
    for name in ("model/table", "optim/table/sum"):
        assert torch.equal(target[name], state(position.step)[name])
    return position.step


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_is_saved_comes_back(tmp_path, scheme):
    save(f"{scheme}{tmp_path}/deep/er", 1, 2)
    assert load(f"{scheme}{tmp_path}/deep/er") == 2


def test_an_fsspec_url_will_do():
    save("memory://bucket/run/checkpoints", 1, 2, 3, 4, keep=2)
    assert load("memory://bucket/run/checkpoints") == 4
    assert Folder("memory://bucket/run/checkpoints").names() == [folder_name(3), folder_name(4)]


def test_an_unknown_protocol_is_the_users_mistake():
    with pytest.raises(UserError, match="carrier-pigeon"):
        Checkpointer("carrier-pigeon://coop/run", CheckpointConfig(), {})


def test_a_new_run_has_nothing_to_load(tmp_path):
    target = empty()
    assert Checkpointer(tmp_path / "new", CheckpointConfig(), {}).load(target) is None
    assert not target["model/table"].any()


def test_what_changes_after_save_is_not_in_the_checkpoint(tmp_path):
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    for step in (1, 2, 3):  # the copies of the step before are reused
        live = state(step)
        checkpointer.save(live, step=step, epoch=1, epoch_step=step)
        live["model/table"].zero_()
        live["optim/table/sum"].fill_(9)
    checkpointer.wait()
    assert load(tmp_path) == 3


def test_complete_json_says_what_the_checkpoint_is(tmp_path):
    save(tmp_path, 5, config="abc", versions={"torch": torch.__version__})
    (checkpoint,), damaged = find(Folder(tmp_path))
    assert damaged == {}
    assert checkpoint.position == (5, 1, 5)
    assert checkpoint.world_size == 1
    assert checkpoint.facts == {"config": "abc", "versions": {"torch": torch.__version__}}
    on_disk = {path.name: path.stat().st_size for path in (tmp_path / folder_name(5)).iterdir()}
    assert on_disk.keys() == {*checkpoint.files, COMPLETE}
    assert checkpoint.size == sum(size for name, size in on_disk.items() if name != COMPLETE)


def test_a_checkpoint_of_the_format_before_is_read(tmp_path):
    """It knows no attempts."""
    save(tmp_path, 5)
    path = tmp_path / folder_name(5) / COMPLETE
    content = json.loads(path.read_text())
    for key in ("digest", "attempt", "merged_from"):
        del content[key]
    content["format"] = 1
    content["digest"] = checksum(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps(content))
    assert load(tmp_path) == 5
    content["format"] = 3
    del content["digest"]
    content["digest"] = checksum(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="has format 3, this version reads 1, 2"):
        load(tmp_path)


def test_a_step_is_saved_once(tmp_path):
    save(tmp_path, 5)
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    checkpointer.load(empty())
    (before,), _ = find(Folder(tmp_path))
    checkpointer.save(state(5), step=5, epoch=1, epoch_step=5, blocking=True)
    checkpointer.save(state(5), step=5, epoch=1, epoch_step=5, blocking=True)
    assert find(Folder(tmp_path))[0][0].files == before.files


def test_a_step_that_is_trained_again_replaces_its_checkpoint(tmp_path):
    save(tmp_path, 5, 6)
    (former, _), _ = find(Folder(tmp_path))
    (tmp_path / folder_name(6) / "rank_00003_0badcafe.bin").write_bytes(b"of a rank that is no more")
    save(tmp_path, 6)
    assert load(tmp_path) == 6
    now = {path.name for path in (tmp_path / folder_name(6)).iterdir()}
    assert now & former.files.keys() == {"tensors.json"}
    assert len(now) == 3, "what other ranks left is gone"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap_digits(path):
    """Still valid JSON."""
    path.write_text(path.read_text().replace('"epoch_step": 3', '"epoch_step": 8'))


DAMAGES = {
    "bit flip": ("rank_*.bin", flip_a_bit),
    "truncated": ("rank_*.bin", cut),
    "missing": ("rank_*.bin", Path.unlink),
    "index bit flip": ("tensors.json", flip_a_bit),
    "index missing": ("tensors.json", Path.unlink),
    "half-written complete.json": (COMPLETE, cut),
    "empty complete.json": (COMPLETE, lambda path: path.write_bytes(b"")),
    "another position": (COMPLETE, swap_digits),
}


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, caplog, damage):
    save(tmp_path, 1, 2, 3)
    pattern, do = DAMAGES[damage]
    (path,) = (tmp_path / folder_name(3)).glob(pattern)
    do(path)
    assert load(tmp_path) == 2
    (warning,) = warnings(caplog)
    assert str(path) in warning
    assert load(tmp_path) == 2
    assert warnings(caplog) == [warning], "it was set aside"
    assert (tmp_path / folder_name(3) / DAMAGED).exists()
    save(tmp_path, 3)
    assert load(tmp_path) == 3


def test_a_damaged_checkpoint_does_not_count_among_those_kept(tmp_path):
    save(tmp_path, 1, 3)
    (path,) = (tmp_path / folder_name(3)).glob("*.bin")
    flip_a_bit(path)
    assert load(tmp_path) == 1
    save(tmp_path, 2, keep=1)
    assert load(tmp_path) == 2
    assert Folder(tmp_path).names() == [folder_name(2), folder_name(3)]
    save(tmp_path, 4, keep=1)
    assert Folder(tmp_path).names() == [folder_name(4)]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_silently_begin_again(tmp_path):
    save(tmp_path, 1, 2)
    for path in tmp_path.glob("*/*.bin"):
        cut(path)
    with pytest.raises(UserError, match=r"no checkpoint .* is whole(.|\n)*--overwrite"):
        load(tmp_path)
    assert len(list(tmp_path.glob(f"*/{COMPLETE}"))) == 2, "nothing was set aside"


def test_a_save_that_was_cut_short_is_not_a_checkpoint(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / folder_name(2) / COMPLETE).unlink()
    assert load(tmp_path) == 1
    save(tmp_path, 3)
    assert Folder(tmp_path).names() == [folder_name(1), folder_name(3)]


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    save(tmp_path / "run", 1)
    folder = tmp_path / "run" / folder_name(1)
    (values,) = folder.glob("*.bin")
    content = json.loads((folder / COMPLETE).read_text())
    content["extra"]["extra/seen"] = trap.decode("latin1")
    planted = trap.ljust(values.stat().st_size, b".")
    content["files"][values.name]["checksum"] = checksum(planted)
    del content["digest"]
    content["digest"] = checksum(json.dumps(content, sort_keys=True).encode())
    (folder / COMPLETE).write_text(json.dumps(content))
    values.write_bytes(planted)
    for name in (".metadata", "metadata.pkl", "__0_0.distcp"):
        (folder / name).write_bytes(trap)
    target, checkpointer = empty(), Checkpointer(tmp_path / "run", CheckpointConfig(), {})
    checkpointer.may_be_undefined = {"model/table"}  # its values are the trap's bytes now
    assert checkpointer.load(target).step == 1
    assert bytes(target["model/table"].view(torch.uint8).flatten()[: len(trap)].tolist()) == trap
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_a_file_outside_the_checkpoint_is_not_read(tmp_path):
    save(tmp_path, 1, 2)
    path = tmp_path / folder_name(2) / COMPLETE
    content = json.loads(path.read_text())
    content["files"]["../../secret"] = {"size": 1, "checksum": "0"}
    del content["digest"]
    content["digest"] = checksum(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps(content))
    assert load(tmp_path) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model/table": torch.zeros(200, 8)},
            r"model/table is float32\[100, 8\] in the checkpoint but float32\[200, 8\]",
        ),
        ({"model/table": torch.zeros(100, 8).half()}, r"float32\[100, 8\] in the checkpoint but float16\[100, 8\]"),
        ({"model/top": torch.zeros(3)}, "model/top is not in the checkpoint"),
        ({"optim/table/sum": None}, "optim/table/sum is in the checkpoint but not in this run"),
        ({"extra/other": 1}, "extra/other is not in the checkpoint"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name(tmp_path, change, said):
    save(tmp_path, 1)
    target = empty() | {"optim/other": torch.zeros(2)} | change
    target = {name: value for name, value in target.items() if value is not None or name == "extra/seen"}
    with pytest.raises(UserError, match=said):
        Checkpointer(tmp_path, CheckpointConfig(), {}).load(target)
    assert not target["model/table"].any()


def test_a_section_can_be_loaded_alone(tmp_path):
    save(tmp_path, 4)
    target = {"model/table": torch.zeros(100, 8)}
    assert Checkpointer(tmp_path, CheckpointConfig(), {}).load(target).step == 4
    assert torch.equal(target["model/table"], state(4)["model/table"])


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["model/table", "optim/table/sum"])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_state_that_is_not_finite_is_not_saved_and_a_save_later_works(tmp_path, number, name, asynchronous):
    save(tmp_path, 1)
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(asynchronous=asynchronous), {})
    checkpointer.load(empty())
    broken = state(2)
    broken[name][-1] = number
    with pytest.raises(DivergedError, match=f"step 2 is not saved: {name} became NaN or too large after step 1: "):
        assert checkpointer.save(broken, step=2, epoch=1, epoch_step=2) >= checkpointer.wait()
    assert not (tmp_path / folder_name(2)).exists(), "it would only take room"
    assert load(tmp_path) == 1
    checkpointer.save(state(3), step=3, epoch=1, epoch_step=3, blocking=True)
    assert load(tmp_path) == 3


def test_large_numbers_are_saved_as_optimizer_state_but_not_as_weights(tmp_path):
    """Squares of gradients may be as large; a product with such a weight is not a number."""
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    sums = {"optim/table/sum": torch.full((100,), 3e38), "model/table": torch.full((100, 8), 1e17)}
    checkpointer.save(sums, step=1, epoch=0, epoch_step=1, blocking=True)
    with pytest.raises(DivergedError, match="step 2 is not saved: model/table became NaN or too large"):
        checkpointer.save(sums | {"model/table": torch.full((1,), 1e30)}, step=2, epoch=0, epoch_step=2, blocking=True)


def test_a_checkpoint_that_is_not_finite_is_not_loaded_but_where_it_may_be(tmp_path):
    unseen = {"model/table": torch.ones(100, 8), "model/unseen": torch.tensor([math.nan])}
    allowing, strict = (Checkpointer(tmp_path, CheckpointConfig(), {}) for _ in range(2))
    allowing.may_be_undefined = {"model/unseen"}
    allowing.save(unseen, step=1, epoch=0, epoch_step=1, blocking=True)
    target = {"model/table": torch.zeros(100, 8), "model/unseen": torch.zeros(1)}
    with pytest.raises(DivergedError, match=r"step_000000001 has NaN or far too large numbers in model/unseen: "):
        strict.load(target, strict.newest_complete())
    assert allowing.load(target).step == 1
    assert target["model/unseen"].isnan().all()


def test_a_checkpoint_that_is_not_finite_gives_way_to_the_one_before(tmp_path):
    save(tmp_path, 1)
    lenient = Checkpointer(tmp_path, CheckpointConfig(), {})
    lenient.may_be_undefined = {"model/table"}
    lenient.save(state(2) | {"model/table": torch.full((100, 8), math.inf)}, step=2, epoch=1, epoch_step=2)
    lenient.wait()
    said, strict, target = [], Checkpointer(tmp_path, CheckpointConfig(), {}), empty()
    strict.say = said.append
    assert strict.load(target).step == 1
    assert torch.equal(target["model/table"], state(1)["model/table"])
    assert len(said) == 1
    assert re.match(r".*step_000000002 has NaN .* in model/table.*; set aside, taking the checkpoint before$", said[0])
    assert [one.step for one in find(Folder(tmp_path))[0]] == [1]


def test_a_value_that_is_not_json_is_refused_at_once(tmp_path):
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpointer.save(state(1) | {"extra/object": object()}, step=1, epoch=0, epoch_step=1)


def test_a_storage_that_fails_is_named_once_and_tried_again(tmp_path):
    checkpointer, said = Checkpointer(tmp_path / "run", CheckpointConfig(), {}), []
    checkpointer.say = said.append
    (tmp_path / "run").write_text("a file where the folder should be")
    checkpointer.save(state(1), step=1, epoch=0, epoch_step=1)
    checkpointer.save(state(2), step=2, epoch=0, epoch_step=2)
    assert len(said) == 1
    assert re.match(r"step 1 could not be written: rank 0: .*; no step is the newest that is saved", said[0])
    with pytest.raises(CheckpointError, match="step 2 could not be written: rank 0: "):
        checkpointer.wait(must_succeed=True)
    (tmp_path / "run").unlink()
    checkpointer.save(state(2), step=2, epoch=1, epoch_step=2, blocking=True)
    assert load(tmp_path / "run") == 2


def test_a_mistake_in_the_background_comes_up_at_the_next_call_once(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path, CheckpointConfig(), {})
    with monkeypatch.context() as patch:
        patch.setattr("trainer.checkpoint.files.write_complete", lambda made: 1 // 0)
        checkpointer.save(state(1), step=1, epoch=0, epoch_step=1)
        with pytest.raises(CheckpointError, match="could not be completed: rank 0: ZeroDivisionError"):
            checkpointer.save(state(2), step=2, epoch=1, epoch_step=2)
    checkpointer.wait()
    checkpointer.save(state(2), step=2, epoch=1, epoch_step=2, blocking=True)
    assert load(tmp_path) == 2


def test_training_waits_for_a_copy_not_for_the_disk(tmp_path):
    big = {"model/table": torch.zeros(3_000_000, 16)}
    stalls = {True: [], False: []}
    for asynchronous in (True, False):
        checkpointer = Checkpointer(tmp_path / str(asynchronous), CheckpointConfig(asynchronous=asynchronous), {})
        for step in (1, 2):
            stalls[asynchronous].append(checkpointer.save(big, step=step, epoch=0, epoch_step=step))
            in_flight = find(checkpointer.folder)[0]
            checkpointer.wait()
            assert len(find(checkpointer.folder)[0]) == step
            assert len(in_flight) == (step - 1 if asynchronous else step)
            time.sleep(0.1)
    assert min(stalls[True]) < min(stalls[False]) / 2
