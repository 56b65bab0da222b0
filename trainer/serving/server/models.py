"""Which bundles a process serves, by name and version, and how one is replaced while requests run.

The state that all processes follow is on the board: for each name the versions with their bundles, and the one that
answers where a request names none. A process that sees a new state loads what it lacks, then serves it from one
moment to the next; requests that were read before get the bundle that they were read for.
"""

from dataclasses import dataclass, field
from typing import Any

from configs.errors import UserError
from trainer.serving.bundle import Bundle
from trainer.serving.server.board import Board, Counters
from trainer.serving.server.refusals import RefusedError
from trainer.serving.server.request_log import RequestLog
from trainer.serving.server.skew import Skew
from trainer.serving.server.state import digest_of
from trainer.serving.server.tensors import Input, inputs_of
from trainer.serving.server.v2 import Reader
from trainer.serving.shared import Halves

_MOST_HALVES = 64


class UnloadableError(Exception):
    """A bundle that is to be served cannot be loaded."""

    def __init__(self, name: str, version: str, digest: str | None, cause: Exception) -> None:
        super().__init__(name, version)
        self.name, self.version, self.digest = name, version, digest
        self.why = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"


@dataclass(eq=False)
class Version:
    """A loaded bundle under its name."""

    name: str
    version: str
    bundle: Bundle
    counters: Counters
    digest: str | None
    skew: Skew
    log: RequestLog | None = None
    inputs: dict[str, Input] = field(init=False)
    reader: Reader = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = inputs_of(self.bundle)
        self.reader = Reader(self.inputs, self.bundle.tasks)
        self._halves: dict[frozenset[str], Halves] = {}

    def halves(self, shared: frozenset[str]) -> Halves:
        """As the bundle's, kept."""
        if shared not in self._halves:
            if (
                len(self._halves) == _MOST_HALVES
            ):  # clients choose what is shared: memory must not grow with their ideas
                self._halves.clear()
            self._halves[shared] = self.bundle.halves(shared)
        return self._halves[shared]


class Models:
    """What one process serves."""

    def __init__(self, board: Board, process: int, log: RequestLog | None = None) -> None:
        self._board, self._process, self._log = board, process, log
        self._versions: dict[tuple[str, str], Version] = {}
        self._defaults: dict[str, str | None] = {}
        self._slots: dict[str, int] = {}
        self._features: dict[str, list[str]] = {}
        self.generation = 0

    def load(self, verify: bool) -> tuple[int, dict[tuple[str, str], Version], dict[str, str | None]]:
        """Loads what the board names; to be given to `take`. Any thread may call it. Raises UnloadableError."""
        generation, state = self._board.read()
        self._slots = {name: model["slot"] for name, model in state.items()}  # they never change
        self._features = {name: model["features"] for name, model in state.items()}
        versions = {}
        for name, model in state.items():
            for version, one in model["versions"].items():
                have = self._versions.get((name, version))
                if have is None or have.digest != one["digest"]:
                    if version != model["default"] and digest_of(one["folder"]) != one["digest"]:
                        continue  # a newer bundle took its place on disk: a process that starts now has it no more
                    have = self._load(name, version, model, verify)
                versions[name, version] = have
        return generation, versions, {name: model["default"] for name, model in state.items()}

    def _load(self, name: str, version: str, model: dict[str, Any], verify: bool) -> Version:
        folder, digest = model["versions"][version].values()
        try:
            bundle = Bundle(folder, verify=verify)
            if bundle.signature.checksum != digest:
                raise UserError(f"{folder} holds another bundle by now\nLoad the model again.")
            counters = self._board.counters(self._process, model["slot"])
            skew = Skew(model["features"], counters)
            return Version(name, version, bundle, counters, digest, skew, self._log)
        except Exception as error:
            raise UnloadableError(name, version, digest, error) from error

    def keep(self, generation: int) -> None:
        """Serves on what it has: that state cannot be loaded, and there is no way back from it."""
        self.generation = generation
        self._board.apply(self._process, generation)

    def take(self, loaded: tuple[int, dict[tuple[str, str], Version], dict[str, str | None]]) -> None:
        """Serves what `load` gave, from now on. Between two calls, in the loop's thread."""
        self.generation, self._versions, self._defaults = loaded
        self._board.apply(self._process, self.generation)

    def find(self, name: str, version: str = "") -> Version:
        """The version of a name; of none, the one that answers by itself. RefusedError 404: there is none."""
        if name not in self._defaults:
            raise RefusedError(404, f"there is no model {name!r}\nThere are: {', '.join(self._defaults)}.")
        chosen = version or self._defaults[name]
        if chosen is None:
            raise RefusedError(404, f"model {name!r} is unloaded\nLoad it again.")
        found = self._versions.get((name, chosen))
        if found is None:
            raise RefusedError(
                404, f"model {name!r} has no version {chosen!r}\nIt has: {', '.join(self.versions(name))}."
            )
        return found

    def slot(self, name: str) -> int:
        """The place of a name's counters."""
        return self._slots[name]

    def features(self, name: str) -> list[str]:
        """The features of a name's versions, in the order of their counters."""
        return self._features[name]

    @property
    def first(self) -> Version:
        """The model that JSON rows are for if they name none."""
        return self.find(next(iter(self._defaults)))

    def is_default(self, version: Version) -> bool:
        """Whether it answers where a request names no version."""
        return self._defaults.get(version.name) == version.version

    @property
    def names(self) -> list[str]:
        """All names, loaded or not."""
        return list(self._defaults)

    @property
    def loaded(self) -> list[Version]:
        """All versions."""
        return list(self._versions.values())

    def versions(self, name: str) -> list[str]:
        """The versions of a name that are loaded."""
        return [version for other, version in self._versions if other == name]

    def index(self) -> list[dict[str, str]]:
        """All models with their state, as the repository extension lists them."""
        lines = [{"name": v.name, "version": v.version, "state": "READY", "reason": ""} for v in self.loaded]
        gone = [name for name, default in self._defaults.items() if default is None]
        return lines + [{"name": name, "version": "", "state": "UNAVAILABLE", "reason": "unloaded"} for name in gone]
