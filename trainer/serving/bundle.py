"""Loads a bundle and scores rows with it, in any process that has torch: no torchrec, no ray, no training code.

Reading files is left to `trainer.serving.score`, answering requests to `trainer.serving.server`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open
from torch import Tensor

from configs.errors import UserError
from configs.schema import Feature
from embeddings.features.feature_transforms import Columns, FeatureTransforms
from embeddings.features.files import files_of, with_files
from embeddings.features.places import for_callers
from trainer.data.dataset.faults import first_line
from trainer.data.dataset.schema_text import schema_from_text
from trainer.serving.columns import AsTrained
from trainer.serving.inputs import program_inputs
from trainer.serving.program import Program, load_program, refuse_device
from trainer.serving.shared import Halves
from trainer.serving.signature import (
    GRAPH,
    SHARED_GRAPH,
    SIGNATURE,
    SMALL_GRAPH,
    SMALL_WEIGHTS,
    WARM_UP,
    WEIGHTS,
    Signature,
    Weight,
    check_checksums,
    read_signature,
    unreadable,
)

_ROWS_PER_TRANSFORM = 8192
_ROWS_PER_CALL = 512  # what a call of more rows makes in between leaves the cache, and each is new memory


class Bundle:
    """A loaded bundle. Safe to call from several threads.

    Args:
        folder: what `export` wrote.
        compiled: False takes the graph even where a compiled program runs.
        verify: compare the checksums of all files, which reads them whole; else their sizes alone, so that a flipped
            bit is served.

    Attributes:
        tasks: names of the predictions: those of tasks, then those of scores.
        instructions: what the program was compiled for; None where it is the graph.

    Raises:
        UserError: it is not a bundle, or not a whole one, or this machine has not what it computes with.
    """

    def __init__(self, folder: str | Path, *, compiled: bool = True, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.signature: Signature = read_signature(self.folder)
        refuse_device(self.signature, self.folder)
        if verify:
            check_checksums(self.folder, self.signature)
        self.tasks = (*self.signature.tasks, *self.signature.scores)
        self.features = _with_own_files(self.signature, self.folder)
        self.transforms = FeatureTransforms(self.features, self.signature.tables)
        schema = self.signature.arrow_schema
        self.schema = schema_from_text(schema) if schema else None
        self.as_trained = AsTrained(self.signature.features, self.schema)
        try:
            weights = load_weights(self.folder / WEIGHTS, self.signature.weights)
            self._weights = [weight.to(self.signature.device) for weight in weights]
            self._program, used = load_program(self.folder / GRAPH, self.signature.compiled if compiled else ())
            self.instructions = used.instructions if used else None
            self._small = self._load_small(compiled)
            self._shared = self._load_shared(compiled)
            self.warm()
        except Exception as error:
            if not verify:
                check_checksums(self.folder, self.signature)  # damage explains whatever a decoder makes of it
            if isinstance(error, OSError):
                raise unreadable(Path(error.filename or self.folder), error) from None
            raise

    @property
    def compiled(self) -> bool:
        """Whether its program is a compiled one."""
        return self.instructions is not None

    def warm(self) -> None:
        """Scores the rows that travel with the bundle, one and then all, so that the first request is not the slowest:
        memory is claimed, kernels are chosen and rows that many ask for are read by then."""
        path, small = self.folder / WARM_UP, self.signature.small
        if WARM_UP in self.signature.files:
            rows = pq.read_table(path)
            self.predict(rows.slice(0, 1), str(path))
            self.predict(pa.concat_tables([rows] * (2 if small and rows.num_rows <= small.rows else 1)), str(path))

    @property
    def id_columns(self) -> frozenset[str]:
        """The raw columns that hold IDs."""
        return self.as_trained.id_columns

    def predict(self, table: pa.Table, where: str = "rows", first_row: int = 0) -> npt.NDArray[np.float32]:
        """Predictions [R, T] of raw rows.

        Args:
            table: R rows with at least the columns `self.transforms.columns`.
            where: the rows' origin, for error messages.
            first_row: place there of the table's first row.

        Raises:
            UserError: a column is missing, holds what cannot be used, or values of another kind than in training; or
                a prediction is no finite number.
        """
        table = self._needed(table, where)
        parts = [
            self._predict(table.slice(start, _ROWS_PER_TRANSFORM), where, first_row + start)
            for start in range(0, table.num_rows, _ROWS_PER_TRANSFORM)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.tasks)), np.float32)

    def _needed(self, table: pa.Table, where: str) -> pa.Table:
        """The columns that features read, if they are all there: the transforms say which one is not."""
        names = table.column_names
        for column in self.transforms.columns:
            if names.count(column) > 1:
                raise UserError(f"{where}: there are {names.count(column)} columns {column!r}\nKeep one of them.")
        return table.select(self.transforms.columns) if set(self.transforms.columns) <= set(names) else table

    def columns(
        self, table: pa.Table, where: str, first_row: int = 0, transforms: FeatureTransforms | None = None
    ) -> Columns:
        """Raw rows transformed, as `predict` does it. transforms: those of some of the features alone."""
        try:
            return (transforms or self.transforms)(self.as_trained(table, where, first_row), where, first_row)
        except UserError as error:
            raise UserError(for_callers(str(error))) from None
        except pa.ArrowMemoryError:
            raise
        except pa.ArrowException as error:
            raise UserError(
                f"{where}: a column cannot be converted: {first_line(error)}\n"
                f"Give columns the types that {SIGNATURE} says they had in training."
            ) from error

    def _predict(self, table: pa.Table, where: str, first_row: int) -> npt.NDArray[np.float32]:
        return self.finite(self.score(self.columns(table, where, first_row)), where, first_row)

    def finite(self, predictions: npt.NDArray[np.float32], where: str, first_row: int) -> npt.NDArray[np.float32]:
        """`predictions`. UserError: one of them is no finite number."""
        if not np.isfinite(predictions).all():
            row, task = np.argwhere(~np.isfinite(predictions))[0]
            formula = self.signature.scores.get(self.tasks[task])
            why = "A number of the row lies far beyond those of training, or the model has diverged."
            raise UserError(
                f"{where}, row {first_row + row}: the prediction of {self.tasks[task]!r} is {predictions[row, task]}\n"
                + (f"Its formula, {formula}, has no finite value there." if formula else why)
            )
        return predictions

    def score(self, columns: Columns) -> npt.NDArray[np.float32]:
        """Predictions [B, T] of B transformed rows. Raises ValueError when they do not fit the bundle."""
        if not len(columns.dense):
            return np.empty((0, len(self.tasks)), np.float32)
        program, weights = self._program_for(len(columns.dense))
        parts = []
        for start in range(0, len(columns.dense), _ROWS_PER_CALL):
            rows = columns.narrow(start, min(start + _ROWS_PER_CALL, len(columns.dense)))
            inputs = program_inputs(rows, self.signature.groups, self.signature.dense_width)
            parts.append(self._run(program, weights, inputs))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _program_for(self, rows: int) -> tuple[Program, Sequence[Tensor]]:
        """That of a call of `rows`, and its weights: all slices of one call are computed alike."""
        small = self.signature.small
        if self._small is not None and small is not None and rows <= small.rows:
            return self._small
        return self._program, self._weights

    def halves(self, shared: frozenset[str]) -> Halves:
        """The features that read the raw columns `shared` alone, and all others."""
        signature, spans = self.signature, self.transforms.dense_spans
        return Halves(self.features, signature.tables, signature.groups, spans, shared)

    def score_shared(
        self, halves: Halves, once: Columns, each: Columns, call_of_row: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Predictions [B, T] of B rows, of which those of one call have the features of `halves.once` in common.

        Args:
            once: those features, one row per call.
            each: all others, B rows.
            call_of_row: [B].

        Raises:
            ValueError: they do not fit the bundle.
        """
        program, weights = self._program_for(len(call_of_row))
        if self._shared is None or program is not self._program:
            return self.score(halves.repeated(once, each, call_of_row))
        parts = []
        for start in range(0, len(call_of_row), _ROWS_PER_CALL):
            stop = min(start + _ROWS_PER_CALL, len(call_of_row))
            inputs = halves.inputs(once, each.narrow(start, stop), call_of_row[start:stop])
            parts.append(self._run(self._shared, weights, inputs))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, program: Program, weights: Sequence[Tensor], inputs: list[Tensor]) -> npt.NDArray[np.float32]:
        if self.signature.device != "cpu":
            inputs = [tensor.to(self.signature.device) for tensor in inputs]
        return program(weights, inputs).cpu().numpy()

    def _load_small(self, compiled: bool) -> tuple[Program, list[Tensor]] | None:
        """The program for few rows and its weights, of which the top is its own and all others are those mapped."""
        small, tables = self.signature.small, len(self.signature.groups)
        if small is None:
            return None
        top = load_weights(self.folder / SMALL_WEIGHTS, small.top)
        program, _ = load_program(self.folder / SMALL_GRAPH, small.compiled if compiled else ())
        return program, [*self._weights[:tables], *top, *self._weights[tables + len(top) :]]

    def _load_shared(self, compiled: bool) -> Program | None:
        """The program for rows with columns in common; bundles of earlier versions have none."""
        if SHARED_GRAPH not in self.signature.files:
            return None
        return load_program(self.folder / SHARED_GRAPH, self.signature.shared if compiled else ())[0]


def load_weights(path: Path, expected: Sequence[Weight]) -> list[Tensor]:
    """The tensors of `path` in the order of `expected`, mapped: rows come into memory when they are looked up.

    Raises:
        UserError: a tensor is missing or has another shape or type.
    """
    weights = []
    with safe_open(str(path), framework="pt") as file:
        names = set(file.keys())
        for weight in expected:
            tensor = file.get_tensor(weight.name) if weight.name in names else None
            if tensor is None or tuple(tensor.shape) != weight.shape or str(tensor.dtype) != f"torch.{weight.dtype}":
                was = "missing" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"
                raise UserError(
                    f"{path}: {weight.name} is {was}, the signature says {weight.dtype}{list(weight.shape)}\n"
                    "Export the bundle again."
                )
            weights.append(tensor)
    return weights


def _with_own_files(signature: Signature, folder: Path) -> dict[str, Feature]:
    """The features, with the paths of their vocabularies inside the bundle."""
    paths = {name: str(folder / path) for name, path in files_of(signature.features).items()}
    return with_files(signature.features, paths)
