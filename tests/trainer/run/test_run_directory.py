"""Who may use a run directory, and what is left in it."""

import multiprocessing
import os
import signal

import pytest

from configs.errors import UserError
from trainer.run.run_directory import RunDirectory, open_run, write_json


def fill(run):
    """What a run leaves behind."""
    for folder in (run.checkpoints / "step_000000001", run.tensorboard / "train", run.profile, run.export):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    for file in (run.environment, run.manifest, run.plan_json, run.plan_text, run.metrics):
        file.write_text("{}")
    run.start_attempt()


def names(run):
    return sorted(path.name for path in run.path.iterdir() if path.name != ".lock")


def test_a_new_run_has_its_config(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "run")
    assert not run.is_used
    assert run.create("a: 1\n") is None
    assert run.is_used
    assert run.config.read_text() == "a: 1\n"
    assert names(run) == ["config.yaml"]


def test_a_used_one_is_refused_with_three_ways_out(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create("a: 1\n")
    (tmp_path / "run-2").mkdir()
    with pytest.raises(UserError) as refused:
        run.create("a: 2\n")
    first, second = str(refused.value).splitlines()
    assert str(run) in first
    assert "--resume" in second
    assert "--overwrite" in second
    assert f"training.run_dir={tmp_path / 'run-3'}" in second
    assert run.config.read_text() == "a: 1\n"


def test_resume_keeps_everything_and_gives_the_former_config(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create("a: 1\n")
    fill(run)
    before = names(run)
    assert run.create("a: 2\n", resume=True) == "a: 1\n"
    assert run.config.read_text() == "a: 1\n", "the caller compares first"
    run.write_config("a: 2\n")
    assert run.config.read_text() == "a: 2\n"
    assert names(run) == before


def test_resume_of_what_never_began_begins(tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert run.create("a: 1\n", resume=True) is None
    assert run.is_used


def test_overwrite_removes_the_run_and_nothing_else(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create("a: 1\n")
    fill(run)
    (run.path / "notes.txt").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (run.export / "file").unlink()
    run.export.rmdir()
    run.export.symlink_to(outside)
    with run.lock():
        assert run.create("a: 2\n", overwrite=True) is None
    assert names(run) == ["config.yaml", "notes.txt"]
    assert run.config.read_text() == "a: 2\n"
    assert (outside / "precious").exists(), "links are not followed"


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_something_else_is_never_used(tmp_path, how):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        RunDirectory(tmp_path).create("a: 1\n", **how)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_resume_and_overwrite_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="exclude"):
        RunDirectory(tmp_path / "run").create("", resume=True, overwrite=True)


def test_a_url_is_refused():
    with pytest.raises(UserError, match="s3://bucket/run"):
        RunDirectory("s3://bucket/run")


def test_attempts_count_and_latest_follows(tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert [run.start_attempt() for _ in range(11)] == list(range(1, 12))
    run.rank_log(11, 3).write_text("hello")
    assert (run.logs / "latest" / "rank_3.log").read_text() == "hello"
    assert os.readlink(run.logs / "latest") == "attempt_11", "relative, so that the run can be moved"


def hold(path, ready):
    with RunDirectory(path).lock():
        ready.send(os.getpid())
        signal.pause()


def test_two_jobs_cannot_share_a_run_and_a_killed_one_leaves_no_lock(tmp_path):
    here, there = multiprocessing.Pipe()
    job = multiprocessing.get_context("forkserver").Process(target=hold, args=(tmp_path, there), daemon=True)
    job.start()
    assert here.recv() == job.pid
    with pytest.raises(UserError) as refused, RunDirectory(tmp_path).lock():
        pass
    assert f"in use by process {job.pid} on " in str(refused.value)
    job.kill()
    job.join()
    with RunDirectory(tmp_path).lock():
        pass
    with RunDirectory(tmp_path).lock():
        assert RunDirectory(tmp_path).start_attempt() == 1, "workers of the job do not need the lock"


def test_open_run_names_runs_nearby(tmp_path):
    RunDirectory(tmp_path / "good").create("a: 1\n")
    assert open_run(tmp_path / "good").path == tmp_path / "good"
    with pytest.raises(UserError, match=rf"god is no run(.|\n)*{tmp_path / 'good'}"):
        open_run(tmp_path / "god")


def test_json_files_are_replaced_whole(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"x": [1]})
    write_json(tmp_path / "new" / "a.json", {"x": [2]})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n "x": [\n  2\n ]\n}\n'
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
