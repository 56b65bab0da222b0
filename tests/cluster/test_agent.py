"""What an agent makes of what it sees of its process."""

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cluster.agent import _is_stopped, where_it_hangs


def waits_in_all_reduce(file: str) -> str:
    return f"""Thread 0x00007f (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 324 in wait

Current thread 0x00007e (most recent call first):
  File "{file}", line 2900 in all_reduce
  File "/usr/lib/torch/distributed/c10d_logger.py", line 81 in wrapper
  File "/code/trainer/train.py", line 80 in fit
"""


def test_a_rank_that_waits_for_its_peers_is_told_from_the_one_that_it_waits_for() -> None:
    waiting = waits_in_all_reduce("/usr/lib/torch/distributed/distributed_c10d.py")
    assert where_it_hangs(waiting) == "it waits for its peers, in all_reduce"
    with tempfile.TemporaryFile("w+") as stacks:
        faulthandler.dump_traceback(stacks, all_threads=True)
        stacks.seek(0)
        told = where_it_hangs(stacks.read())
    assert told.startswith("it is in test_a_rank_that_waits_for_its_peers_is_told_from_the_one_that_it_waits_for, ")
    assert Path(__file__).name in told
    assert where_it_hangs("") == "it does not say where"


def test_a_stopped_process_is_seen_and_one_that_sleeps_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert not _is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 10
        while not (stopped := _is_stopped(process.pid)) and time.monotonic() < end:
            time.sleep(0.01)
        assert stopped
        process.kill()
    assert not _is_stopped(process.pid)
    assert not _is_stopped(None)
    assert not _is_stopped(os.getpid())
