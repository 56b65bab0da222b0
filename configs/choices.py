"""Choices that a config makes by name (a top, a loss, an ID transform): one module of a package is one choice.

Adding a choice is adding its file: the package is listed, not registered, and only the chosen module is imported.
"""

import difflib
import importlib
import importlib.util
import pkgutil
from types import ModuleType

from configs.errors import UserError


def available(package: str) -> list[str]:
    """Names of the modules in `package` (such as "models.tops"), without importing them."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations is not None, package
    modules = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return sorted(module.name for module in modules if not module.name.startswith("_"))


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
