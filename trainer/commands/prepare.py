"""`prepare`: turns a public data set into Parquet parts. How, say `trainer.data.importers`."""

from pathlib import Path
from typing import Annotated

import typer

from configs.choices import load


def prepare(
    dataset: Annotated[str, typer.Argument(help="census-income, kuairand or movielens.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the original files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the Parquet parts.")],
) -> None:
    """Turn a public data set from its original files into Parquet parts."""
    load("trainer.data.importers", dataset.replace("-", "_")).prepare(str(source), str(out))
