"""How rows of tables are stored in a bundle, and how bags of rows are summed from that.

    format    a row of width D                                             bytes at D = 64
    fp32      D floats                                                     256
    fp16      D halves                                                     128
    int8      D bytes, then scale and offset of the row as floats           72
    int4      D / 2 bytes, then scale and offset of the row as halves       36

int8 and int4 are summed by operators of torch itself, on a CPU: their rows are never expanded in memory. Which rows a
bag has is `inputs`' business, what is made of the sums that of the exported program.

Shapes: R rows, N IDs of all bags together, D width.
"""

import torch
from torch import Tensor

from configs.export_config import RowFormat

_FLOATS = {"fp32": torch.float32, "fp16": torch.float16}


def stored_as(row_format: RowFormat, width: int) -> tuple[torch.dtype, int]:
    """Type and number of columns of a stored row."""
    if row_format in _FLOATS:
        return _FLOATS[row_format], width
    return torch.uint8, width + 8 if row_format == "int8" else width // 2 + 4


def encode(rows: Tensor, row_format: RowFormat) -> Tensor:
    """Rows [R, D] of any float type as they are stored. A row depends on itself alone."""
    if row_format in _FLOATS:
        return rows.to(_FLOATS[row_format])
    if row_format == "int8":
        return torch.ops.quantized.embedding_bag_byte_prepack(rows.float())
    return torch.ops.quantized.embedding_bag_4bit_prepack(rows.float())


def sum_bags(table: Tensor, row_format: RowFormat, values: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    """Sums [bags, D] in float32 of the rows `values` [N] of stored rows; bag b starts at offsets[b]."""
    if row_format == "int8":
        return torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            table, values, offsets, False, 0, False, weights, None, False
        )
    if row_format == "int4":
        return torch.ops.quantized.embedding_bag_4bit_rowwise_offsets(
            table, values, offsets, False, 0, False, weights, None, False
        )
    if row_format == "fp16":  # embedding_bag would sum in halves
        table, values = table[values].float(), torch.arange(values.shape[0], device=values.device)
    return torch.nn.functional.embedding_bag(values, table, offsets, mode="sum", per_sample_weights=weights)
