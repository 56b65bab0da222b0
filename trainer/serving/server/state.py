"""What a server's processes are to serve, as it stands on the board: name -> its versions, their folders, the default.

Who changes it: the parent at the start and at SIGHUP, a process that is asked to load or unload a model, and one that
could not load what is to be served. Loading itself is for `models`, in each process. No torch here.

A model's `folder` is as it was given, and may be a link: what lies there is loaded on request. A version's folder is
where the link led, so that a version that is served again, or by a process that starts again, is the same bundle.
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
        model["folder"] = str(Path(folder).absolute())
        model["versions"][version] = _entry(folder, signature)
        model["default"] = max(model["versions"], key=int)
        _add_features(model, signature)
    return {name: model | {"slot": slot} for slot, (name, model) in enumerate(models.items())}


def request_load(board: Board, name: str, version: str | None = None) -> int:
    """Writes to the board that `name` is served from its folder as it is now; or from a version that it has.

    Returns the generation. Raises UserError: the folder holds no whole bundle; RefusedError: no such model or version.
    """
    with board.changing() as state:
        model = _model(state, name)
        before = {"versions": dict(model["versions"]), "default": model["default"]}
        if version is None:
            _load_folder(model, read_signature(Path(model["folder"])))
        elif version in model["versions"]:
            model["default"] = version
        else:
            raise RefusedError(404, f"model {name!r} has no version {version!r}: {', '.join(model['versions'])}")
        model |= {"before": before, "refused": None}
    return board.generation


def _load_folder(model: dict[str, Any], signature: Signature) -> None:
    """Makes the bundle that is in the model's folder now the one that answers; of those before, the newest stays."""
    new, before = str(signature.source.step), model["default"]
    model["default"] = new
    model["versions"].pop(new, None)  # it becomes the last
    model["versions"][new] = _entry(model["folder"], signature)
    _add_features(model, signature)
    others = [version for version in model["versions"] if version not in (new, before)]
    for old in others[: max(0, len(model["versions"]) - _KEPT)]:
        del model["versions"][old]


def _entry(folder: str, signature: Signature) -> dict[str, str | None]:
    return {"folder": str(Path(folder).resolve()), "digest": signature.checksum}


def withdraw(board: Board, name: str, version: str, digest: str | None, why: str) -> bool:
    """Writes that a version could not be loaded: what was served before it is served on. Whether that is news.

    It is none where another process has said so, or where nothing was served before.
    """
    is_news = False
    with board.changing() as state:
        model = state[name]
        before, one = model.get("before"), model["versions"].get(version)
        if before is not None and one is not None and one["digest"] == digest:
            is_news = True
            if version == model["default"]:
                model |= before | {"before": None, "refused": {"digest": digest, "why": why}}
            else:
                del model["versions"][version]
    return is_news


def refusal(board: Board, name: str) -> str | None:
    """Why the bundle that `name` was to be served from last is not served; None where it is."""
    refused = board.read()[1][name].get("refused")
    return refused["why"] if refused else None


def settle(board: Board, name: str) -> str | None:
    """For a process that starts: where the bundle that `name` is served from is there no more, the one that took its
    place is served by all, under its own number. Returns that number. UserError: there is none."""
    with board.changing() as state:
        model = state[name]
        one = model["versions"].get(model["default"])
        if one is None or digest_of(one["folder"]) == one["digest"]:
            return None
        signature = read_signature(Path(model["folder"]))
        if signature.checksum == (model.get("refused") or {}).get("digest"):
            return None
        _load_folder(model, signature)
        return model["default"]


def digest_of(folder: str) -> str | None:
    """Of the bundle that lies there now; None where none does."""
    try:
        return read_signature(Path(folder)).checksum
    except UserError:
        return None


def _add_features(model: dict[str, Any], signature: Signature) -> None:
    """Gives each feature of a bundle a place among the counters, which it keeps."""
    have = model.setdefault("features", [])
    have += [name for name in signature.features if name not in have][: MOST_FEATURES - len(have)]


def request_unload(board: Board, name: str) -> int:
    """Writes to the board that `name` answers no more; returns the generation."""
    with board.changing() as state:
        _model(state, name).update({"versions": {}, "default": None, "before": None, "refused": None})
    return board.generation


def _model(state: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in state:
        raise RefusedError(404, f"there is no model {name!r}\nThere are: {', '.join(state)}.")
    return state[name]
