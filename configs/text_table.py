"""Rows of words and numbers as lines of text with aligned columns: every table on the screen is made here.

It lies in configs, the one place that tables, tops and the trainer all import.
"""

from collections.abc import Collection, Sequence


def text_table(rows: Sequence[Sequence[str]], right: Collection[int], indent: str = "") -> list[str]:
    """A line for each row, all rows equally long.

    Args:
        right: places of the columns that are numbers, which end at the same place; the others begin there.
        indent: put before each line.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        shown = "  ".join(cell.rjust(w) if place in right else cell.ljust(w) for place, (cell, w) in cells)
        lines.append((indent + shown).rstrip())
    return lines
