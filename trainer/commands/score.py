"""`score`: predictions of a bundle over Parquet files. How, says `trainer.serving.score`."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.commands.options import SkipChecksums
from trainer.commands.screen import say


def score(
    bundle: Path,
    files: Annotated[list[str], typer.Argument(help="Parquet files, or folders or URLs of data sets.")],
    out: Annotated[str, typer.Argument(help="A file for one input file, else a folder; local, or a URL.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that were scored before.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what this bundle scored from these files before, and score the rest.")
    ] = False,
    skip_checksums: SkipChecksums = False,
) -> None:
    """Score Parquet FILES with a BUNDLE; OUT gets the predictions beside the rows' columns."""
    from trainer.serving.score import score_files

    score_files(str(bundle), files, out, overwrite=overwrite, resume=resume, verify=not skip_checksums, say=say)
