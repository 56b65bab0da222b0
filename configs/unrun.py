"""Names taken from a choice's file without running the file: its `Settings` and constants, not its `import torch`.

A config is checked where there is no time for torch, and on machines without it. So the syntax tree says which
statements a wanted name needs - its class, what that refers to, down to the imports - and these alone are run. They
may import the standard library, pydantic and `configs`.
"""

import ast
import functools
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from configs.errors import UserError

ALLOWED = (*sys.stdlib_module_names, "pydantic", "annotated_types", "typing_extensions", "configs")


def name_of(file: Path, module: str, name: str, default: Any) -> Any:
    """The value of `name` at the top level of `file`, the source of `module`; the default where there is none.

    Raises:
        UserError: it needs an import that is not allowed here.
    """
    return _name_of(file, file.stat().st_mtime_ns, module, name, default)


@functools.cache
def _name_of(file: Path, _modified: int, module: str, name: str, default: Any) -> Any:
    statements = _needed(ast.parse(file.read_text(encoding="utf-8"), str(file)), name)
    _refuse_imports(file, name, statements)
    part = types.ModuleType(f"{name} of {module}")
    sys.modules[part.__name__] = part  # where pydantic looks for the names in annotations
    exec(compile(ast.Module(statements, []), str(file), "exec"), part.__dict__)
    return getattr(part, name, default)


def _needed(tree: ast.Module, name: str) -> list[ast.stmt]:
    """The statements that bind `name`, and whatever they refer to, in their order."""
    binding: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for bound in _bound(statement):
            binding.setdefault(bound, []).append(statement)
    needed, names = set[ast.stmt](), [name]
    while names:
        for statement in binding.get(names.pop(), []):
            if statement not in needed:
                needed.add(statement)
                names += [node.id for node in ast.walk(statement) if _is_read(node)]
    return [statement for statement in tree.body if statement in needed or _is_future(statement)]


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            yield node.asname or node.name.split(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _is_read(node: ast.AST) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _refuse_imports(file: Path, name: str, statements: list[ast.stmt]) -> None:
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            sources = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            sources = ["." * node.level + (node.module or "")]
        else:
            continue
        for source in sources:
            if source.split(".")[0] not in ALLOWED:
                raise UserError(
                    f"{file}:{node.lineno}: {name} needs an import of {source}, which checking a config must not run\n"
                    f"Let {name} use the standard library, pydantic and configs alone; the rest belongs into build."
                )
