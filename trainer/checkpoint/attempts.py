"""Which start of a run may write: every start of the workers claims a number, and says which state it went on from.

    checkpoints/attempts/000003     claimed by creating it, which one caller alone can
    checkpoints/attempts/000003.from    {"step": 1200}, once that attempt has loaded

Workers that were cut off (a network that parted, a machine that slept) may come back after others have taken over.
They find a newer number and stand down. Where they write before they see it, nothing is lost either: what an attempt
wrote beyond the step that a newer one went on from is no part of the run. Imports no torch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from configs.errors import UserError
from trainer.run.folder import Folder

FOLDER = "attempts"
_NAME = re.compile(r"(\d{6,})")
_FROM = re.compile(r"(\d{6,})\.from")
NO_BOUND = 2**62


class SupersededError(UserError):
    """Another attempt has taken over; this one must not write, and must not start again."""


@dataclass(frozen=True)
class Attempt:
    """A start of the workers, by its number from 1. 0 is that of runs which numbered none: nothing is newer to it."""

    folder: Folder
    number: int

    def went_on_from(self, step: int) -> None:
        """What older attempts write beyond `step` does not count from now on."""
        self.folder.write_bytes(f"{self.number:06d}.from", json.dumps({"step": step}).encode())

    @property
    def is_newest(self) -> bool:
        return self.number == 0 or not any(number > self.number for number in _claimed(self.folder))

    def refuse_if_superseded(self, what: str) -> None:
        """Raises SupersededError where a newer attempt is there."""
        newest = max(_claimed(self.folder), default=0)
        if self.number and newest > self.number:
            raise SupersededError(
                f"{what} is not written: attempt {newest} has taken over from attempt {self.number}\n"
                "This one ends. If two jobs train into one run directory, give one of them another training.run_dir."
            )


def claim(checkpoints: Folder, content: str = "") -> Attempt:
    """The next number, of which no other process holds one."""
    folder = checkpoints.child(FOLDER)
    number = max(_claimed(folder), default=0)
    while True:
        number += 1
        if folder.create(f"{number:06d}", content.encode()):
            return Attempt(folder, number)


def bounds(checkpoints: Folder) -> dict[int, int]:
    """Attempt -> the step it went on from, of those that said so."""
    folder = checkpoints.child(FOLDER)
    found = {}
    for name in folder.names():
        if match := _FROM.fullmatch(name):
            try:
                found[int(match[1])] = int(json.loads(folder.read_bytes(name))["step"])
            except (ValueError, KeyError, TypeError):  # cut: whoever wrote it had not gone on yet
                continue
    return found


def last_step_of(attempt: int, went_on_from: Mapping[int, int]) -> int:
    """The last step up to which what this attempt wrote is part of the run."""
    return min((step for number, step in went_on_from.items() if number > attempt), default=NO_BOUND)


def _claimed(folder: Folder) -> list[int]:
    return [int(match[1]) for name in folder.names() if (match := _NAME.fullmatch(name))]
