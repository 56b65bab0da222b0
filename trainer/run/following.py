"""A run that follows its data: when all known partitions are trained, its ranks wait together for new ones.

Rank 0 looks, and writes what it found into the run directory before any rank trains on it: a restart finds every
partition that was trained on. What makes a partition complete is in `trainer.data.dataset.follow`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from configs.errors import UserError
from configs.schema import Config
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.checks import check_manifest
from trainer.data.columns.statistics import StatisticsCheck
from trainer.data.dataset.faults import StorageUnavailable
from trainer.data.dataset.follow import extend
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import describe, say_skipped
from trainer.data.dataset.walk import Skipped
from trainer.data.reading.reader import Reader
from trainer.ranks.agreement import Agreement
from trainer.run.manifests import keep_manifest
from trainer.run.run_directory import RunDirectory
from trainer.run.vocabularies import features_of

Outcome = Literal["more", "end", "stopped"]

_TICK_S = 1.0  # between two messages of rank 0 to the ranks that wait, well below any time-out
_SHOWN = 5  # late files that one line names


@dataclass(frozen=True)
class _News:
    """What rank 0 sends the others: a manifest that has grown, a mistake in the new files, or how the waiting ends."""

    outcome: Outcome
    manifest: Manifest | None = None
    mistake: str | None = None


class Following:
    """The waiting of a run. All ranks make it, and call `wait`, together."""

    def __init__(self, run: RunDirectory, config: Config, say: Callable[[str], None]) -> None:
        """say: prints a line, on rank 0."""
        self._run, self._config, self._say = run, config, say
        self._ranks = Agreement()
        self._reported: set[str] = set()
        self._next_look = 0.0

    @cached_property
    def _features(self) -> FeatureTransforms:
        return FeatureTransforms(features_of(self._run, self._config), self._config.tables)

    @cached_property
    def _statistics(self) -> StatisticsCheck:
        return StatisticsCheck(self._config.tasks, self._config.data, self._features, evaluates=False)

    def wait(self, reader: Reader, stops: Callable[[], bool]) -> Outcome:
        """Waits until `reader` has new partitions ("more"), data.follow_patience_s is over, or `stops()` on some rank.

        Raises:
            UserError: a new file is damaged, or its columns do not fit.
        """
        self._next_look = 0.0
        since, news, is_first = time.monotonic(), None, True
        while news is None:
            if any(self._ranks.gather(stops())):
                return "stopped"
            mine = self._tick(reader.manifest, since, is_first) if self._ranks.rank == 0 else None
            news, is_first = self._ranks.from_first(mine), False
        if news.mistake is not None:
            raise UserError(news.mistake)
        if news.manifest is not None:
            reader.extend(news.manifest)
        return news.outcome

    def _tick(self, manifest: Manifest, since: float, is_first: bool) -> _News | None:
        """Rank 0's: looks if it is time to, else waits a moment."""
        now = time.monotonic()
        if now < self._next_look:
            time.sleep(min(_TICK_S, self._next_look - now))
            return None
        self._next_look = now + self._config.data.follow_every_s
        news = self._look(manifest)
        patience = self._config.data.follow_patience_s
        if news is None and patience is not None and now - since >= patience:
            return _News("end")
        if news is None and is_first:
            self._say(f"waiting for partitions after {manifest.partitions[-1]}")
        return news

    def _look(self, manifest: Manifest) -> _News | None:
        try:
            grown, late, skipped = extend(manifest, self._config.data.read_timeout_s, self._statistics)
            if len(grown.files) > len(manifest.files):
                check_manifest(grown, self._features, self._config)
        except StorageUnavailable as error:
            self._say(f"{str(error).splitlines()[0]}; looking again in {self._config.data.follow_every_s:g} s")
            return None
        except UserError as error:
            return _News("end", mistake=str(error))
        self._report_skipped(manifest.root, [entry for entry in skipped if entry.path not in self._reported])
        self._report_late([path for path in late if path not in self._reported])
        if len(grown.files) == len(manifest.files):
            return None
        keep_manifest(self._run, self._config.data.train, grown)
        new = replace(grown, files=grown.files[len(manifest.files) :])
        self._say(f"new: {', '.join(new.partitions[:_SHOWN])}{_more(new.partitions)}: {describe(new.files)}")
        return _News("more", grown)

    def _report_skipped(self, root: str, skipped: list[Skipped]) -> None:
        """Markers such as _SUCCESS come with every partition and are not worth a line each."""
        self._reported.update(entry.path for entry in skipped)
        say_skipped(root, [entry for entry in skipped if entry.why != "hidden"], self._say)

    def _report_late(self, late: list[str]) -> None:
        if late:
            self._reported.update(late)
            names = ", ".join(late[:_SHOWN]) + _more(late)
            self._say(f"too late to be trained, their partitions or later ones are already: {names}")


def _more(names: object) -> str:
    count = len(names) - _SHOWN  # pyright: ignore
    return f" and {count:,} more" if count > 0 else ""
