"""Plain TCP connections between all pairs of nodes, and the difference of their clocks on the way.

Sent to nodes by value, and imports the standard library alone. A node listens on a port that the system chooses, as
ranks and Ray's workers do; that its raylet's port can be reached too shows what a firewall lets through.
"""

import socket
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

AT_ONCE = 256
_ROUNDS = 3  # questions about the time; the quickest answer counts


class Listening:
    """Accepts connections and says what time it is, until closed."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._server = socket.create_server(("", 0), family=family, backlog=512)
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            threading.Thread(target=_tell_time, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._server.close()


def reach_all(targets: Sequence[dict[str, Any]], timeout_s: float) -> list[dict[str, Any]]:
    """What came of a connection to each target: {node, address, port, what}, plus `ms` or `problem`, all at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda target: target | _reach(target, timeout_s), targets))


def _reach(target: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    began = time.monotonic()
    try:
        with socket.create_connection((target["address"], target["port"]), timeout=timeout_s) as connection:
            answer: dict[str, Any] = {"ms": round((time.monotonic() - began) * 1e3, 2)}
            return answer | (_clock(connection) if target["what"] == "ranks" else {})
    except OSError as error:
        waited = time.monotonic() - began
        what = f"no answer in {waited:.0f} s" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return {"problem": what}


def _tell_time(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(30)
        try:
            while connection.recv(1):
                connection.sendall(struct.pack("!d", time.time()))
        except OSError:  # the other end is gone
            return


def _clock(connection: socket.socket) -> dict[str, float]:
    """How far the other's clock is ahead; right within half of the time that the question took."""
    best: tuple[float, float] | None = None
    for _ in range(_ROUNDS):
        sent = time.time()
        connection.sendall(b"?")
        answer = connection.recv(8, socket.MSG_WAITALL)
        came = time.time()
        if len(answer) < 8:
            raise ConnectionError("the connection was closed")
        if best is None or came - sent < best[0]:
            best = (came - sent, struct.unpack("!d", answer)[0] - (sent + came) / 2)
    assert best is not None
    return {"ahead_s": round(best[1], 4), "round_trip_ms": round(best[0] * 1e3, 3)}
