"""What is said of workers that failed, from exceptions as Ray makes them."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from cluster.clues import failure_lines
from cluster.failures import cause_of
from configs.errors import TryAgain

WORKER = """A worker health check failed.
Worker info: Worker(
  actor=Actor(RayTrainWorker, 45d1),
  metadata=ActorMetadata(hostname='two', node_id='0d7b', node_ip='192.0.2.2', pid=9708,
  ),
  distributed_context=DistributedContext(world_rank=1, world_size=2, local_rank=0),
)"""
DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: RayTrainWorker
\tactor_id: 053217f4050c8f544953186a01000000
\tpid: 9708
\tnamespace: f7fe9981
\tip: 192.0.2.2
"""
HOST_LOST = (
    DIED
    + "The actor died because its node has died. Node Id: 0d7b501b95e1\n"
    + "\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
)
PROCESS_LOST = (
    DIED + "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called. If it was "
    "killed by the kernel OOM killer, consider enabling resource isolation to prevent loss of progress by uninformed "
    "kernel OOM killing."
)


class Clues:
    def log_of(self, rank: int) -> str:
        return f"/run/logs/attempt_1/rank_{rank}.log"

    def progress(self) -> str:
        return "after step 1,240"

    def saved(self) -> str:
        return ""


def died(text: str) -> Exception:
    return WorkerHealthCheckFailedError(WORKER, failure=RayActorError(error_msg=text))


def test_a_lost_host_is_named_with_rank_step_cause_and_log() -> None:
    (line,) = failure_lines({1: cause_of(died(HOST_LOST))}, {0: "192.0.2.1", 1: "192.0.2.2"}, Clues())
    assert line == (
        "rank 1 on 192.0.2.2 failed after step 1,240: its host is lost (process 9708, address 192.0.2.2) "
        "(/run/logs/attempt_1/rank_1.log)"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (died(PROCESS_LOST), "its process was killed, or crashed"),
        (died(DIED + "Task was killed due to the node running low on memory"), "ran out of memory"),
        (
            WorkerHealthCheckFailedError(WORKER, ActorUnavailableError("RPC error: 14", None)),
            "does not answer any more",
        ),
        (WorkerHealthCheckTimeoutError("A worker health check has been hanging\n" + WORKER), "stopped, or hanging"),
        (ActorDiedError(), "does not answer any more"),
    ],
)
def test_a_death_is_told_without_ray_s_description_of_the_worker(error: Exception, said: str) -> None:
    cause = cause_of(error)
    assert cause.is_death
    assert said in cause.text
    assert "distributed_context" not in cause.text
    assert "\n" not in cause.text


def test_what_the_function_raised_is_one_line() -> None:
    error = RuntimeError(
        "[gloo/pair.cc:538] Connection closed by peer [10.0.0.1]:4\n\nException raised from ...\nframe 0"
    )
    assert cause_of(error).text == "RuntimeError: [gloo/pair.cc:538] Connection closed by peer [10.0.0.1]:4"
    assert cause_of(KeyError()).text == "KeyError"
    wrapped = ValueError("outside")
    wrapped.cause = OSError(28, "No space left on device", "x")  # pyright: ignore[reportAttributeAccessIssue]
    assert cause_of(wrapped).text == "OSError: [Errno 28] No space left on device: 'x'"


def test_a_failure_with_words_for_users_keeps_what_to_do() -> None:
    cause = cause_of(TryAgain("part-0 was not read\nThe storage does not answer; data.read_timeout_s says more."))
    assert cause.text == "part-0 was not read The storage does not answer; data.read_timeout_s says more."
    assert not cause.is_death


def test_a_large_group_is_cut_short() -> None:
    causes = {rank: cause_of(died(HOST_LOST)) for rank in range(64)}
    lines = failure_lines(causes, {}, Clues())
    assert len(lines) == 5
    assert lines[0].startswith("rank 0 failed after step 1,240: its host is lost")
    assert lines[-1] == "and 60 more ranks with them"
