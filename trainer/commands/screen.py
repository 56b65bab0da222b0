"""What a command prints: its result on standard output, everything else on standard error."""

import json
import math
from typing import Any

import typer


def say(text: str) -> None:
    """A line for whoever watches."""
    typer.echo(text, err=True)


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
