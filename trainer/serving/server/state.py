"""What a server's processes are to serve, as it stands on the board: name -> its versions, their folders, the default.

Who changes it: the parent at the start and at SIGHUP, and a process that is asked to load or unload a model. Loading
itself is for `models`, in each process. No torch here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import UserError
from trainer.serving.server.board import MOST_FEATURES, Board
from trainer.serving.server.refusals import RefusedError
from trainer.serving.signature import Signature, read_signature

_KEPT = 2  # versions of a name: the one that answers and the one before it, for the way back


def first_state(bundles: Sequence[tuple[str | None, str]]) -> dict[str, Any]:
    """What is served in the beginning: name -> its versions, of (name or None, folder). Several may share a name.

    Raises:
        UserError: a folder is no bundle, or two of one name have the same step.
    """
    models: dict[str, Any] = {}
    for given, folder in bundles:
        signature = read_signature(Path(folder))
        name = given or Path(signature.source.run).name or "model"
        if "/" in name or not name.isprintable():
            raise UserError(f"a model cannot have the name {name!r}\nGive it another one: NAME=BUNDLE.")
        version, model = str(signature.source.step), models.setdefault(name, {"versions": {}, "default": None})
        if version in model["versions"]:
            other = model["versions"][version]["folder"]
            raise UserError(
                f"{other} and {folder} are both {name}, version {version}\nGive one of them a name: NAME=BUNDLE."
            )
        model["versions"][version] = {"folder": str(Path(folder).absolute()), "digest": signature.checksum}
        model["default"] = max(model["versions"], key=int)
        _add_features(model, signature)
    return {name: model | {"slot": slot} for slot, (name, model) in enumerate(models.items())}


def request_load(board: Board, name: str, version: str | None = None) -> int:
    """Writes to the board that `name` is served from its folder as it is now; or from a version that it has.

    Returns the generation. Raises UserError: the folder holds no whole bundle; RefusedError: no such model or version.
    """
    with board.changing() as state:
        model = _model(state, name)
        if version is None:
            _load_folder(model)
        elif version in model["versions"]:
            model["default"] = version
        else:
            raise RefusedError(404, f"model {name!r} has no version {version!r}: {', '.join(model['versions'])}")
    return board.generation


def _load_folder(model: dict[str, Any]) -> None:
    """Makes the bundle that is in the model's folder now the one that answers; of those before, the newest stays."""
    folder = model.get("folder") or next(reversed(model["versions"].values()))["folder"]
    signature = read_signature(Path(folder))
    new, before = str(signature.source.step), model["default"]
    model |= {"folder": folder, "default": new}
    model["versions"][new] = {"folder": folder, "digest": signature.checksum}
    _add_features(model, signature)
    others = [version for version in model["versions"] if version not in (new, before)]
    for old in others[: max(0, len(model["versions"]) - _KEPT)]:
        del model["versions"][old]


def _add_features(model: dict[str, Any], signature: Signature) -> None:
    """Gives each feature of a bundle a place among the counters, which it keeps."""
    have = model.setdefault("features", [])
    have += [name for name in signature.features if name not in have][: MOST_FEATURES - len(have)]


def request_unload(board: Board, name: str) -> int:
    """Writes to the board that `name` answers no more; returns the generation."""
    with board.changing() as state:
        model = _model(state, name)
        last = next(reversed(model["versions"].values()))["folder"]
        model |= {"folder": model.get("folder") or last, "versions": {}, "default": None}
    return board.generation


def _model(state: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in state:
        raise RefusedError(404, f"there is no model {name!r}\nThere are: {', '.join(state)}.")
    return state[name]
