"""Several ranks on each of several hosts: one rank is killed, then one host. What may happen to hosts: `test_hosts`."""

import os
import signal
from pathlib import Path

import pytest

from tests.cluster.hosts import QUICK_CHECKS, hosts
from tests.cluster.test_hosts import SMALL, Run
from tests.trainer.test_train import relative, small
from tests.trainer.workers import losses, train_on


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_on_each_of_two_hosts_come_back_as_four_and_as_two(tmp_path: Path) -> None:
    """First one rank is killed, then a whole host: two ranks are left, with as many lanes each as they can take."""
    steps, shape = 60, (*SMALL, "data.lanes=4", "data.global_batch_size=512")
    elastic = ("launch.workers=4", "launch.min_workers=2", "checkpoint.delta_every_s=0.5")
    with hosts(2, cpus=2, environment=QUICK_CHECKS) as cluster:
        run = Run(cluster, tmp_path, *shape, *elastic, "training.epochs=100", f"training.max_steps={steps}")
        run.wait(lambda: run.step > 3)
        assert "workers      4 x cpu, 2 on this host" in run.screen
        assert sorted(host.number for host in run.hosts()) == [0, 0, 1, 1]
        run.wait(lambda: run.step > 10)
        os.kill(cluster.rank(run.folder, 3).process.pid, signal.SIGKILL)
        run.wait_for_new_step(workers=4)
        assert sorted(host.number for host in run.hosts()) == [0, 0, 1, 1]
        cluster[1].kill()
        run.wait_for_new_step(workers=2)
        assert [host.number for host in run.hosts()] == [0, 0]
        run.finish()
    train_on(small(str(tmp_path / "data"), tmp_path / "one", *shape, f"training.max_steps={steps}"), 2)
    disturbed, one = losses(run.folder), losses(tmp_path / "one")
    assert list(disturbed) == list(one)
    assert max(relative(one[step], disturbed[step]) for step in one) < 1e-5
