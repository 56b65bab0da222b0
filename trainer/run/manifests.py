"""The manifests of a run, in its manifest.json: which files each part of the data has, fixed at the first start."""

import json

from trainer.data.manifest import Manifest
from trainer.run.run_directory import RunDirectory, write_json


def read_manifest(run: RunDirectory, part: str) -> Manifest | None:
    """The manifest of `part`; None if the run has not used it."""
    content = _read(run).get(part)
    return Manifest.from_json(content) if content else None


def keep_manifest(run: RunDirectory, part: str, manifest: Manifest) -> None:
    """Fixes the files of `part` for the whole life of the run."""
    write_json(run.manifest, _read(run) | {part: manifest.to_json()})


def _read(run: RunDirectory) -> dict:
    return json.loads(run.manifest.read_text()) if run.manifest.exists() else {}
