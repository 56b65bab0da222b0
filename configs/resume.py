"""Which keys of a config may change when a run is resumed, and what to say about those that may not.

The saved state has the shape that the tables, the model and the tasks gave it, and its position means something only
in the same sample order. Whether the data is still the same is the manifest's to say, not this file's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path as FilePath
from typing import Any, Literal

from configs.errors import UserError
from configs.schema import Config, WarmStart

Rule = Literal["may change", "between epochs", "fixed"]

_NAMED = ("features", "tables", "tasks")

# The first pattern that fits a key decides; `*` is any name or the rest of a key.
_RULES: tuple[tuple[str, Rule], ...] = (
    ("data.root", "may change"),  # the same files, moved
    ("data.validation", "may change"),
    ("data.train", "fixed"),
    ("data.global_batch_size", "between epochs"),
    ("data.lanes", "fixed"),
    ("data.order", "fixed"),
    ("data.follow", "fixed"),
    ("data.shuffle_window", "fixed"),
    ("data.*", "may change"),
    ("features.*.out_of_range", "may change"),
    ("features.*.vocabulary", "may change"),  # moved: the run has its own copy, and refuses other lines
    ("features*", "fixed"),
    ("tables.*.init_scale", "may change"),  # the weights are there already
    ("tables*", "fixed"),
    ("model.dropout", "may change"),
    ("model.gate_dropout", "may change"),
    ("model.gate_noise", "may change"),
    ("model.load_balance", "may change"),
    ("model.*", "fixed"),
    ("tasks.*.weight", "may change"),
    ("tasks.*.positive_weight", "may change"),
    ("tasks.*.weight_column", "may change"),
    ("tasks.*.reweight*", "may change"),
    ("tasks.*.options*", "may change"),
    ("tasks*", "fixed"),
    ("training.seed", "fixed"),
    ("training.task_balance", "fixed"),  # some balances have state
    ("training.*_optimizer.kind", "fixed"),
    ("training.*", "may change"),
    ("checkpoint.*", "may change"),
    ("launch.*", "may change"),
    ("export.*", "may change"),
    ("serve.*", "may change"),
    ("doctor.*", "may change"),
)


# Keys that change nothing about what a run learns; `*` as above.
_WITHOUT_EFFECT = (
    *("data.root", "data.threads", "data.prefetch_mib", "data.read_timeout_s", "data.verify_checksums"),
    *("training.run_dir", "training.log_every", "training.profile_at", "training.gradient_cosines_every"),
    *("checkpoint.*", "launch.*", "export.*", "serve.*", "doctor.*"),
)


@dataclass(frozen=True)
class Change:
    """One key with its old and new value; None on a side that lacks the key."""

    key: str
    old: Any
    new: Any
    rule: Rule

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class ConfigDiff:
    """All keys in which two configs differ."""

    changes: tuple[Change, ...]

    def forbidden(self, mid_epoch: bool) -> list[Change]:
        """Changes that the saved state does not survive, `mid_epoch` or at the start of an epoch."""
        return [one for one in self.changes if one.rule == "fixed" or (mid_epoch and one.rule == "between epochs")]

    def lines(self) -> list[str]:
        """The changes as text, old -> new."""
        return [str(change) for change in self.changes]

    def refuse_impossible(self, mid_epoch: bool = True) -> None:
        """Stop a resume that the saved state would not survive, `mid_epoch` or at the start of an epoch.

        Raises:
            UserError: lists the changes that cannot be, those that can, and the ways out.
        """
        forbidden = self.forbidden(mid_epoch)
        if not forbidden:
            return
        lines = ["--resume cannot change these keys of the run:"]
        lines += [f"  {change}{_when(change)}" for change in forbidden]
        if allowed := [change for change in self.changes if change not in forbidden]:
            lines += ["these can change:", *(f"  {change}" for change in allowed)]
        lines += ["Put the old values back, or start a new run with another training.run_dir."]
        raise UserError("\n".join(lines))

    def refuse_effects(self, run_dir: FilePath) -> None:
        """Stop a run that was trained with other settings from being taken for one with these.

        Raises:
            UserError: lists the changes that have an effect on what is learned, and the ways out.
        """
        effects = [one for one in self.changes if not any(fnmatchcase(one.key, key) for key in _WITHOUT_EFFECT)]
        if effects:
            lines = [f"{run_dir} was trained with other settings:", *(f"  {change}" for change in effects)]
            remedy = "put the old values back, train all runs again: --overwrite, or take another training.run_dir"
            raise UserError("\n".join([*lines, remedy]))


def compare(old: Config, new: Config) -> ConfigDiff:
    """What changed from `old`, the config of a run directory, to `new`, the one it is to be resumed with."""
    before, after = dict(_leaves(old.model_dump())), dict(_leaves(new.model_dump()))
    keys = [key for key in {**before, **after} if (key in before, before.get(key)) != (key in after, after.get(key))]
    one_sided = {
        f"{section}.{name}." for section in _NAMED for name in set(before[section]) ^ set(after[section])
    }  # `features: [a, b] -> [a]` says it all
    changed = [key for key in keys if not key.startswith(tuple(one_sided))]
    return ConfigDiff(tuple(Change(key, before.get(key), after.get(key), rule_of(key)) for key in changed))


def with_chosen(new: WarmStart, old: WarmStart) -> WarmStart:
    """`new` with the step that was chosen when the run began, where it asks for nothing else than `old` did.

    A run that has saved something does not look at the section again, so that any key of it may change.
    """
    asks_again = new.checkpoint in ("latest", "best") and old.model_copy(update={"checkpoint": new.checkpoint}) == new
    return old if asks_again else new


def rule_of(key: str) -> Rule:
    """Whether the value at a key such as `tables.user.num_embeddings` may change."""
    return next(rule for pattern, rule in _RULES if fnmatchcase(key, pattern))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value. The names of features, tables and tasks are a value too: their order counts."""
    if key in _NAMED:
        yield key, list(value)
    elif not isinstance(value, dict) or not value:
        yield key, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _when(change: Change) -> str:
    return " (only at the end of an epoch)" if change.rule == "between epochs" else ""
