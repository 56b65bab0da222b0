"""Whether a row of a table means the same in two runs: the same ID, category or bucket.

A table may have more rows than it had where rows are numbered from 0 on and a larger table leaves them their numbers:
`identity`, `vocabulary`, `bucketize`. `hash` takes IDs modulo the number of rows, so with another number nearly every
ID moves to a row of others. Imports no torch.
"""

from collections.abc import Iterator

from configs.errors import UserError
from configs.schema import Config, SparseFeature, WarmStart
from embeddings.features.transforms.vocabulary import Vocabulary

_GROW = ("identity", "vocabulary", "bucketize")


def refuse_other_rows(warm: WarmStart, here: Config, there: Config) -> None:
    """Compares the tables that are in both runs and that `warm` takes.

    there: with the vocabularies that the other run keeps.

    Raises:
        UserError: lists the tables whose rows cannot be taken over, and why.
    """
    tables = [name for name in shared_tables(here, there) if warm.takes(f"tables.{name}")]
    lines = {name: why for name in tables if (why := next(_reasons(name, here, there), None))}
    if lines:
        names = ",".join(f"tables.{name}" for name in lines)
        raise UserError(
            "\n".join(
                [
                    f"training.warm_start cannot take over these tables of {warm.run}:",
                    *(f"  tables.{name}: {why}" for name, why in lines.items()),
                    f"Undo the change, or let them begin fresh: training.warm_start.exclude=[{names}]",
                ]
            )
        )


def shared_tables(here: Config, there: Config) -> list[str]:
    """Tables that features look up in both runs."""
    used = [{feature.table for feature in config.sparse_features.values()} for config in (here, there)]
    return [name for name in here.tables if name in used[0] & used[1]]


def _reasons(name: str, here: Config, there: Config) -> Iterator[str]:
    now, then = here.tables[name], there.tables[name]
    if now.embedding_dim != then.embedding_dim:
        yield f"rows are {now.embedding_dim} wide, and {then.embedding_dim} there"
    if now.num_embeddings < then.num_embeddings:
        yield f"{now.num_embeddings:,} rows cannot hold the {then.num_embeddings:,} there"
    readers = {feature: one for feature, one in there.sparse_features.items() if one.table == name}
    for feature, reader in here.sparse_features.items():
        if reader.table == name:
            candidates = [readers[feature]] if feature in readers else list(readers.values())
            grows = now.num_embeddings - then.num_embeddings
            whys = [_difference(feature, reader, candidate, grows) for candidate in candidates]
            if None not in whys:
                yield whys[0] or ""


def _difference(name: str, now: SparseFeature, then: SparseFeature, grows: int) -> str | None:
    """Why a row has another meaning now, or None. grows: rows that the table has more than it had."""
    if now.transform != then.transform:
        return f"features.{name} gives it rows by {now.transform}, there it was {then.transform}"
    if now.options != then.options:
        return f"features.{name}.options are {now.options}, there they were {then.options}"
    if grows and now.transform not in _GROW:
        kept = ", ".join(_GROW)
        return (
            f"{grows:,} rows more, and features.{name} gives rows by {now.transform}: its IDs would move to other rows "
            f"(tables grow with {kept})"
        )
    if now.transform == "bucketize" and now.boundaries[: len(then.boundaries)] != then.boundaries:
        return f"features.{name}.boundaries do not begin with those there; add new ones at the end"
    if now.transform == "vocabulary" and now.vocabulary and then.vocabulary:
        return _other_line(name, Vocabulary(now.vocabulary).lines, Vocabulary(then.vocabulary).lines)
    return None


def _other_line(name: str, now: list[str], then: list[str]) -> str | None:
    """Row n is the ID of line n: the lines of the other run must come first, in their order."""
    for number, line in enumerate(then, 1):
        if number > len(now):
            return f"the vocabulary of features.{name} ends before line {number:,}, which was {line!r} there"
        if now[number - 1] != line:
            return (
                f"line {number:,} of the vocabulary of features.{name} is {now[number - 1]!r}, there it was {line!r}: "
                "keep the lines there, and add new ones at the end"
            )
    return None
