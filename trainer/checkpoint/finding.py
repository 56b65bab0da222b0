"""The newest saved state of a run whose files are whole: the same on all ranks, each of which checks a share of them.

What is damaged is named, set aside, and does without: a chain ends before a damaged link, and where a base is damaged
the one before it is taken, with the chain that goes on from there.
"""

import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from configs.errors import UserError
from trainer.checkpoint import files, marks
from trainer.checkpoint.chain import State, newest_state
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.link_files import Link
from trainer.checkpoint.there import There, lately_there, there
from trainer.ranks.agreement import Agreement
from trainer.run.folder import Folder

_AT_ONCE = 4  # files that a rank checks at the same time


class Finder:
    """Finds states for a Checkpointer, on all its ranks together.

    Attributes:
        refused: digest -> what is wrong with the values of a base or link whose files are whole.
    """

    def __init__(self, checkpoints: Folder, ranks: Agreement) -> None:
        self.refused: dict[str, str] = {}
        self._checkpoints, self._ranks = checkpoints, ranks
        self._whole: set[str] = set()  # digests of what was checked

    def newest(self, say: Callable[[str], None]) -> State | None:
        """None in a new run.

        Raises:
            UserError: there are checkpoints, but none is whole; or some host does not see them.
        """
        found = self._agreed(lately_there)
        damaged = dict(found.damaged)
        while (state := newest_state(found.bases, found.links, found.went_on_from)) is not None:
            wrong = self.first_problem(state)
            if wrong is None:
                break
            damaged[wrong[0]] = wrong[1]
            found = self._agreed(there)
            for folder in damaged:
                found = found.without(folder)
        if state is None and (damaged or found.links):
            why = list(damaged.values()) or ["there are links, but not the base that they follow"]
            raise UserError(
                f"no checkpoint of {self._checkpoints} is whole: {'; '.join(why)}\n"
                "restore the files, or start again from the beginning with --overwrite"
            )
        if self._ranks.rank == 0:
            for folder, problem in damaged.items():
                say(f"{problem}; set aside, taking the checkpoint before")
                files.set_aside(folder)
        return state

    def _agreed(self, read: Callable[[Folder], There]) -> There:
        """What rank 0 reads."""
        found = self._ranks.from_first(read(self._checkpoints) if self._ranks.rank == 0 else None)
        assert found is not None
        return found

    def first_problem(self, state: State) -> tuple[Folder, str] | None:
        """The first part of a state, from its base on, that is not whole, and why."""
        parts = {part.digest: part for part in (state.base, *state.links)}
        for digest, part in parts.items():
            if digest in self.refused:
                return part.folder, self.refused[digest]
        needed = {digest: _needed(part, is_end=part is state.end) for digest, part in parts.items()}
        unchecked = {f"{digest}/{name}" for digest in parts for name in needed[digest]} - self._whole
        problems = self._problems({key: parts[key.partition("/")[0]] for key in sorted(unchecked)})
        self._whole |= unchecked - problems.keys()
        for digest, part in parts.items():
            found = [text for key, text in sorted(problems.items()) if key.startswith(f"{digest}/")]
            if found:
                return part.folder, "; ".join(found)
        return None

    def _problems(self, unchecked: dict[str, Checkpoint | Link]) -> dict[str, str]:
        """DIGEST/FILE -> what is wrong with that file, each read by one rank; the same on all ranks.

        Raises:
            UserError: a host finds something wrong that rank 0 does not.
        """
        mine = list(unchecked)[self._ranks.rank :: self._ranks.world_size]
        reports = self._ranks.gather((socket.gethostname(), _checked(unchecked, mine)))
        suspects = {key: f"on host {host}, {text}" for host, found in reports for key, text in found.items()}
        confirmed = self._ranks.from_first(_checked(unchecked, suspects) if self._ranks.rank == 0 else {})
        for key in suspects.keys() - confirmed.keys():
            raise UserError(f"{suspects[key]}; rank 0 finds nothing wrong with it\nmount the same folder on all hosts")
        return confirmed


def _needed(part: Checkpoint | Link, *, is_end: bool) -> list[str]:
    return part.needed(is_end=is_end) if isinstance(part, Link) else list(part.files)


def _checked(unchecked: dict[str, Checkpoint | Link], keys: Iterable[str]) -> dict[str, str]:
    """Several files at a time: those of a chain are many, and most of the time of a restore is reading."""

    def problem(key: str) -> str | None:
        part, name = unchecked[key], key.partition("/")[2]
        return marks.problems(part.folder, {name: part.files[name]}).get(name)

    keys = list(keys)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {key: found for key, found in zip(keys, pool.map(problem, keys), strict=True) if found is not None}
