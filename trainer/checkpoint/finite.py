"""NaN and infinite numbers never reach a checkpoint, nor leave one: what is said where some were found.

What counts as such a number is `values.is_sound`'s business: weights of which no product is a number do too.
"""

from collections.abc import Collection

from trainer.ranks.agreement import Agreement
from trainer.run.diverged import LOOK, DivergedError
from trainer.run.folder import Folder

_SHOWN = 3  # names of tensors in a message


def refuse_to_save(
    mine: Collection[str], allowed: Collection[str], former: int | None, step: int, ranks: Agreement
) -> None:
    """
    Args:
        mine: names of tensors in which this rank found such a number.
        allowed: names of tensors in which they have a meaning.
        former: the step of the checkpoint before, which had none.
    """
    names = _names(mine, allowed, ranks)
    if names:
        resumes = "start again with --overwrite" if former is None else f"--resume resumes at step {former:,}"
        raise DivergedError(
            f"step {step:,} is not saved: {names} became NaN or too large after step {former or 0:,}: training has "
            f"diverged\n{resumes}: with lower learning rates, training.warmup_steps or training.clip_gradient_norm. "
            f"{LOOK}"
        )


def refuse_to_load(mine: Collection[str], allowed: Collection[str], folder: Folder, ranks: Agreement) -> None:
    """The same of a checkpoint that a version without this check wrote. The one before it is better then."""
    names = _names(mine, allowed, ranks)
    if names:
        raise DivergedError(
            f"{folder} has NaN or far too large numbers in {names}: training had diverged before\n"
            "Move that folder away, or let --resume do so: it takes the checkpoint before."
        )


def _names(mine: Collection[str], allowed: Collection[str], ranks: Agreement) -> str:
    """Over all ranks, for a message; empty if all numbers are finite."""
    found = sorted(set().union(*ranks.gather(set(mine))) - set(allowed))
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
