"""The program for calls of few rows, beside one whose top is BF16: how few, and whether it is worth having at all."""

import copy
import sys
from pathlib import Path

from configs.schema import Config
from trainer.export.timing import most_rows
from trainer.serving.bundle import Bundle
from trainer.serving.signature import Signature


def settle_small(folder: Path, signature: Signature, config: Config) -> Signature:
    """The signature of the bundle in `folder` with how many rows are few here; without that program if it is never
    faster, and its files are gone then."""
    if signature.small is None:
        return signature
    bundle = Bundle(folder, verify=False)
    rows = most_rows(taking_all(bundle), bundle, config)
    if rows:
        return signature.model_copy(update={"small": signature.small.model_copy(update={"rows": rows})})
    for path in folder.glob("*.small.*"):
        path.unlink()
    return signature.model_copy(update={"small": None})


def taking_all(bundle: Bundle, rows: int = sys.maxsize) -> Bundle:
    """The bundle, its program for few rows taking all calls of up to `rows`."""
    assert bundle.signature.small is not None
    small, other = bundle.signature.small.model_copy(update={"rows": rows}), copy.copy(bundle)
    other.signature = bundle.signature.model_copy(update={"small": small})
    return other


def compiled_for(signature: Signature, instructions: str | None) -> Signature:
    """The signature with what is compiled for `instructions` alone; None: with graphs alone."""
    chosen = tuple(program for program in signature.compiled if program.instructions == instructions)
    small = signature.small
    if small is not None:
        of_few = tuple(program for program in small.compiled if program.instructions == instructions)
        small = small.model_copy(update={"compiled": of_few})
    shared = tuple(program for program in signature.shared if program.instructions == instructions)
    return signature.model_copy(update={"compiled": chosen, "small": small, "shared": shared})
