"""The one error class for mistakes a user can mend. The CLI prints it without a traceback and exits with 2."""


class RunFailed(Exception):  # noqa: N818 - a result, not a mistake in the code
    """A run failed more often than it may. The message says why; the CLI exits with 1."""


class UserError(Exception):
    """A mistake in a config, a file or a command.

    The first line says what is wrong, with the value, the file and the column; the second what to do.
    """
