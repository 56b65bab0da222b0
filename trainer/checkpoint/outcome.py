"""How a save ends on all ranks alike: the state that it made, or one error with the same words."""

from collections.abc import Callable, Collection, Mapping

from torch.distributed.checkpoint.api import CheckpointException

from trainer.checkpoint import files
from trainer.checkpoint.attempts import SupersededError
from trainer.checkpoint.chain import State
from trainer.checkpoint.finite import refuse_to_save
from trainer.file_record import FileRecord
from trainer.ranks.agreement import Agreement
from trainer.run.diverged import DivergedError
from trainer.run.folder import Folder


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read. All ranks raise it with the same message.

    passes: whether it is the storage that failed, no space or no permission, which a later save may find mended.
    """

    def __init__(self, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes


class _NotSeenError(Exception):
    """A file that another rank wrote: no matter of time."""


def completed(ranks: Agreement, folder: Folder, complete: Callable[[], State]) -> State:
    """What `complete` makes on rank 0, on all ranks, of which the others get only what they need: base and last link.

    Raises:
        SupersededError: `complete` did.
        CheckpointError: it raised something else.
    """
    mine: State | Exception | None = None
    if ranks.rank == 0:
        try:
            mine = complete()
        except Exception as error:
            mine = error
    short = State(mine.base, mine.links[-1:]) if isinstance(mine, State) else mine
    outcome = ranks.from_first(short)
    if isinstance(outcome, State):
        return mine if isinstance(mine, State) else outcome
    if isinstance(outcome, SupersededError):
        raise outcome
    assert isinstance(outcome, Exception)
    raise CheckpointError(
        f"{folder} could not be completed: rank 0: {reason(outcome)}", passes=isinstance(outcome, OSError)
    )


def refuse_missing(folder: Folder, records: Mapping[str, FileRecord]) -> None:
    """Sees that all files arrived where rank 0 reads."""
    for name, record in records.items():
        try:
            size = folder.size(name)
        except FileNotFoundError as error:
            raise _NotSeenError(
                f"{error}: a rank wrote it, rank 0 does not see it; is the run directory shared by all hosts?"
            ) from None
        assert size == record.size, f"{name} has {size} bytes, {record.size} were written"


def refuse_unsound(
    ranks: Agreement,
    unsound: Collection[str],
    allowed: Collection[str],
    former: State | None,
    folder: Folder,
    step: int,
) -> None:
    """Raises DivergedError on all ranks, which have written all that they will, and leaves nothing of it."""
    try:
        refuse_to_save(unsound, allowed, former.step if former else None, step, ranks)
    except DivergedError:
        if ranks.rank == 0:
            files.delete(folder)
        raise


def passes(error: BaseException) -> bool:
    """Whether a save that failed so may succeed later."""
    if isinstance(error, CheckpointException):
        return all(isinstance(each[0], OSError) for each in error.failures.values())
    return isinstance(error, OSError)


def reason(error: BaseException) -> str:
    """One line for the ranks that failed."""
    if isinstance(error, CheckpointException):
        parts = [f"rank {rank}: {type(e[0]).__name__}: {e[0]}" for rank, e in sorted(error.failures.items())]
        return "; ".join(parts)
    if isinstance(error, _NotSeenError):
        return str(error)
    return f"{type(error).__name__}: {error}"
