"""`export`: writes a bundle of a run's newest checkpoint. How, says `trainer.export`."""

from pathlib import Path
from typing import Annotated

import typer

from trainer.commands.options import RunFolder
from trainer.commands.screen import report


def export(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; RUN/export if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Write a bundle for serving: program, tables, feature transforms and a parity check."""
    from trainer.export.write import export as export_run

    report(f"bundle: {export_run(str(run), str(out) if out else None, overwrite=overwrite)}")
