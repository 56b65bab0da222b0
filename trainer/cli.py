"""The command line: collects the commands, and turns mistakes into one message and an exit code.

Exit codes: 0 done, 1 failed, 2 the user's mistake. What a script reads (`--json`) is the last line of standard output;
everything else goes to standard error.
"""

import sys

import typer

from configs.errors import RunFailed, UserError
from trainer.commands import (
    compare,
    config,
    evaluate,
    export,
    generate,
    inspect,
    plan,
    prepare,
    score,
    serve,
    train,
)
from trainer.commands.screen import say

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Trains multi-task rankers with large sparse embeddings on many machines.",
)
app.command("train", help=train.HELP)(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("plan")(plan.plan)
app.command("export")(export.export)
app.command("score")(score.score)
app.command("serve")(serve.serve)
app.command("generate")(generate.generate)
app.command("prepare")(prepare.prepare)
app.command("compare")(compare.compare)
app.command("inspect")(inspect.inspect)
app.command("config")(config.show_config)


def main() -> None:
    """Entry point of `multigate` and `python -m trainer`."""
    try:
        app()
    except UserError as error:
        say(f"error: {error}")
        sys.exit(2)
    except RunFailed as error:
        say(f"failed: {error}")
        sys.exit(1)
