"""Parts of a tensor come out of a checkpoint as they went in, however its chunks lie."""

import json
from pathlib import Path

import pytest
import torch

from trainer.checkpoint.files import Checkpoint
from trainer.checkpoint.regions import Regions
from trainer.checkpoint.storage import INDEX
from trainer.file_record import FileRecord
from trainer.run.folder import Folder
from trainer.run.position import Position

TABLE = torch.arange(60, dtype=torch.float32).view(10, 6)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """TABLE in four chunks, of rows 0-2 and 3-9 and of columns 0-3 and 4-5."""
    content, chunks = b"", []
    for rows in ((0, 3), (3, 10)):
        for columns in ((0, 4), (4, 6)):
            part = TABLE[slice(*rows), slice(*columns)].contiguous()
            chunks.append([[rows[0], columns[0]], list(part.shape), "rank_00000.bin", len(content)])
            content += part.numpy().tobytes()
    (tmp_path / "rank_00000.bin").write_bytes(content)
    (tmp_path / INDEX).write_text(json.dumps({"model/t": {"dtype": "float32", "size": [10, 6], "chunks": chunks}}))
    files = {"rank_00000.bin": FileRecord(len(content), "")}
    return Checkpoint(Folder(tmp_path), Position(1, 0, 1), 1, {}, {}, files)


@pytest.mark.parametrize("offsets", [(0, 0), (2, 3), (3, 4), (9, 5), (1, 0)])
@pytest.mark.parametrize("shape", [(1, 1), (6, 2), (1, 6), (9, 3)])
def test_any_part_is_read(checkpoint: Checkpoint, offsets: tuple[int, int], shape: tuple[int, int]) -> None:
    (row, column), (rows, columns) = offsets, shape
    expected = TABLE[row : row + rows, column : column + columns]
    with Regions(checkpoint) as stored:
        got = stored.read("model/t", offsets, torch.full(expected.shape, -1, dtype=torch.float64))
        assert torch.equal(got, expected.double())
        assert torch.equal(stored.whole("model/t"), TABLE)
        assert torch.equal(stored.rows("model/t", row, min(rows, 10 - row)), TABLE[row : row + rows])
