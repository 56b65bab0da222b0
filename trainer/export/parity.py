"""Scores the same rows with the trainer's own modules and with a bundle, before the bundle is called done.

The trainer's side is its Ranker over TorchRec's EmbeddingBagCollection, with only those rows of the tables that the
batch looks up: a table may be larger than this machine. Rows come from the run's data where that can be read, and from
a generator that also makes empty bags, long ones, and every ID from the first to the last.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from configs.errors import RunFailed, UserError
from configs.schema import Config
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from embeddings.kjt import to_kjt
from embeddings.tables import build_tables
from trainer.data.dataset.faults import first_line
from trainer.data.dataset.footers import read_footer
from trainer.data.dataset.listing import list_files
from trainer.data.dataset.partitions import folder_of
from trainer.data.dataset.path_columns import add_path_columns
from trainer.data.dataset.source import Source, file_url, open_source
from trainer.data.reading.batch import Batch
from trainer.objective import Objective
from trainer.ranker import Ranker
from trainer.serving.bundle import Bundle
from trainer.serving.signature import Parity

log = logging.getLogger(__name__)
TOLERANCE = 1e-5
_GENERATED_ROWS = 512
_DATA_ROWS = 1024
_LONGEST = 20


class ParityError(RunFailed):
    """The bundle does not score as the trainer does. It is not written."""


def check_parity(bundle: Bundle, config: Config, tables: Mapping[str, Tensor], top: nn.Module) -> Parity:
    """Compares predictions of the bundle, as a server would load it, with the trainer's.

    Args:
        tables: whole tables as they were trained, by name; only the rows looked up are read.
        top: with its trained weights, in eval mode.

    Raises:
        ParityError: the largest difference is above the tolerance.
    """
    generated = generate_columns(config)
    difference = largest_difference(trainer_predictions(config, tables, top, generated), bundle.score(generated))
    rows, file = _rows_of_the_data(config, bundle)
    if rows is not None:
        columns = bundle.columns(rows, str(file))
        of_bundle = bundle.score(columns)
        difference = max(difference, largest_difference(trainer_predictions(config, tables, top, columns), of_bundle))
    if not difference <= TOLERANCE:
        raise ParityError(
            f"trainer and bundle differ by {difference:.2e}, more than {TOLERANCE:.0e}; nothing was exported"
        )
    return Parity(
        generated_rows=_GENERATED_ROWS,
        data_rows=0 if rows is None else rows.num_rows,
        data_file=file,
        largest_difference=difference,
        tolerance=TOLERANCE,
    )


def largest_difference(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> float:
    """Largest |a - b| / max(1, |a|) of predictions [B, T]; NaN in either is infinite."""
    assert expected.shape == found.shape, (expected.shape, found.shape)
    difference = np.abs(expected - found) / np.maximum(1, np.abs(expected))
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max())


@torch.no_grad()
def trainer_predictions(
    config: Config, tables: Mapping[str, Tensor], top: nn.Module, columns: Columns
) -> npt.NDArray[np.float32]:
    """Predictions [B, T] of the trainer's modules, unsharded, in 32 bits."""
    small, weights, sparse = _looked_up(config, tables, columns)
    collection = build_tables(small, torch.device("cpu"))
    if collection is not None:
        collection.load_state_dict({f"embedding_bags.{name}.weight": rows for name, rows in weights.items()})
    unlabelled = torch.zeros(len(columns.dense), len(config.tasks))
    kjt = to_kjt(list(sparse), sparse) if sparse else None
    batch = Batch(kjt, torch.from_numpy(columns.dense), unlabelled, unlabelled, (0, 0))
    _, outputs = Ranker(collection, small, top, Objective(config, 1)).eval()(batch)
    return outputs.predictions.numpy()


def _looked_up(
    config: Config, tables: Mapping[str, Tensor], columns: Columns
) -> tuple[Config, dict[str, Tensor], dict[str, Bags]]:
    """A config, tables and bags of the rows that `columns` look up, and no others, in 32 bits."""
    ids = {name: [np.zeros(1, np.int64)] for name in tables}
    for name, feature in config.sparse_features.items():
        ids[feature.table].append(columns.sparse[name].values)
    rows = {name: np.unique(np.concatenate(parts)) for name, parts in ids.items()}
    weights = {name: tables[name][torch.from_numpy(wanted)].float() for name, wanted in rows.items()}
    smaller, sparse = {}, {}
    for name, wanted in rows.items():
        changes = {"num_embeddings": len(wanted), "data_type": "fp32"}
        smaller[name] = config.tables[name].model_copy(update=changes)
    for name, feature in config.sparse_features.items():
        bag = columns.sparse[name]
        sparse[name] = replace(bag, values=np.searchsorted(rows[feature.table], bag.values))
    return config.model_copy(update={"tables": smaller}), weights, sparse


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


def _rows_of_the_data(config: Config, bundle: Bundle) -> tuple[pa.Table | None, str | None]:
    """The first rows of the validation part, else of the training part, and their file; none where the data is not."""
    for part in (config.data.validation, config.data.train):
        if part is None:
            continue
        source = open_source(config.data.root, part)
        try:
            files = list_files(source, config.data.read_timeout_s).files
        except (UserError, RunFailed) as error:
            log.info("no rows of %s for the parity check: %s", source.root, first_line(error))
            continue
        for path, _ in files:
            try:
                rows = _first_rows(source, path, bundle)
            except (OSError, pa.ArrowException, UserError) as error:  # such as one that is still being written
                log.warning("%s is skipped in the parity check: %s", file_url(source.root, path), first_line(error))
                continue
            if rows is not None:
                return rows, file_url(source.root, path)
    return None, None


def _first_rows(source: Source, path: str, bundle: Bundle) -> pa.Table | None:
    columns = bundle.transforms.columns
    with source.open(path) as file:
        footer = read_footer(file, file_url(source.root, path))
        present = [column for column in columns if column in footer.schema.names]
        reader = pq.ParquetFile(file, metadata=footer.metadata, page_checksum_verification=True)
        for rows in reader.iter_batches(_DATA_ROWS, columns=present):
            table = pa.Table.from_batches([rows])
            return add_path_columns(table, folder_of(path), columns, bundle.schema, file_url(source.root, path))
    return None
