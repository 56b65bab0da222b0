"""The one error class for mistakes a user can mend. The CLI prints it without a traceback and exits with 2."""


class UserError(Exception):
    """A mistake in a config, a file or a command.

    The first line says what is wrong, with the value, the file and the column; the second what to do.
    """
