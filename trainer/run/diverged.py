"""What is said of a run whose numbers are no numbers any more, wherever that is found."""

from configs.errors import UserError

LOOK = "Look at labels and dense columns of extreme size too: `inspect` shows their ranges."
SKIP = "A few bad rows: training.non_finite=skip leaves their batches out."


class DivergedError(UserError):
    """NaN or infinite numbers in a loss or a state. All ranks raise it with the same message."""
