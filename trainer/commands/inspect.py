"""`inspect`: says what is at a path, a bundle, a checkpoint, a run, or else a folder of Parquet.

What is in a data set is `trainer.data.inspection.inspect_data`'s to say.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from configs.errors import UserError
from trainer.checkpoint import marks
from trainer.checkpoint.chain import longest
from trainer.checkpoint.files import Checkpoint, problems, read_complete
from trainer.checkpoint.link_files import FOLDER as DELTAS
from trainer.checkpoint.link_files import Link, read_link
from trainer.checkpoint.marks import COMPLETE
from trainer.checkpoint.there import There, there
from trainer.commands.options import AsJson
from trainer.commands.screen import report
from trainer.run.folder import Folder
from trainer.run.run_directory import RunDirectory, read_json
from trainer.serving.signature import SIGNATURE, check_checksums, read_signature
from trainer.telemetry.metrics_file import read_metrics

GIB = 2**30


def inspect(
    path: Annotated[str, typer.Argument(help="A data set, a run, a checkpoint or a bundle.")], as_json: AsJson = False
) -> None:
    """Describe what is at PATH."""
    text, values = describe(path)
    report(text, values, as_json)


def describe(location: str) -> tuple[str, dict[str, Any]]:
    """Text for a reader, and the same as JSON values.

    Raises:
        UserError: there is nothing that this project wrote or reads.
    """
    from trainer.data.inspection.inspect_data import inspect_data

    path = Path(location)
    if "://" in location:
        return inspect_data(location)
    if not path.exists():
        raise UserError(f"{path} does not exist\ngive a data set, a run, a checkpoint or a bundle")
    if (path / SIGNATURE).exists():
        values = _bundle(path)
    elif (path / COMPLETE).exists():
        try:
            is_link = path.parent.name == DELTAS
            values = _link(read_link(Folder(path))) if is_link else _base(read_complete(Folder(path)))
        except (ValueError, IsADirectoryError) as error:
            raise UserError(f"{error}\n`train --resume` takes the checkpoint before") from None
    elif RunDirectory(path).is_used:
        values = _run(RunDirectory(path))
    else:
        return inspect_data(location)
    return "\n".join(_lines(values)), values


def _run(run: RunDirectory) -> dict[str, Any]:
    found = there(Folder(run.checkpoints))
    records = read_metrics(run.metrics) if run.metrics.exists() else []
    last = {kind: next((r for r in reversed(records) if r.get("kind") == kind), None) for kind in ("train", "eval")}
    environment = read_json(run.environment) or {}
    return {
        "kind": "run",
        "path": str(run),
        "started": environment.get("started"),
        "attempts": len(list(run.logs.glob("attempt_*"))),
        "step": last["train"]["step"] if last["train"] else 0,
        "checkpoints": [_with_chain(base, found) for base in sorted(found.bases, key=lambda one: -one.step)],
        "damaged_checkpoints": list(found.damaged.values()),
        "last_evaluation": last["eval"],
        "plan": run.plan_text.read_text() if run.plan_text.exists() else None,
    }


def _with_chain(base: Checkpoint, found: There) -> dict[str, Any]:
    """A checkpoint and the links behind it, of which the last is what a run goes on from."""
    links = longest(base, found.links, found.went_on_from).links
    values = _checkpoint(base)
    if links:
        values["links"] = len(links)
        values["links_gib"] = round(sum(link.size for link in links) / GIB, 3)
        values["last_link"] = {"path": str(links[-1].folder), **links[-1].position._asdict()}
        values["attempts"] = sorted({base.attempt, *(link.attempt for link in links)})
    return values


def _base(checkpoint: Checkpoint) -> dict[str, Any]:
    return _checkpoint(checkpoint) | {"problems": list(problems(checkpoint).values())}


def _checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "kind": "checkpoint",
        "path": str(checkpoint.folder),
        **checkpoint.position._asdict(),
        "workers": checkpoint.world_size,
        "attempt": checkpoint.attempt,
        "merged": checkpoint.merged_from is not None,
        "gib": round(checkpoint.size / GIB, 3),
        "facts": checkpoint.facts,
    }


def _link(link: Link) -> dict[str, Any]:
    needed = link.needed(is_end=link.ends)
    return {
        "kind": "link",
        "path": str(link.folder),
        **link.position._asdict(),
        "workers": link.world_size,
        "attempt": link.attempt,
        "number": link.number,
        "a_chain_may_end_here": link.ends,
        "gib": round(link.size / GIB, 6),
        "problems": list(marks.problems(link.folder, link.files, needed).values()),
    }


def _bundle(path: Path) -> dict[str, Any]:
    signature = read_signature(path)
    check_checksums(path, signature)
    files = {name: file.size for name, file in signature.files.items()}
    return {
        "kind": "bundle",
        "path": str(path),
        "gib": round(sum(files.values()) / GIB, 3),
        "compared": "sizes and checksums of all files",
        **signature.model_dump(
            mode="json", include={"tasks", "columns", "identity", "precision", "device", "source", "parity", "versions"}
        ),
    }


def _lines(values: dict[str, Any], indent: str = "") -> list[str]:
    """Keys and values one below the other, what is inside a value further in."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            for item in value:
                lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        elif isinstance(value, str) and "\n" in value:
            lines += [f"{indent}{key}:", *(f"{indent}  {line}" for line in value.splitlines())]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            lines.append(f"{indent}{key}: {shown}")
    return lines
