"""A process that has imported everything and waits. On an order it forks one that calls the function.

    python -m cluster.standby SOCKET MODULE...

So a rank that was lost is back in the time that a fork takes, not in the ten seconds that torch and TorchRec take to
import. An agent connects to SOCKET and stays connected; every further connection brings an order. What was forked is
ended with its agent; the standby itself waits for the next agent for a while: its host is often used again.

A fork is safe here: this process runs one thread, has done nothing in parallel, and knows no Ray. Where an import has
opened a GPU it is not, since CUDA does not survive a fork: then this process carries out the order itself, and the
agent starts the next one.
"""

import ctypes
import os
import select
import signal
import socket
import sys
import threading
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path

from cluster.calling import call
from cluster.imports import without_collections

ALONE_S = 120.0  # how long it waits for the next agent
_PR_SET_PDEATHSIG = 1


def main(path: str, *modules: str) -> None:
    """Waits at `path` with `modules` imported, until no agent has come for ALONE_S, or one says that all is done."""
    if os.fork():
        os._exit(0)  # Ray ends the children of an agent with it; what is nobody's child stays for the next agent
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()  # before the imports: who connects meanwhile waits
        try:
            with without_collections():
                for module in modules:
                    import_module(module)
            Path(path).with_suffix(".ready").touch()
            listener.settimeout(ALONE_S)
            while _serve(listener, Connection(listener.accept()[0].detach())):
                pass
        except TimeoutError:
            pass
        finally:
            Path(path).unlink(missing_ok=True)


def _serve(listener: socket.socket, agent: Connection) -> bool:
    """Serves one agent until it is gone; whether another one may come."""
    forked: int | None = None  # a descriptor of the process; its number may be another's after its end
    while True:
        watched = [agent, listener if forked is None else forked]
        ready, _, _ = select.select(watched, [], [])
        if forked in ready and forked is not None:
            _tell(agent, _wait(forked))
            forked = None
        if agent in ready:
            word = _word_of(agent)
            if forked is not None:
                signal.pidfd_send_signal(forked, signal.SIGKILL)
                if word == "kill":
                    continue  # its end is told above
                _wait(forked)
                forked = None
            if word != "kill":
                agent.close()
                return word == "gone"
        elif listener in ready:
            order = Connection(listener.accept()[0].detach())
            if _has_opened_gpu():
                _become(listener, agent, order)
            forked = _fork(listener, agent, order)


def _word_of(agent: Connection) -> str:
    """ "kill" the process; "leave", all is done; or the agent is "gone"."""
    try:
        return agent.recv()
    except (EOFError, OSError):
        return "gone"


def _tell(agent: Connection, code: int) -> None:
    try:
        agent.send(code)
    except OSError:
        return  # it is gone, which the next turn finds out


def _wait(process: int) -> int:
    """The exit code of a process that ends; minus the signal's number where one ended it."""
    ended = os.waitid(os.P_PIDFD, process, os.WEXITED)
    os.close(process)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _fork(listener: socket.socket, agent: Connection, order: Connection) -> int:
    """A descriptor of the new process, which calls the function."""
    here = os.getpid()
    pid = os.fork()
    if pid:
        order.close()
        return os.pidfd_open(pid)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != here:
        os._exit(1)  # it died meanwhile
    listener.close()
    agent.close()
    call(order, is_forked=True)
    os._exit(0)


def _has_opened_gpu() -> bool:
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return any(os.readlink(link).startswith("/dev/nvidia") for link in links if os.path.lexists(link))


def _become(listener: socket.socket, agent: Connection, order: Connection) -> None:
    """Carries out the order in this process, which ends with it."""
    os.unlink(listener.getsockname())
    listener.close()

    def watch() -> None:
        _word_of(agent)
        os._exit(1)

    threading.Thread(target=watch, name="agent", daemon=True).start()
    call(order, is_forked=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
