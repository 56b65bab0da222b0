"""Where processes of the workers import from, and imports of many modules at once."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def without_collections() -> Iterator[None]:
    """The garbage collector is off in here. What was imported stays, and later collections pass it over, too.

    Importing torch, TorchRec and the trainer takes a fifth less time.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def python_path() -> str:
    """PYTHONPATH of the workers: the folders are import packages at the root of the project, as they are here."""
    root = str(Path(__file__).resolve().parents[1])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
