"""What a data set must be before a run starts on it: every column in every file, of a type that can be trained.

Only footers are looked at: here for columns and types, in `trainer.data.columns.statistics` for what they say of
values. All values are checked where they are read, by `feature_transforms` and `targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.types as pt

from configs.errors import UserError
from configs.schema import Config
from embeddings.features.arrow import empty_table, id_kind, is_bytes, is_list, is_text
from embeddings.features.feature_transforms import FeatureTransforms
from trainer.data.columns.groups import group_ids
from trainer.data.columns.reweighting import without_rules
from trainer.data.columns.statistics import StatisticsCheck
from trainer.data.columns.targets import Targets
from trainer.data.dataset.follow import complete_partitions
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.scan import build_manifest, exists
from trainer.data.dataset.source import file_url

_SHOWN = 5  # mistakes that one message lists


def check_parts(
    config: Config, features: FeatureTransforms, known: Mapping[str, Manifest], say: Callable[[str], None]
) -> dict[str, Manifest]:
    """The manifests of the parts that training reads: those of `known` as they are, the others found and checked.

    Raises:
        UserError: the training part is missing, a part lies inside the other or cannot be used; says where and why.
    """
    train, validation = config.data.train, config.data.validation
    manifests = {train: known[train] if train in known else check_part(config, features, train, None, say)}
    if validation in known:
        manifests[validation] = known[validation]
    elif validation != train and exists(config.data.root, validation):
        _refuse_overlap(config.data.root, train, validation)
        manifests[validation] = check_part(config, features, validation, manifests[train], say)
    return manifests


def _refuse_overlap(root: str, train: str, validation: str) -> None:
    """A part inside the other; the same folder for both says that this is meant."""
    one, other = PurePosixPath(train), PurePosixPath(validation)
    if one in other.parents or other in one.parents:
        raise UserError(
            f"{root}: one of data.train={train!r} and data.validation={validation!r} lies inside the other, so rows "
            "that are measured would be trained\nMove one out of the other, and give each its own folder."
        )


def check_part(
    config: Config, features: FeatureTransforms, part: str, trained: Manifest | None, say: Callable[[str], None]
) -> Manifest:
    """The manifest of a part, after all checks that footers allow.

    Args:
        trained: the training part, whose IDs must be of the same kinds; None for the training part itself.

    Raises:
        UserError: a file, a column, a type or a value cannot be used, or there is nothing to learn.
    """
    data, training = config.data, part == config.data.train
    tasks = config.tasks if training else without_rules(config.tasks)
    statistics = StatisticsCheck(tasks, data, features, evaluates=not training or part == data.validation)
    find = complete_partitions if data.follow and training else build_manifest
    manifest = find(data.root, part, timeout_s=data.read_timeout_s, look=statistics, say=say)
    check_manifest(manifest, features, config.model_copy(update={"tasks": tasks}))
    statistics.check_folders(manifest)
    if training and not data.follow:  # partitions to come may have what the first ones lack
        statistics.refuse_nothing_to_learn(manifest.root)
    if trained is not None:
        _check_kinds(manifest, trained, features.id_columns)
    return manifest


def check_manifest(manifest: Manifest, features: FeatureTransforms, config: Config) -> None:
    """Checks the files of a manifest against the features, tasks and weights of a config.

    Raises:
        UserError: a column is missing or there twice, is of a type that cannot be used, or of unequal types in two
            files (`data.widen_types` allows unequal widths).
    """
    targets = Targets(config.tasks, config.data.weight_column)
    groups = [config.data.group_column] if config.data.group_column else []
    columns = tuple(dict.fromkeys((*features.columns, *targets.columns, *groups)))
    examples = _examples(manifest)
    _check_presence(manifest, columns)
    for path, schema in examples:
        nothing = empty_table(schema, columns)
        features(nothing, path)
        targets(nothing, path)
        for column in groups:
            group_ids(nothing, column, path)
    first_path, first = examples[0]
    for path, schema in examples[1:]:
        for column in columns:
            one, other = kind(first.field(column).type), kind(schema.field(column).type)
            if not _agree(one, other, config.data.widen_types):
                raise UserError(
                    f"{path}: column {column!r} has type {other}, but {one} in {first_path}\n"
                    "Write it with one type; data.widen_types=true reads unequal widths of integers or of floats."
                )


def _examples(manifest: Manifest) -> list[tuple[str, pa.Schema]]:
    """The first file of every schema."""
    firsts: dict[int, str] = {}
    for file in manifest.files:
        firsts.setdefault(file.schema, file_url(manifest.root, file.path))
    return [(path, manifest.schemas[schema]) for schema, path in firsts.items()]


def _check_kinds(manifest: Manifest, trained: Manifest, columns: Sequence[str]) -> None:
    """5 and "5" are different IDs: a column of another kind would meet rows that were never trained."""
    for column in columns:
        known = next(_kinds_of(trained, column), None)
        for path, type_ in _kinds_of(manifest, column):
            if known is not None and id_kind(type_) != id_kind(known[1]):
                raise UserError(
                    f"{path}: column {column!r} has type {type_}, but {known[1]} in {known[0]}: its IDs would meet the "
                    "rows of others\nWrite the column with one type in all parts."
                )


def _kinds_of(manifest: Manifest, column: str) -> Iterator[tuple[str, pa.DataType]]:
    """A file of each schema and the column's type there, where the file knows it."""
    for path, schema in _examples(manifest):
        if column in schema.names and id_kind(schema.field(column).type) != "nothing":
            yield path, schema.field(column).type


def _check_presence(manifest: Manifest, columns: Sequence[str]) -> None:
    counts = [{column: schema.names.count(column) for column in columns} for schema in manifest.schemas]
    wrong = []
    for file in manifest.files:
        for column, count in counts[file.schema].items():
            if count != 1:
                times = "no" if not count else f"{count} times the"
                wrong.append(f"{file_url(manifest.root, file.path)}: there is {times} column {column!r}")
    if wrong:
        more = [f"and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
        names = ", ".join(manifest.schemas[manifest.files[0].schema].names)
        raise UserError("\n".join([*wrong[:_SHOWN], *more, f"The first file has: {names}."]))


def kind(type_: pa.DataType) -> pa.DataType:
    """A type without what does not matter to a reader: layout of lists and strings, dictionaries, nullability."""
    if isinstance(type_, pa.BaseExtensionType):
        return kind(type_.storage_type)
    if pt.is_dictionary(type_):
        return kind(type_.value_type)
    if is_list(type_):
        return pa.list_(kind(type_.value_type))
    if is_text(type_):
        return pa.string()
    return pa.binary() if is_bytes(type_) else type_


def _agree(one: pa.DataType, other: pa.DataType, widen: bool) -> bool:
    if one == other or pt.is_null(one) or pt.is_null(other):
        return True
    if pt.is_list(one) and pt.is_list(other):
        return _agree(one.value_type, other.value_type, widen)
    families = (pt.is_signed_integer, pt.is_unsigned_integer, pt.is_floating, pt.is_decimal)
    return widen and any(family(one) and family(other) for family in families)
