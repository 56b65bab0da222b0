"""What rank 0 does for a chain between two saves: merges the next base, and removes what is kept no longer.

The chain behind a base stays short: after 200 links, or a quarter of the base's bytes (32 MiB where that is more), a
process merges the next one out of files, while training and links go on. How a merge is done is `merge`'s business,
what a link has `links`'.
"""

import os
import subprocess
from collections.abc import Callable, Collection, Iterable

from configs.schema import CheckpointConfig
from trainer.checkpoint import files, link_files
from trainer.checkpoint.attempts import Attempt
from trainer.checkpoint.chain import State
from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.link_files import Link
from trainer.checkpoint.marks import COMPLETE
from trainer.checkpoint.merge import command
from trainer.run.folder import Folder

LONGEST = 200
LARGEST = 0.25  # of the base's bytes
AT_LEAST = 32 << 20  # bytes that are read in no time: a small base is not merged at every link
_WITH_WHOLE = 3  # last links that keep their whole parts
_EVERY = 20


class Upkeep:
    """Of one run's checkpoints, by one attempt.

    Attributes:
        best_step: of some steps, the one whose evaluation is best; None where none is known.
    """

    def __init__(self, checkpoints: Folder, config: CheckpointConfig, say: Callable[[str], None]) -> None:
        self.best_step: Callable[[Collection[int]], int | None] = lambda steps: None
        self.attempt = Attempt(checkpoints, 0)
        self._checkpoints, self._config, self._say = checkpoints, config, say
        self._merge: tuple[subprocess.Popen[bytes], State] | None = None
        self._next: State | None = None  # to be merged after that one
        self._tries_again_at = 0  # links, after a merge that failed

    def after_base(self, state: State) -> State:
        self._prune(state)
        return state

    def after_link(self, state: State, *, base_wanted: bool) -> State:
        """Returns the same state, on a newer base where one has been merged."""
        self._thin(state)
        state = self._take_merged(state)
        is_idle = self._next is None and self._merge is None
        if base_wanted or (is_idle and self._is_long(state)):
            self._next = state
        self._start()
        return state

    def finish(self, state: State) -> State:
        """Returns when a merge that is wanted has ended."""
        while self._merge is not None or self._next is not None:
            self._start()
            if self._merge is not None:
                self._merge[0].wait()
            state = self._take_merged(state)
        return state

    def close(self) -> None:
        """Ends a merge that is going on: what it did does not count."""
        if self._merge is not None:
            self._merge[0].kill()
            self._merge[0].communicate()
        self._merge = self._next = None

    def _is_long(self, state: State) -> bool:
        links = state.links
        if len(links) < self._tries_again_at:
            return False
        return len(links) >= LONGEST or sum(link.size for link in links) >= max(AT_LEAST, LARGEST * state.base.size)

    def _start(self) -> None:
        if self._merge is None and self._next is not None:
            state, self._next = self._next, None
            process = subprocess.Popen(
                command(self._checkpoints, state, self.attempt),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # NumPy starts no threads
            )
            self._merge = process, state

    def _take_merged(self, state: State) -> State:
        if self._merge is None or self._merge[0].poll() is None:
            return state
        (process, merged), self._merge = self._merge, None
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip().splitlines()
        process.stderr.close()
        if process.returncode:
            self._tries_again_at = len(state.links) + _EVERY
            self._say(f"no base was merged at step {merged.step:,}: {said[-1] if said else 'its process was killed'}")
            return state
        self._tries_again_at = 0
        base = files.read_complete(self._checkpoints.child(files.folder_name(merged.step)))
        links = tuple(link for link in state.links if link.step > base.step)
        state = State(base, links)
        if self._next is not None:
            self._next = State(base, tuple(link for link in self._next.links if link.step > base.step))
            self._next = self._next if self._next.links else None
        self._prune(state)
        return state

    def _thin(self, state: State) -> None:
        """Whole parts stay with the last links and every twentieth, and with those that are being merged."""
        if len(state.links) <= _WITH_WHOLE:
            return
        link = state.links[-1 - _WITH_WHOLE]
        merging = {part.end.digest for part in (self._next, self._merge and self._merge[1]) if part is not None}
        if link.number % _EVERY and link.digest not in merging:
            link_files.drop_whole(link)

    def _prune(self, state: State) -> None:
        """Steps beyond the state are left alone: they belong to a run that was taken back."""
        if not self.attempt.is_newest:
            return
        steps = [step for step in sorted(files.steps_of(self._checkpoints)) if step <= state.base.step]
        folders = {step: self._checkpoints.child(files.folder_name(step)) for step in steps}
        complete = [step for step in steps if folders[step].exists(COMPLETE)]
        last = complete[-self._config.keep :]
        kept = {*last, *kept_for_ever(complete, self._config, self.best_step(complete))}
        for step in steps:
            if step not in kept:
                files.delete(folders[step])
        if last:
            self._prune_links(last[0], state.base)

    def _prune_links(self, first_base: int, base: Checkpoint) -> None:
        for folder in link_files.link_folders(self._checkpoints):
            step = link_files.step_of(folder)
            if step <= first_base or (step <= base.step and not folder.exists(COMPLETE)):
                files.delete(folder)


def kept_for_ever(steps: Iterable[int], config: CheckpointConfig, best: int | None) -> set[int]:
    """Of these steps, those that stay whatever comes later."""
    every = config.keep_every_steps
    kept = {step for step in steps if every and step % every == 0}
    return kept | ({best} if config.keep_best and best is not None else set())


def set_aside_later(checkpoints: Folder, step: int, links: Iterable[Link]) -> None:
    """Links beyond the step that a run goes on from are no part of it any more."""
    for link in links:
        if link.step > step:
            files.set_aside(link.folder)
