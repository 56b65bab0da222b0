"""Any tensor comes back from its bytes, whole or a region of it, and the checksum is that of the file."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.checkpoint import values as checkpoint_values
from trainer.checkpoint.sink import Sink
from trainer.checkpoint.values import read_region, write_values
from trainer.file_record import FileRecord, checksum

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]


def written(*tensors):
    file, starts = io.BytesIO(), []
    sink = Sink(file)
    for tensor in tensors:
        starts.append(sink.at)
        write_values(sink, tensor)
    assert sink.record == FileRecord(len(file.getvalue()), checksum(file.getvalue()))
    return file, starts


@st.composite
def regions(draw):
    sizes = draw(st.lists(st.integers(0, 9), max_size=3))
    offsets = [draw(st.integers(0, size)) for size in sizes]
    lengths = [draw(st.integers(0, size - offset)) for size, offset in zip(sizes, offsets, strict=True)]
    return sizes, offsets, lengths


@settings(max_examples=150, deadline=None)
@given(regions(), st.sampled_from(DTYPES), st.integers(1, 200), st.booleans())
def test_a_region_is_that_part_of_the_tensor(region, dtype, block_bytes, transposed):
    sizes, offsets, lengths = region
    values = (torch.randn(sizes) * 50).to(dtype)
    if transposed:
        order = tuple(reversed(range(values.dim())))
        values = values.permute(order).contiguous().permute(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint_values, "_BLOCK_BYTES", block_bytes)
        file, (_, start) = written(torch.arange(5), values)
        assert start % 64 == 0
        target = torch.zeros(lengths, dtype=dtype)
        read_region(file, start, sizes, dtype, offsets, target)
    expected = values
    for dim, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        expected = expected.narrow(dim, offset, length)
    assert torch.equal(target, expected)


def test_a_file_that_ends_early_is_an_error():
    file, (start,) = written(torch.arange(100))
    short = io.BytesIO(file.getvalue()[:700])
    with pytest.raises(EOFError, match="100 bytes too early"):
        read_region(short, start, [100], torch.int64, [0], torch.zeros(100, dtype=torch.int64))
