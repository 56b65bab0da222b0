"""The commands as a user types them, on a Ray of their own: one run is trained, loses a worker, and is then used."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from tests.trainer.test_train import QUICKSTART, assert_same_bits, final_state, small
from tests.trainer.workers import FEW_ROWS, losses, train_on
from trainer.run.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = (
    *FEW_ROWS,
    "tables.author.sharding=row_wise",
    "model.dropout=0.1",
    "training.log_every=1",
    "training.epochs=2",
    "checkpoint.every_steps=7",
)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "trainer", *map(str, arguments)]


def call(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run of two workers under Ray, one of which was killed on the way; in a folder with a torch.py of the user's."""
    (folder / "torch.py").write_text("raise SystemExit('another torch')")
    run_dir = folder / "run"
    paths = (f"data.root={folder / 'data'}", f"training.run_dir={run_dir}")
    with (folder / "screen").open("w") as screen:
        train = command("train", QUICKSTART, *OPTIONS, *paths)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        job = subprocess.Popen(train, cwd=folder, env=environment, stdout=screen, stderr=screen)
        while not (run_dir / "metrics.jsonl").exists() or max(losses(run_dir), default=0) < 20:
            assert job.poll() is None, (folder / "screen").read_text()
            time.sleep(0.05)
        log = (run_dir / "logs/latest/rank_1.log").read_text()
        os.kill(int(re.findall(r"process (\d+)", log)[0]), signal.SIGKILL)
        assert job.wait(timeout=250) == 0, (folder / "screen").read_text()
    return run_dir


def test_a_killed_worker_changes_nothing(run: Path, folder: Path) -> None:
    screen = (folder / "screen").read_text()
    told = re.search(
        r"^rank 1 on [\d.]+ failed after step (\d+): its process was ended by signal 9 .*\((.*)\)$", screen, re.M
    )
    assert told, screen
    assert int(told[1]) >= 20
    assert told[2] == str(run / "logs/attempt_1/rank_1.log")
    assert "attempt 2" in screen
    undisturbed = small(str(folder / "data"), folder / "undisturbed", "training.epochs=2", "checkpoint.every_steps=7")
    train_on(undisturbed, 2)
    assert_same_bits(final_state(run), final_state(folder / "undisturbed"))
    assert losses(run) == losses(folder / "undisturbed")


def test_evaluate_counts_every_row_once(run: Path, folder: Path) -> None:
    tasks = json.loads(call("evaluate", run, "--json", "--workers", "1").stdout.splitlines()[-1])["tasks"]
    labels = ds.dataset(folder / "data" / "validation").to_table(["click", "like"])
    assert {task: tasks[task]["rows"] for task in ("click", "like")} == {
        task: labels.num_rows - labels[task].null_count for task in ("click", "like")
    }
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["kind"] == "eval"
    for metric in ("auc", "ne", "calibration"):
        assert tasks["click"][metric] == pytest.approx(last[f"{metric}/click"], rel=1e-5)


def test_a_bundle_scores_files(run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")  # compiled bundles are tested where they are written
    call("export", run, "--out", folder / "bundle")
    files = sorted((folder / "data" / "validation").rglob("*.parquet"))
    call("score", folder / "bundle", *files, folder / "scores")
    scores = ds.dataset(folder / "scores").to_table()
    assert scores.num_rows == sum(pq.read_metadata(file).num_rows for file in files)


def test_a_used_run_directory_is_refused(run: Path, folder: Path) -> None:
    paths = (f"data.root={folder / 'data'}", f"training.run_dir={run}")
    refused = call("train", QUICKSTART, *OPTIONS, *paths, code=2).stderr
    assert "--resume" in refused
    assert "--overwrite" in refused
    assert "Traceback" not in refused
    changed = call("train", QUICKSTART, *OPTIONS, *paths, "tables.user.embedding_dim=32", "--resume", code=2).stderr
    assert "tables.user.embedding_dim: 16 -> 32" in changed


def test_a_mistake_in_the_data_stops_all_ranks_with_one_message(run: Path, folder: Path) -> None:
    broken = folder / "broken" / "train" / "part.parquet"
    broken.parent.mkdir(parents=True)
    table = ds.dataset(folder / "data" / "train").to_table()
    device = [*table["device"].to_pylist()[:-1], 99]  # the table of devices has five rows
    table = table.set_column(table.schema.get_field_index("device"), "device", [device])
    pq.write_table(table, broken, row_group_size=1000, write_statistics=False)  # which would tell before training
    paths = (f"data.root={folder / 'broken'}", f"training.run_dir={folder / 'broken-run'}")
    stopped = call("train", QUICKSTART, *OPTIONS, *paths, code=2).stderr
    errors = [line for line in stopped.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "part.parquet" in errors[0]
    assert "99" in errors[0]
    assert "Traceback" not in stopped


def test_overwrite_deletes_nothing_before_the_config_is_checked(run: Path, folder: Path) -> None:
    paths = (f"data.root={folder / 'data'}", f"training.run_dir={run}")
    refused = call("train", QUICKSTART, *OPTIONS, *paths, "features.device.column=nope", "--overwrite", code=2).stderr
    assert "nope" in refused
    assert len(losses(run)) == 80


def test_inspect_knows_runs_checkpoints_and_data(run: Path, folder: Path) -> None:
    found = json.loads(call("inspect", run, "--json").stdout.splitlines()[-1])
    assert found["kind"] == "run"
    assert found["step"] == found["checkpoints"][0]["step"] == 80
    found = json.loads(call("inspect", found["checkpoints"][0]["path"], "--json").stdout.splitlines()[-1])
    assert (found["kind"], found["problems"]) == ("checkpoint", [])
    found = json.loads(call("inspect", folder / "data", "--json").stdout.splitlines()[-1])
    assert found["parts"]["train"]["rows"] == 20_000


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_compare_trains_every_top_with_every_seed_and_none_twice(folder: Path) -> None:
    paths = (f"data.root={folder / 'data'}", f"training.run_dir={folder / 'compare'}", "training.max_steps=5")
    arguments = ("compare", QUICKSTART, *OPTIONS, *paths, "--json", "--tops")
    done = call(*arguments, "mmoe", "--seeds", "2")
    first = json.loads(done.stdout.splitlines()[-1])["tops"]["mmoe"]["tasks"]["click"]["auc"]["runs"]
    assert len(first) == 2
    assert "±" in done.stderr
    with RunDirectory(folder / "compare").lock():
        assert "is in use by" in call(*arguments, "mmoe", code=2).stderr
    values = json.loads(call(*arguments, "mmoe,ple").stdout.splitlines()[-1])
    assert list(values["tops"]) == ["mmoe", "ple"]
    assert values["tops"]["mmoe"]["tasks"]["click"]["auc"]["runs"] == first[:1]
    attempts = {path.name: len(list(path.glob("logs/attempt_*"))) for path in (folder / "compare").glob("*-seed*")}
    assert attempts == {"mmoe-seed0": 1, "mmoe-seed1": 1, "ple-seed0": 1}
    dashboard = {path.name for path in (folder / "compare" / "tensorboard").iterdir()}
    assert dashboard == {"mmoe-seed0", "ple-seed0"}


@pytest.mark.slow
def test_a_stopped_run_is_saved_and_goes_on(run: Path, folder: Path) -> None:
    run_dir = folder / "stopped"
    arguments = (QUICKSTART, *OPTIONS, f"data.root={folder / 'data'}", f"training.run_dir={run_dir}")
    with subprocess.Popen(command("train", *arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True) as job:
        while not (run_dir / "metrics.jsonl").exists() or max(losses(run_dir), default=0) < 3:
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        screen = job.communicate(timeout=120)[1]
    assert job.returncode == 1, screen
    stopped = re.search(r"failed: stopped at step (\d+), which is saved\n--resume", screen)
    assert stopped, screen
    step = int(stopped[1])
    assert json.loads(call("inspect", run_dir, "--json").stdout.splitlines()[-1])["step"] == step < 80
    assert f"from step {step}" in call("train", *arguments, "--resume").stderr
    assert losses(run_dir) == losses(run)
