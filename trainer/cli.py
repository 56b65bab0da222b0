"""The command line: parses, calls one function a command, and turns mistakes into one message and an exit code.

Exit codes: 0 done, 1 failed, 2 the user's mistake. What a script reads (`--json`) is the last line of standard output;
everything else goes to standard error. Nothing heavy is imported before a command needs it, so that `--help` and
config errors come at once.
"""

import json
import math
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from configs.errors import RunFailed, UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Trains multi-task rankers with large sparse embeddings on many machines.",
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file; configs/ has presets.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.global_batch_size=8192.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON object on the last line of standard output.")]


def _described(package: str) -> str:
    """A paragraph for each choice, for help texts."""
    from configs.choices import described

    return "\n\n".join(f"{name} - {text}" for name, text in described(package).items())


def _load(path: Path, overrides: list[str] | None) -> Any:
    from configs.load import load_config

    return load_config(path, overrides or [])


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _report(text: str, values: Any, as_json: bool) -> None:
    """Text for a reader on standard output, or on standard error when a script wants the JSON."""
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


@app.command(help=f"Train a config; writes its run directory.\n\nmodel.top is one of:\n\n{_described('models.tops')}")
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete what the run directory holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, print the config, start nothing.")] = False,
) -> None:
    settings = _load(config, overrides)
    from trainer.jobs import check_run, train_run

    if dry_run:
        _report(check_run(settings), None, False)
        return
    train_run(settings, resume=resume, overwrite=overwrite, say=_say)


@app.command()
def evaluate(
    run: Run,
    part: Annotated[str | None, typer.Option(help="Sub-folder of data.root; data.validation if left out.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="In place of launch.workers.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the newest checkpoint of a run on every row of a part, each once."""
    from trainer.jobs import evaluate_run

    text, values = evaluate_run(run, part=part, workers=workers, say=_say)
    _report(text, values, as_json)


@app.command()
def plan(config: ConfigFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show how the tables would be sharded over launch.workers; needs no GPU and no cluster."""
    settings = _load(config, overrides)
    from embeddings.planning.plan_report import plan_report

    report = plan_report(settings)
    _report(report.text, report.to_json(), as_json)


@app.command()
def export(
    run: Run,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; RUN/export if left out.")] = None,
) -> None:
    """Write a bundle for serving: program, tables, feature transforms and a parity check."""
    from trainer.export.write import export as export_run

    _report(f"bundle: {export_run(str(run), str(out) if out else None)}", None, False)


@app.command()
def score(bundle: Path, files: list[Path], out: Path) -> None:
    """Score Parquet FILES with a BUNDLE; OUT gets the predictions beside the rows' columns."""
    from trainer.serving.score import score_files

    score_files(str(bundle), [str(file) for file in files], str(out))


@app.command()
def serve(
    bundle: Path,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
) -> None:
    """Answer HTTP requests with a BUNDLE: POST /predict, GET /health, GET /signature."""
    from trainer.serving.server import serve as serve_bundle

    serve_bundle(str(bundle), host, port)


@app.command()
def generate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Write the synthetic data of data.generate to data.root."""
    settings = _load(config, overrides)
    from trainer.jobs import generate_data

    generate_data(settings, say=_say)


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="census-income, kuairand or movielens.")],
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the original files.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the Parquet parts.")],
) -> None:
    """Turn a public data set from its original files into Parquet parts."""
    from configs.choices import load

    load("trainer.data.importers", dataset.replace("-", "_")).prepare(str(source), str(out))


@app.command()
def compare(
    config: ConfigFile,
    overrides: Overrides = None,
    tops: Annotated[
        str, typer.Option(help="Names of models/tops, with commas.")
    ] = "single_task,shared_bottom,moe,mmoe,ple",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of every top.")] = 1,
    part: Annotated[str | None, typer.Option(help="Part to measure on; data.validation if left out.")] = None,
    as_json: Json = False,
) -> None:
    """Train several tops on the same data and show them in one table. Called again, it goes on where it was."""
    settings = _load(config, overrides)
    from trainer.jobs import compare_runs

    text, values = compare_runs(settings, [top.strip() for top in tops.split(",") if top.strip()], seeds, part, _say)
    _report(text, values, as_json)


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="A data set, a run, a checkpoint or a bundle.")], as_json: Json = False
) -> None:
    """Describe what is at PATH."""
    from trainer.inspect import inspect as describe

    text, values = describe(path)
    _report(text, values, as_json)


@app.command("config")
def show_config(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG")] = None,
    overrides: Overrides = None,
    json_schema: Annotated[bool, typer.Option("--json-schema", help="The schema, for editors.")] = False,
    choices: Annotated[
        bool, typer.Option("--choices", help="What there is to choose by name: tops, losses, ID transforms, ...")
    ] = False,
) -> None:
    """Check a config and print it with every default filled in."""
    if choices:
        from configs.choices import PACKAGES

        for key, package in PACKAGES.items():
            typer.echo(f"{key}\n\n{textwrap.indent(_described(package), '  ')}\n")
        return
    if json_schema:
        from configs.json_schema import json_schema as schema

        typer.echo(json.dumps(schema(), indent=2))
        return
    if config is None:
        raise UserError("config needs a file\ngive one, such as configs/quickstart.yaml, or --json-schema")
    from configs.load import dump_config

    typer.echo(dump_config(_load(config, overrides)), nl=False)


def main() -> None:
    """Entry point of `multigate` and `python -m trainer`."""
    try:
        app()
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(2)
    except RunFailed as error:
        _say(f"failed: {error}")
        sys.exit(1)
