"""What a command prints: its result on standard output, everything else on standard error."""

import json
import math
import os
import sys
from typing import Any

import typer


def open_closed_streams() -> None:
    """Standard streams that were closed (`2>&-`) lead nowhere from now on.

    Otherwise the next files that are opened, or Ray's sockets, become standard output and error of all libraries.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def say(text: str) -> None:
    """A line for whoever watches. Where nobody can any more (a closed terminal, a full disk), work goes on."""
    try:
        typer.echo(text, err=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - what is left in the old one would fail again at the end


def report(text: str, values: Any = None, as_json: bool = False) -> None:
    """The result: text on standard output, or on standard error when a script wants the JSON."""
    typer.echo(text, err=as_json)
    if as_json:
        typer.echo(json.dumps(_finite(values), allow_nan=False))


def _finite(values: Any) -> Any:
    """JSON has no NaN: a metric that is undefined is null."""
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values
