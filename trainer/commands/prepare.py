"""`prepare`: turns a public data set into Parquet parts. How, say `trainer.data.importers`."""

from pathlib import Path
from typing import Annotated

import typer

from configs.choices import described
from configs.merge import read_settings

HELP = "\n\n".join(
    [
        "Turn a public data set from its original files into Parquet parts.",
        "DATASET is one of:",
        *(f"{name} - {text}" for name, text in described("trainer.data.importers").items()),
    ]
)


def prepare(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name from the list above.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the original files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the Parquet parts.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings of the data set: config --choices lists them."),
    ] = None,
) -> None:
    from trainer.data.importers import importer

    importer(dataset, read_settings(settings or []))(str(source), str(out))
