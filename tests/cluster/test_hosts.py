"""Runs on several hosts, and what may happen to hosts: they are killed, join, are cut off, are taken away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Cluster, hosts
from tests.trainer.test_train import QUICKSTART, relative, small
from tests.trainer.workers import FEW_ROWS, losses, train_on

OPTIONS = (*FEW_ROWS, "tables.author.sharding=row_wise", "training.log_every=1", "training.max_steps=30")


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with hosts(3) as cluster:
        yield cluster


@pytest.mark.slow
def test_two_hosts_and_three_train_what_one_does(three: Cluster, tmp_path: Path) -> None:
    data = f"data.root={tmp_path / 'data'}"
    for workers in (2, 3):
        run_dir, screen = tmp_path / f"run{workers}", tmp_path / f"screen{workers}"
        settings = (*OPTIONS, data, f"training.run_dir={run_dir}", f"launch.workers={workers}")
        job = three.train(QUICKSTART, *settings, screen=screen)
        assert job.wait(timeout=120) == 0, screen.read_text()
        firsts = [(run_dir / f"logs/latest/rank_{rank}.log").read_text().splitlines()[0] for rank in range(workers)]
        assert {line.split(" on ")[1].split(",")[0] for line in firsts} <= {host.address for host in three.hosts}
        assert len({line.split(" on ")[1] for line in firsts}) == workers
        assert f"workers      {workers} x cpu, 1 on this host" in screen.read_text()
    train_on(small(str(tmp_path / "data"), tmp_path / "one", *OPTIONS, "model.dropout=0"), 2)
    one, two, three_hosts = (losses(tmp_path / name) for name in ("one", "run2", "run3"))
    assert two == one
    assert list(three_hosts) == list(one)
    assert max(relative(one[step], three_hosts[step]) for step in one) < 1e-5
