"""The one server from which tests fork their processes, so that an import of ten seconds is made once for all of them.

A test session has one such server, whoever starts it first: what it imports is said here together, by all files that
were collected, as the last one to say it alone would undo what the others said.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext

_modules: list[str] = []


def fork_server(*modules: str) -> ForkServerContext:
    """The server's context; `modules` are imported before it forks, if it has not started yet."""
    _modules.extend(modules)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_modules)
    return context
