"""What `doctor` runs on each node: an actor that answers, and processes that form a group. Sent to nodes by value."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.doctor.node_facts import facts
from cluster.doctor.reaching import Listening, reach_all

_WAIT_S = 0.2


@ray.remote(num_cpus=0, max_restarts=0)
class Examiner:
    """Answers about one node."""

    def facts(self, *asked: Any) -> dict[str, Any]:
        """See `node_facts`; and whether Ray asks for a token."""
        from ray._private.authentication.authentication_utils import is_token_auth_enabled

        return facts(*asked) | {"has_token": is_token_auth_enabled()}

    def listen(self, address: str) -> int:
        """Begins to accept connections; the port."""
        self._listening = Listening(address)
        return self._listening.port

    def reach(self, targets: Sequence[dict[str, Any]], timeout_s: float) -> list[dict[str, Any]]:
        """See `reach_all`."""
        return reach_all(targets, timeout_s)

    def write(self, folder: str, name: str) -> str | None:
        """Writes a small file; what went wrong, or None."""
        try:
            with open(Path(folder) / name, "x") as file:
                file.write(name)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.strerror or str(error)
        return None

    def missing(self, folder: str, names: Sequence[str], timeout_s: float) -> list[str]:
        """Which of the files that others wrote cannot be read here, after as long as that may take."""
        end = time.monotonic() + timeout_s
        while True:
            names = [name for name in names if not _holds(Path(folder) / name)]
            if not names or time.monotonic() > end:
                return list(names)
            time.sleep(_WAIT_S)

    def remove(self, folder: str, names: Sequence[str]) -> None:
        for name in names:
            (Path(folder) / name).unlink(missing_ok=True)

    def look(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """What a function of the caller's says here: it imports the project."""
        return function(argument)


def _holds(path: Path) -> bool:
    """Whether the file is here with its content: its own name."""
    try:
        return path.read_text() == path.name
    except OSError:
        return False
