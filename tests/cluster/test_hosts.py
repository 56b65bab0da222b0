"""Runs on three hosts, and what may happen to hosts: one is killed, cut off, taken away with notice, or joins."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import QUICK_CHECKS, Cluster, hosts
from tests.cluster.namespaces import Host
from tests.trainer.test_train import QUICKSTART, assert_same_bits, final_state, relative, small
from tests.trainer.workers import FEW_ROWS, losses, train_on

SMALL = (*FEW_ROWS, "tables.author.sharding=row_wise", "model.dropout=0.1", "training.log_every=1")
COMES_BACK_S = 150


class Run:
    """A run on the cluster, started by a command on its head."""

    def __init__(self, cluster: Cluster, folder: Path, *overrides: str) -> None:
        self.cluster, self.folder, self.screen_file = cluster, folder / "run", folder / "screen"
        paths = (f"data.root={folder / 'data'}", f"training.run_dir={self.folder}")
        self.job = cluster.train(QUICKSTART, *SMALL, *paths, *overrides, screen=self.screen_file)

    @property
    def screen(self) -> str:
        return self.screen_file.read_text()

    @property
    def step(self) -> int:
        return max(losses(self.folder), default=0) if (self.folder / "metrics.jsonl").exists() else 0

    @property
    def attempts(self) -> int:
        return len(list(self.folder.glob("logs/attempt_*")))

    def wait(self, is_so: Callable[[], bool], seconds: float = COMES_BACK_S) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert self.job.poll() is None, self.screen
            assert time.monotonic() < end, self.screen
            time.sleep(0.02)

    def wait_for_new_step(self, workers: int) -> None:
        """Of an attempt that begins from now on, with so many workers; no step before it is new."""
        attempts = self.attempts
        self.wait(lambda: self.attempts > attempts)
        known = self.step
        self.wait(lambda: self.step > known and len(self.first_lines()) == workers)

    def first_lines(self) -> list[str]:
        """Of the newest attempt's logs, rank by rank."""
        logs = (self.folder / "logs/latest").glob("rank_*.log")
        return [log.read_text().partition("\n")[0] for log in sorted(logs)]

    def hosts(self) -> list[Host]:
        """Where the ranks are."""
        return [self.cluster.rank(self.folder, rank).host for rank in range(len(self.first_lines()))]

    def finish(self, code: int = 0) -> str:
        """The screen of a run that comes to its end."""
        assert self.job.wait(timeout=COMES_BACK_S) == code, self.screen
        return self.screen


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with hosts(3, environment=QUICK_CHECKS) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def all_are_up(cluster: Cluster) -> None:
    cluster.repair()


def undisturbed(folder: Path, steps: int) -> Path:
    """A run without Ray and hosts, of two workers."""
    train_on(small(str(folder / "data"), folder / "undisturbed", *SMALL, f"training.max_steps={steps}"), 2)
    return folder / "undisturbed"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ranks_on_three_hosts_train_what_two_on_one_do(cluster: Cluster, tmp_path: Path) -> None:
    run = Run(
        cluster, tmp_path, "training.max_steps=30", "launch.workers=3", "data.lanes=6", "data.global_batch_size=510"
    )
    assert "workers      3 x cpu, 1 on this host" in run.finish()
    told = [re.match(r"rank (\d) of 3: \w+ \d+ on ([\d.]+)", line) for line in run.first_lines()]
    assert [int(line[1]) for line in told if line] == [0, 1, 2]
    assert {line[2] for line in told if line} == {host.address for host in cluster.hosts}
    settings = (*SMALL, "data.lanes=6", "data.global_batch_size=510", "training.max_steps=30")
    train_on(small(str(tmp_path / "data"), tmp_path / "one", *settings), 2)
    on_hosts, one = losses(run.folder), losses(tmp_path / "one")
    assert list(on_hosts) == list(one)
    assert max(relative(one[step], on_hosts[step]) for step in one) < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_host_killed_and_a_host_cut_off_change_no_bit(cluster: Cluster, tmp_path: Path) -> None:
    """Two workers and a spare host, so that there are always two; evaluations leave time for a host to come back."""
    steps = 240
    options = ("launch.workers=2", f"training.max_steps={steps}", "checkpoint.delta_every_s=0.5")
    run = Run(cluster, tmp_path, *options, "training.evaluate_every=4", "data.generate.validation_rows=8000")
    run.wait(lambda: run.step > 20)
    lost = next(host for host in run.hosts() if host.number)
    lost.kill()
    run.wait_for_new_step(workers=2)
    assert lost not in run.hosts()
    cluster.boot(lost)
    cut = next(host for host in run.hosts() if host.number)
    cluster.cut(cut)
    run.wait_for_new_step(workers=2)
    assert cut not in run.hosts()
    run.finish()
    reference = undisturbed(tmp_path, steps)
    assert losses(run.folder) == losses(reference)
    assert_same_bits(final_state(run.folder), final_state(reference))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hosts_that_go_and_come_cost_no_step(cluster: Cluster, tmp_path: Path) -> None:
    """An evaluation after each step makes the run long, and changes nothing in its training."""
    evaluations = ("training.evaluate_every=1", "data.generate.validation_rows=20000")
    elastic = ("launch.workers=3", "launch.min_workers=2", "data.lanes=6", "data.global_batch_size=510")
    run = Run(cluster, tmp_path, *evaluations, *elastic, "training.epochs=100", "checkpoint.delta_every_s=0.5")
    run.wait(lambda: run.step > 3)
    cluster[2].kill()
    run.wait_for_new_step(workers=2)
    cluster.boot(cluster[2])
    run.wait_for_new_step(workers=3)
    cluster.drain(cluster[2], deadline_s=30)
    run.wait_for_new_step(workers=2)
    assert cluster[2] not in run.hosts()
    assert len(re.findall("^failure ", run.screen, re.M)) == 1  # a planned change is none
    cluster.signal_to(run.job, signal.SIGTERM)
    stopped = re.search(r"stopped at step (\d+), which is saved", run.finish(code=1))
    assert stopped, run.screen
    settings = (*SMALL, "data.lanes=6", "data.global_batch_size=510", "training.epochs=100")
    train_on(small(str(tmp_path / "data"), tmp_path / "one", *settings, f"training.max_steps={stopped[1]}"), 2)
    disturbed, one = losses(run.folder), losses(tmp_path / "one")
    assert list(disturbed) == list(one)
    assert max(relative(one[step], disturbed[step]) for step in one) < 1e-5
