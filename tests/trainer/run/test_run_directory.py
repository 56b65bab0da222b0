"""Who may use a run directory, and what is left in it."""

import os
import resource
import shutil
import signal

import pytest

from configs.errors import UserError
from trainer.run.run_directory import RunDirectory, open_run, read_json, write_json

SECTIONS = "data: {root: d}\nfeatures: {}\ntables: {}\nmodel: {}\ntasks: {}\ncheckpoint: {}\nlaunch: {}\n"
ONE, TWO = f"{SECTIONS}training: {{seed: 1}}\n", f"{SECTIONS}training: {{seed: 2}}\n"


def fill(run):
    """What a run leaves behind."""
    for folder in (run.checkpoints / "step_000000001", run.tensorboard / "train", run.export):
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
    assert run.create(ONE) is None
    assert run.is_used
    assert run.config.read_text() == ONE
    assert names(run) == ["config.yaml"]


def test_a_used_one_is_refused_with_three_ways_out(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create(ONE)
    (tmp_path / "run-2").mkdir()
    with pytest.raises(UserError) as refused:
        run.create(TWO)
    first, second = str(refused.value).splitlines()
    assert str(run) in first
    assert "--resume" in second
    assert "--overwrite" in second
    assert f"training.run_dir={tmp_path / 'run-3'}" in second
    assert run.config.read_text() == ONE


def test_resume_keeps_everything_and_gives_the_former_config(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create(ONE)
    fill(run)
    before = names(run)
    assert run.create(TWO, resume=True) == ONE
    assert run.config.read_text() == ONE, "the caller compares first"
    run.write_config(TWO)
    assert run.config.read_text() == TWO
    assert names(run) == before


def test_resume_of_what_never_began_begins(tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert run.create(ONE, resume=True) is None
    assert run.is_used


def test_overwrite_removes_the_run_and_nothing_else(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.create(ONE)
    fill(run)
    (run.path / "notes.txt").write_text("mine")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (run.export / "file").unlink()
    run.export.rmdir()
    run.export.symlink_to(outside)
    with run.lock():
        assert run.create(TWO, overwrite=True) is None
    assert names(run) == ["config.yaml", "notes.txt"]
    assert run.config.read_text() == TWO
    assert (outside / "precious").exists(), "links are not followed"


def test_overwrite_keeps_what_others_put_beside_checkpoints_and_logs(tmp_path):
    run = RunDirectory(tmp_path)
    run.create(ONE)
    fill(run)
    kept = [run.checkpoints / "best" / "weights", run.logs / "mine.txt", run.profile / "notes.md"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    run.create(TWO, overwrite=True)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted([run.config, *kept])


@pytest.mark.parametrize("content", ["", "[1", "\xff"])
def test_a_damaged_file_of_a_run_is_named(tmp_path, content):
    path = tmp_path / "manifest.json"
    assert read_json(path) is None
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"manifest\.json is cut or damaged: .*\nrestore"):
        read_json(path)


FLAGS = [{}, {"overwrite": True}, {"resume": True}]


@pytest.mark.parametrize("how", FLAGS)
@pytest.mark.parametrize("names", [["thesis.tex"], ["checkpoints/best.pt", "logs/old.txt"], ["config.yaml", "logs/x"]])
@pytest.mark.parametrize("content", ["optimizer: adam\n", "data:\nfeatures:\ntasks:\nmodel:\ntraining: {}\n"])
def test_a_folder_of_something_else_is_never_used(tmp_path, how, names, content):
    """Not by its names either: another program has checkpoints/, logs/ and a config.yaml too, with sections as ours."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=names[0].split("/")[0].replace(".", "[.]")):
        RunDirectory(tmp_path).create(ONE, **how)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(names)


@pytest.mark.parametrize("how", FLAGS)
def test_a_run_that_lost_its_config_keeps_its_checkpoints(tmp_path, how):
    run = RunDirectory(tmp_path / "run")
    run.create(ONE)
    fill(run)
    run.config.unlink()
    with pytest.raises(UserError, match=r"lost its config\.yaml.*trainer config CONFIG > "):
        run.create(ONE, **how)
    run.config.write_bytes(b"\xff" * 100)
    for use in (lambda: run.create(ONE, **how), lambda: open_run(run.path)):
        with pytest.raises(
            UserError, match=r"\n.*has a damaged config\.yaml here, restore that file, or write it again"
        ):
            use()
    assert (run.checkpoints / "step_000000001" / "file").exists()
    run.write_config(ONE)
    assert run.create(TWO, resume=True) == ONE


@pytest.mark.parametrize("how", FLAGS)
def test_a_start_without_space_leaves_nothing_that_stops_the_next(tmp_path, how):
    run = RunDirectory(tmp_path / "run")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
    try:
        with run.lock(), pytest.raises(OSError, match="File too large"):
            run.create(ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert names(run) == []
    (run.path / ".config.yaml.4711.tmp").write_text("dat")  # its writer was killed
    assert run.create(ONE, **how) is None
    assert names(run) == ["config.yaml"]


def test_attempts_go_on_in_a_copy_with_links_followed(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.start_attempt()
    run.rank_log(1, 0).write_text("first")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    copy = RunDirectory(tmp_path / "copy")
    assert copy.start_attempt() == 2
    assert os.readlink(copy.logs / "latest") == "attempt_2"
    assert (copy.logs / "latest_before_attempt_2" / "rank_0.log").read_text() == "first"


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


def test_workers_of_a_job_do_not_need_its_lock(tmp_path):
    with RunDirectory(tmp_path).lock():
        assert RunDirectory(tmp_path).start_attempt() == 1


def test_open_run_names_runs_nearby(tmp_path):
    RunDirectory(tmp_path / "good").create(ONE)
    assert open_run(tmp_path / "good").path == tmp_path / "good"
    with pytest.raises(UserError, match=rf"god is not a run(.|\n)*{tmp_path / 'good'}"):
        open_run(tmp_path / "god")


def test_json_files_are_replaced_whole(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"x": [1]})
    write_json(tmp_path / "new" / "a.json", {"x": [2]})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n "x": [\n  2\n ]\n}\n'
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]


def test_a_directory_that_cannot_be_made():
    with pytest.raises(UserError, match=r"/proc/x cannot be written: .*\ngive training\.run_dir another name"):
        RunDirectory("/proc/x").lock()
