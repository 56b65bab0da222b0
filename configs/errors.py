"""How this product fails. One table:

    exception           who raises it                                            begins again   exit code

    UserError           whoever reads what a user wrote: a config, a file,       never          2
                        the arguments of a command. DataError is one
    TryAgain            data and storage (StorageUnavailable): something that    yes            1
                        passes did not answer for as long as it may
    RunFailed           the launcher: failures beyond launch.max_failures;       -              1
                        export: the bundle scores differently (ParityError)
    RunStopped          train, compare: a signal ended the run                   -              1
    OSError of the      whoever writes: no space, no permission                  yes            1
    machine
    anything else       a fault in the code, or of the machine                   yes            1, with a traceback

Failures of workers count against launch.max_failures. The command line prints those of the table without a
traceback (`trainer.cli`); a line for each failed rank comes from `cluster.clues`.
"""


class Failure(Exception):  # noqa: N818 - a result, not a mistake in the code
    """An end that has its words: the first line says what happened, the second what to do."""

    exit_code = 1
    title = "failed"


class UserError(Failure):
    """A mistake in a config, a file or a command; never tried again.

    The first line says what is wrong, with the value, the file and the column; the second what to do.
    """

    exit_code = 2
    title = "error"


class TryAgain(Failure):
    """Something outside does not answer, and may later: the workers start again, from the newest checkpoint."""


class RunFailed(Failure):
    """Given up: a run that failed more often than it may, a result that is not what it must be."""


class RunStopped(Failure):
    """Stopped on request, before its end."""
