"""Rows that trainer and bundle are to score alike: of the run's data where that can be read, and generated ones.

The generator also makes empty bags, long ones, and every ID from the first to the last. What is done with the rows is
`parity`'s business, and `calibration`'s.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import RunFailed, UserError
from configs.schema import Config
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns, FeatureTransforms
from trainer.data.columns.targets import Targets
from trainer.data.dataset.faults import first_line
from trainer.data.dataset.footers import read_footer
from trainer.data.dataset.listing import list_files
from trainer.data.dataset.partitions import folder_of
from trainer.data.dataset.path_columns import add_path_columns
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.export.weights import KeptRows

log = logging.getLogger(__name__)
_GENERATED_ROWS = 512
_LONGEST = 20


@dataclass(frozen=True)
class SampleRows:
    """What trainer and bundle are to score.

    Attributes:
        generated: transformed rows from the generator.
        data: raw rows of the data; None where it cannot be read.
        file: where these are from.
        columns: the same transformed.
        is_validation: whether they are of the validation part.
    """

    generated: Columns
    data: pa.Table | None
    file: str | None
    columns: Columns | None
    is_validation: bool

    def kept(self, config: Config) -> dict[str, KeptRows]:
        """Table -> the rows of it that the sample looks up, still to be read."""
        ids = {name: [np.zeros(1, np.int64)] for name in config.tables}
        for columns in (self.generated, *([] if self.columns is None else [self.columns])):
            for name, feature in config.sparse_features.items():
                ids[feature.table].append(columns.sparse[name].values)
        return {n: KeptRows(np.unique(np.concatenate(i)), config.tables[n].embedding_dim) for n, i in ids.items()}


def sample_rows(config: Config, transforms: FeatureTransforms, schema: pa.Schema | None) -> SampleRows:
    """Generated rows, and `export.parity_rows` of the validation part, else of the training part."""
    parts = ((True, config.data.validation), (False, config.data.train)) if config.export.parity_rows else ()
    for is_validation, part in parts:
        data, file = _rows_of_a_part(config, part, transforms, schema)
        if data is not None:
            return SampleRows(generate_columns(config), data, file, transforms(data, str(file)), is_validation)
    return SampleRows(generate_columns(config), None, None, None, False)


def generate_columns(config: Config, rows: int = _GENERATED_ROWS) -> Columns:
    """Random transformed rows: of two or more, the first has empty bags only, the second the first and the last ID."""
    random = np.random.default_rng(0)
    sparse = {}
    for name, feature in config.sparse_features.items():
        num_embeddings = config.tables[feature.table].num_embeddings
        lengths = random.integers(0, min(feature.max_length or _LONGEST, _LONGEST), rows, endpoint=True, dtype=np.int32)
        lengths[:2] = (0, 2) if rows > 1 else 1
        values = random.integers(0, num_embeddings, lengths.sum())
        values[:2] = (0, num_embeddings - 1) if rows > 1 else 0
        weights = random.random(len(values), np.float32) if feature.weights is not None else None
        sparse[name] = Bags(values, lengths, weights)
    return Columns(sparse, random.standard_normal((rows, config.input_layout.dense_width), np.float32))


def _rows_of_a_part(
    config: Config, part: str, transforms: FeatureTransforms, schema: pa.Schema | None
) -> tuple[pa.Table | None, str | None]:
    """The first rows of a part, and their file; none where the data is not."""
    source = open_source(config.data.root, part)
    try:
        files = list_files(source, config.data.read_timeout_s).files
    except (UserError, RunFailed) as error:
        log.info("no rows of %s for the parity check: %s", source.root, first_line(error))
        return None, None
    for path, _ in files:
        url = file_url(source.root, path)
        try:
            rows = _first_rows(source, path, config, transforms.columns, schema)
            if rows is not None:
                transforms(rows, url)
        except (OSError, pa.ArrowException, UserError) as error:  # such as one that is still being written
            log.warning("%s is skipped in the parity check: %s", url, first_line(error))
            continue
        if rows is not None:
            return rows, url
    return None, None


def _first_rows(
    source: Source, path: str, config: Config, columns: tuple[str, ...], schema: pa.Schema | None
) -> pa.Table | None:
    """The first rows of a file: the columns of features, and those of labels that it has."""
    url = file_url(source.root, path)
    with source.open(path) as file:
        footer = read_footer(file, url)
        wanted = dict.fromkeys((*columns, *Targets(config.tasks, config.data.weight_column).columns))
        present = [column for column in wanted if column in footer.schema.names]
        reader = pq.ParquetFile(file, metadata=footer.metadata, page_checksum_verification=True)
        batches, left = [], config.export.parity_rows
        for rows in reader.iter_batches(min(left, 8192), columns=present):
            batches.append(rows.slice(0, left))
            left -= len(batches[-1])
            if not left:
                break
        if not batches:
            return None
        table = pa.Table.from_batches(batches).combine_chunks()
        return add_path_columns(table, folder_of(path), columns, schema, url)
