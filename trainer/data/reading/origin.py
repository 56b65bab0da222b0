"""Where the rows of a step came from, for messages: files and row groups, those with most rows first."""

from collections import Counter
from collections.abc import Sequence

from trainer.data.dataset.manifest import Manifest
from trainer.data.reading.order import Order

_FILES, _ROW_GROUPS = 3, 4  # named in a message


def origin(order: Order, manifest: Manifest, epoch: int, step: int, lanes: Sequence[int]) -> str:
    """`part-00001.parquet (row groups 3, 0), part-00004.parquet (row group 2) and 5 more files`."""
    row_groups, _ = order.positions(epoch, step, lanes)
    files: dict[str, list[int]] = {}
    for number, _ in Counter(row_groups.tolist()).most_common():
        group = manifest.row_groups[number]
        files.setdefault(group.file.path, []).append(group.place)
    shown = [f"{path} ({_numbered(places)})" for path, places in list(files.items())[:_FILES]]
    more = len(files) - len(shown)
    return ", ".join(shown) + (f" and {more} more file{'s' if more > 1 else ''}" if more else "")


def _numbered(places: list[int]) -> str:
    more = len(places) - _ROW_GROUPS
    numbers = ", ".join(map(str, places[:_ROW_GROUPS])) + (f" and {more} more" if more > 0 else "")
    return f"row group{'s' if len(places) > 1 else ''} {numbers}"
