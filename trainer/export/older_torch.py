"""What torch 2.11 and 2.12 need of their caller to export and compile, and 2.13 does by itself. All of it stands here.

Both are of no use with 2.13: with the older triples this file goes.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch._dynamo.exc import UserError as CannotTrace
from torch.export import ExportedProgram
from torch.fx.experimental import _config as symbols

OLDER = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 13)


def export(*args: Any, **kwargs: Any) -> ExportedProgram:
    """torch.export.export. Older ones cannot tell that min(rows, 2 * rows), a stride in PLE, is rows.

    There a second attempt does not compare sizes with the example's; it comes second as it fails where the first works.
    """
    try:
        return torch.export.export(*args, **kwargs)
    except CannotTrace:
        if not OLDER:
            raise
    with symbols.patch(backed_size_oblivious=True):  # pyright: ignore[reportAttributeAccessIssue]
        return torch.export.export(*args, **kwargs)


@contextlib.contextmanager
def compiling(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """AOTInductor's options as this version takes them: the processor was fixed, as that of this machine."""
    from torch._inductor import config, cpp_builder

    march = options.get("cpp.march")
    if march is None or hasattr(config.cpp, "march"):
        yield dict(options)
        return
    flags = cpp_builder._get_optimization_cflags

    def portable(*args: Any, **kwargs: Any) -> tuple[list[str], list[str]]:
        compiler, linker = flags(*args, **kwargs)
        return [f"march={march}" if flag == "march=native" else flag for flag in compiler], linker

    with mock.patch.object(cpp_builder, "_get_optimization_cflags", portable):
        yield {name: value for name, value in options.items() if name != "cpp.march"}
