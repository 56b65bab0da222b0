"""The command line: collects the commands, and turns mistakes into one message and an exit code.

Exit codes: 0 done, 1 failed or stopped, 2 the user's mistake (the table in `configs.errors`). What a script reads
(`--json`) is the last line of standard output; everything else goes to standard error.
"""

import errno
import sys

import typer

from configs.errors import Failure
from trainer.commands import (
    compare,
    config,
    doctor,
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
from trainer.commands.screen import open_closed_streams, say

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
app.command("prepare", help=prepare.HELP)(prepare.prepare)
app.command("compare")(compare.compare)
app.command("inspect")(inspect.inspect)
app.command("config")(config.show_config)
app.command("doctor")(doctor.doctor)


_OF_THE_MACHINE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room on that disk, and call the command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give permission to write there, or take another place"),
    **dict.fromkeys((errno.EIO, errno.ESTALE), "look after that disk, and call the command again"),
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}
"""Faults of the machine, not of the code -> what to do."""


_EXTRAS = {
    **dict.fromkeys(("torchrec", "fbgemm_gpu", "ray", "tensorboard"), "train"),
    **dict.fromkeys(("uvicorn", "httptools", "uvloop", "orjson", "grpc", "google"), "serve"),
}
"""Package -> the extra of pyproject.toml that has it."""


def main() -> None:
    """Entry point of `multigate` and `python -m trainer`."""
    open_closed_streams()
    try:
        app()
    except Failure as error:
        say(f"{error.title}: {error}")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name).partition(".")[0])
        if extra is None:
            raise
        say(f"error: {error.name} is not installed here\nInstall what has it: pip install 'multigate[{extra}]'")
        sys.exit(2)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        say(f"failed: {error.strerror}: {error.filename or 'no file is named'}\n{_OF_THE_MACHINE[error.errno]}")
        sys.exit(1)
