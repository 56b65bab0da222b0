"""Choices that a config makes by name (a top, a loss, an ID transform): one module of a package is one choice.

Adding a choice is adding its file: the package is listed, not registered, and only the chosen module is imported. What
is said of it before, and its settings, are read from its file. Settings are checked in `configs.choice_settings`.
"""

import ast
import difflib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.errors import UserError
from configs.unrun import name_of

PACKAGES = {
    "model.top": "models.tops",
    "tasks.*.loss": "models.losses",
    "tasks.*.reweight": "trainer.data.columns.reweighting",
    "training.task_balance": "models.balance",
    "features.*.transform": "embeddings.features.transforms",
    "data.generate.kind": "trainer.data.generators",
    "prepare DATASET": "trainer.data.importers",
}
"""Key of the config, or argument of a command -> the package whose modules it names."""


def available(package: str) -> list[str]:
    """Names of the modules in `package` (such as "models.tops"), without importing them."""
    modules = pkgutil.iter_modules(_folders(package))
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def described(package: str) -> dict[str, str]:
    """Name -> what the module says of itself: two paragraphs of its docstring in one. Read, not imported."""
    texts = {}
    for name in available(package):
        docstring = ast.get_docstring(ast.parse(_source(package, name).read_text(encoding="utf-8"))) or ""
        texts[name] = " ".join(" ".join(docstring.split("\n\n")[:2]).split())
    return texts


def read(package: str, choice: str, name: str, default: Any = None) -> Any:
    """What `name` is in the module `choice`, without importing it: see `configs.unrun`."""
    return name_of(_source(package, choice), f"{package}.{choice}", name, default)


def settings(package: str) -> dict[str, dict[str, FieldInfo]]:
    """Choice -> its settings by name."""
    return {choice: read(package, choice, "Settings", BaseModel).model_fields for choice in available(package)}


def _source(package: str, choice: str) -> Path:
    files = [Path(folder) / choice / "__init__.py" for folder in _folders(package)]
    files += [Path(folder) / f"{choice}.py" for folder in _folders(package)]
    return next(file for file in files if file.exists())


def _folders(package: str) -> list[str]:
    """Where its modules are. The package above it is not imported: it may need what a check of configs must not."""
    if package in sys.modules:
        return list(sys.modules[package].__path__)
    root, *rest = package.split(".")
    spec = importlib.util.find_spec(root)
    assert spec is not None, package
    assert spec.submodule_search_locations is not None, package
    return [str(Path(folder, *rest)) for folder in spec.submodule_search_locations]


def did_you_mean(name: str, names: list[str]) -> str:
    """ "Did you mean x?" for the nearest of `names`, or else all of them."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"


def load(package: str, name: str) -> ModuleType:
    """The module `name` of `package`.

    Raises:
        UserError: there is no such module.
    """
    names = available(package)
    if name not in names:
        raise UserError(f"{name!r} is not in {package.replace('.', '/')}: {did_you_mean(name, names)}")
    return importlib.import_module(f"{package}.{name}")
