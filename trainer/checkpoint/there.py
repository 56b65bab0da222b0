"""Which bases and links a folder of checkpoints has, by their marks: no other file is read, and nothing changed.

Whether their files are whole is `finding`'s to check. Imports no torch: the driver asks, before anything is started.
"""

from typing import NamedTuple

from trainer.checkpoint import attempts, files, link_files
from trainer.checkpoint.chain import State, all_states, counts, newest_state
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.link_files import Link, find_links
from trainer.checkpoint.marks import COMPLETE
from trainer.run.folder import Folder


class There(NamedTuple):
    """What a folder of checkpoints has, by its marks."""

    bases: list[Checkpoint]
    links: list[Link]
    went_on_from: dict[int, int]
    damaged: dict[Folder, str]

    def without(self, damaged: Folder) -> "There":
        bases = [base for base in self.bases if base.folder.path != damaged.path]
        return self._replace(bases=bases, links=[link for link in self.links if link.folder.path != damaged.path])


def there(checkpoints: Folder) -> There:
    """Reads the marks alone."""
    (bases, damaged), (links, damaged_links) = files.find(checkpoints), find_links(checkpoints)
    return There(bases, links, attempts.bounds(checkpoints), damaged | damaged_links)


def lately_there(checkpoints: Folder) -> There:
    """The same without links that the newest base has made needless: enough to find the newest state."""
    (bases, damaged), went_on_from = files.find(checkpoints), attempts.bounds(checkpoints)
    newest = max((base.step for base in bases if counts(base, went_on_from)), default=-1)
    links, damaged_links = find_links(checkpoints, beyond=newest)
    return There(bases, links, went_on_from, damaged | damaged_links)


def newest_step(checkpoints: Folder) -> int | None:
    """The highest step of a base or link, by the names of files: no file is read."""
    begun = [(step, checkpoints.child(files.folder_name(step))) for step in files.steps_of(checkpoints)]
    begun += [(link_files.step_of(folder), folder) for folder in link_files.link_folders(checkpoints)]
    newest_first = sorted(begun, key=lambda found: found[0], reverse=True)
    return next((step for step, folder in newest_first if folder.exists(COMPLETE)), None)


def newest_by_marks(checkpoints: Folder) -> State | None:
    """The newest state, no file of which was checked. For what is shown or compared, not for what is loaded."""
    found = lately_there(checkpoints)
    return newest_state(found.bases, found.links, found.went_on_from)


def states_by_step(checkpoints: Folder) -> dict[int, State]:
    """Every state that can be taken; no file of it was checked."""
    found = there(checkpoints)
    return {state.step: state for state in all_states(found.bases, found.links, found.went_on_from)}
