"""`export`: writes a bundle of a run's checkpoint. How, says `trainer.export`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from configs.errors import UserError
from configs.export_config import ExportConfig
from configs.mistakes import from_pydantic
from trainer.commands.options import RunFolder
from trainer.commands.screen import report, say


def export(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; RUN/export if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    checkpoint: Annotated[str, typer.Option(help="latest, best (by the run's evaluations), or a step.")] = "latest",
    precision: Annotated[str | None, typer.Option(help="Of the top: fp32 or bf16.")] = None,
    tables: Annotated[str | None, typer.Option(help="Rows of tables: fp32, fp16, int8 or int4.")] = None,
    device: Annotated[str | None, typer.Option(help="Where it computes: cpu or cuda.")] = None,
    score: Annotated[
        list[str] | None, typer.Option(help="NAME=FORMULA of tasks, such as 'rank=click ** 0.6 * like'; repeatable.")
    ] = None,
    calibrate: Annotated[
        list[str] | None, typer.Option(help="TASK=platt or TASK=isotonic, fitted on the validation part; repeatable.")
    ] = None,
    format: Annotated[str | None, typer.Option(help="program, or onnx for model.onnx as well.")] = None,
) -> None:
    """Write a bundle for serving: program, tables, feature transforms and a parity check.

    What is left out is as the run's config says in its section `export`.
    """
    given: dict[str, Any] = {"precision": precision, "tables": tables, "device": device, "format": format}
    if score:
        given["scores"] = dict(
            _named("--score", one, "NAME=FORMULA, such as 'rank=click ** 0.6 * like'") for one in score
        )
    if calibrate:
        given["calibration"] = dict(_named("--calibrate", one, "TASK=KIND, such as click=platt") for one in calibrate)
    settings = _checked({key: value for key, value in given.items() if value is not None})
    from trainer.export.write import export as export_run

    folder = str(out) if out else None
    written = export_run(str(run), folder, overwrite=overwrite, checkpoint=checkpoint, settings=settings, say=say)
    report(f"bundle: {written}")


def _named(option: str, text: str, form: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark:
        raise UserError(f"{option} {text!r} has no =\nGive {form}.")
    return name.strip(), value.strip()


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Raises UserError for a value that the section `export` does not take."""
    try:
        ExportConfig.model_validate(settings)
    except ValidationError as error:
        mistake, value = from_pydantic(error, root=ExportConfig)[0], error.errors()[0]["input"]
        key, *names = mistake.path
        option = {"calibration": "calibrate", "scores": "score"}.get(key, key)
        given = "=".join([*names, str(value)])
        raise UserError(f"--{option} {given}: {mistake.message}\nSee: export --help") from None
    return settings
