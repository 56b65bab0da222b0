"""Puts what `inspect_data` found into words: advice on how data is written, and a page of text."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from configs.text_table import text_table
from trainer.data.columns.checks import kind
from trainer.data.dataset.manifest import Manifest
from trainer.data.dataset.path_columns import values_of

WIDTH = 100
MIB = 2**20
FEW_ROWS, MANY_ROWS = 10_000, 1_000_000  # of a row group
MANY_BYTES = 256 * MIB  # of a decoded row group: what a worker keeps by default for everything read ahead
_SLOW_CODECS = {"GZIP", "BROTLI", "LZO"}
_SHOWN = 10  # names, or differences between schemas, that are listed
_HEADINGS = ("column", "type", "null", "distinct", "length", "min", "mean", "max")


def advice_of_part(part: dict[str, Any]) -> list[str]:
    """What to do about a part's files and columns, a sentence or two each."""
    if not part["rows"]:
        return ["the part has no row: write some or delete the folder"]
    return [*_advice_on_row_groups(part["row_groups"]), *_advice_on_pages(part), *_advice_on_columns(part["columns"])]


def _advice_on_row_groups(groups: dict[str, Any]) -> list[str]:
    lines = []
    rows, size = groups["rows"], groups["decoded_bytes"]
    if groups["count"] > 1 and rows["median"] < FEW_ROWS:
        lines.append(f"row groups are small, {rows['median']:,} rows: write {FEW_ROWS:,} to {MANY_ROWS:,}")
    if rows["max"] > MANY_ROWS:
        lines.append(f"row groups are large, up to {rows['max']:,} rows: write {FEW_ROWS:,} to {MANY_ROWS:,}")
    if size["max"] > MANY_BYTES:
        lines.append(
            f"a row group takes {size['max'] / MIB:,.0f} MiB of memory, and each lane has one open: write fewer rows"
        )
    return lines


def _advice_on_pages(part: dict[str, Any]) -> list[str]:
    lines = []
    if part["page_checksums"] in ("none", "some"):
        lines.append(
            f"{'no' if part['page_checksums'] == 'none' else 'not all'} pages have checksums: a flipped bit can be "
            "read as another value unnoticed; in pyarrow write_page_checksum=True"
        )
    lines += [
        f"codec {codec} is slow to decode: write SNAPPY, LZ4 or ZSTD"
        for codec in part["codecs"]
        if codec in _SLOW_CODECS
    ]
    return lines


def _advice_on_columns(columns: dict[str, dict[str, Any]]) -> list[str]:
    read = {name: column for name, column in columns.items() if column["rows"]}
    always_null = [name for name, column in read.items() if column["null_rate"] == 1]
    constant = [name for name, column in read.items() if _is_constant(column)]
    not_finite = [name for name, column in read.items() if column["non_finite"]]
    notes = [
        (always_null, "always null", "leave them out of the config"),
        (constant, "always of one value", "nothing can be learned from them"),
        (not_finite, "with NaN or infinite values", "write nulls, which have a default"),
    ]
    return [f"columns {what}: {_listed(names)}; {remedy}" for names, what, remedy in notes if names]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_constant(column: dict[str, Any]) -> bool:
    if column["null_rate"] or column["non_finite"] or column["max_length"] is not None:
        return False
    return column["distinct"] == 1 or (column["min"] is not None and column["min"] == column["max"])


def schema_differences(manifest: Manifest) -> list[str]:
    """Columns that not all files have, or not with one type."""
    files: dict[str, dict[str, list[str]]] = {}  # column -> type -> files
    for file in manifest.files:
        of_path = values_of(file.folder)
        for field in manifest.schemas[file.schema]:
            if field.name in of_path:
                continue
            files.setdefault(field.name, {}).setdefault(str(kind(field.type)), []).append(file.path)
    lines = []
    missing: dict[tuple[str, ...], list[str]] = {}  # files -> columns
    for column, types in files.items():
        if len(types) > 1:
            shown = ", ".join(f"{name} in {paths[0]}" for name, paths in types.items())
            lines.append(f"column {column!r} has several types: {shown}")
        having = {path for paths in types.values() for path in paths}
        if lacking := tuple(file.path for file in manifest.files if file.path not in having):
            missing.setdefault(lacking, []).append(column)
    lines += [
        f"missing in {len(lacking):,} of {_counted(len(manifest.files), 'file')}, such as {lacking[0]}: "
        f"{_listed(columns)}"
        for lacking, columns in missing.items()
    ]
    more = [f"and {len(lines) - _SHOWN:,} more such differences"] if len(lines) > _SHOWN else []
    return [*lines[:_SHOWN], *more]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def text_of(values: dict[str, Any]) -> str:
    """The findings for a reader, at most 100 columns wide."""
    lines = [f"data {values['path']}", *values["skipped"]]
    for name, part in values["parts"].items():
        lines += ["", *_lines_of_part(name, part)]
    if values["advice"]:
        lines += ["", "advice on all parts:", *(f"  - {line}" for line in values["advice"])]
    return "\n".join(piece for line in lines for piece in _wrapped(line))


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _lines_of_part(name: str, part: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: {_counted(part['files'], 'file')}, {_counted(part['rows'], 'row')}, {part['bytes'] / MIB:,.1f} MiB"
    ]
    if part["rows"]:
        groups = part["row_groups"]
        rows, size = groups["rows"], groups["decoded_bytes"]
        lines += [
            f"  row groups: {groups['count']:,}; smallest / median / largest: {_spread(rows, 1, 0)} rows",
            f"  decoded: {_spread(size, MIB, 2)} MiB; codec: {', '.join(part['codecs'])}; "
            f"pages with checksums: {part['page_checksums']}",
        ]
        if groups["read"] < groups["count"]:
            lines.append(f"  columns below are of a sample: {groups['read']:,} row groups, spread over the part")
    rows = [_HEADINGS, *(_row(name, column) for name, column in part["columns"].items())]
    lines += text_table(rows, right=range(2, len(_HEADINGS)), indent="  ")
    labels = [f"{name} {column['positive_rate']:.2%}" for name, column in part["columns"].items() if _is_0_or_1(column)]
    if labels:
        lines.append(f"  0/1 columns, share of ones: {', '.join(labels)}")
    if part["advice"]:
        lines += ["  advice:", *(f"  - {line}" for line in part["advice"])]
    return lines


def _spread(numbers: dict[str, int], unit: int, places: int) -> str:
    return " / ".join(f"{numbers[key] / unit:,.{places}f}" for key in ("min", "median", "max"))


def _is_0_or_1(column: dict[str, Any]) -> bool:
    return column["positive_rate"] is not None


def _row(name: str, column: dict[str, Any]) -> tuple[str, ...]:
    null_rate, mean_length = column["null_rate"], column["mean_length"]
    return (
        _cut(name, 20),
        _cut(column["type"], 13),
        "" if null_rate is None else f"{null_rate:.1%}",
        _distinct(column),
        "" if mean_length is None else f"{_short(mean_length)} ≤ {_short(column['max_length'])}",
        *("" if column[key] is None else _number(column[key]) for key in ("min", "mean", "max")),
    )


def _number(number: float) -> str:
    """All digits before the point, or four in all where these are more than ten characters."""
    whole = f"{number:,.0f}"
    is_short = float(number).is_integer() or abs(number) >= 1000
    return whole if is_short and len(whole) <= 10 else f"{number:.4g}"


def _distinct(column: dict[str, Any]) -> str:
    number = column["distinct"]
    if number is None:
        return ""
    if not column["distinct_is_exact"]:
        number = int(float(f"{number:.3g}"))  # no more digits than the estimate is good for
    shown = f"{number:,}" if number < 10**7 else f"{number:.3g}"
    return shown if column["distinct_is_exact"] else f"~{shown}"


def _short(number: float) -> str:
    """A length in at most five characters."""
    if number < 100:
        return f"{number:.3g}"
    return f"{number:.0f}" if number < 10_000 else f"{number / 1000:.0f}k"


def _cut(text: str, width: int) -> str:
    """Text without its middle where it is too long: names often differ at their ends."""
    if len(text) <= width:
        return text
    head = width // 2 - 1
    return f"{text[:head]}…{text[head + 1 - width :]}"
