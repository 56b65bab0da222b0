"""Scores the same rows with the trainer's own modules and with a bundle, before the bundle is called done.

The trainer's side is its Ranker over TorchRec's EmbeddingBagCollection, with only those rows of the tables that the
batch looks up: a table may be larger than this machine. Rows are `sample`'s.

Where the bundle stores or computes with fewer bits than the trainer, its predictions differ; what is held to a limit
then is AUC, over the rows of the data that have labels.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from configs.errors import RunFailed
from configs.schema import Config
from configs.score_formula import evaluate
from embeddings.features.bags import Bags
from embeddings.features.feature_transforms import Columns
from embeddings.kjt import to_kjt
from embeddings.tables import build_tables
from trainer.data.columns.targets import Targets
from trainer.data.reading.batch import Batch
from trainer.export.calibration import Calibration
from trainer.export.onnx import onnx_predictions
from trainer.export.sample import SampleRows
from trainer.export.shared_scores import shared_scores
from trainer.export.weights import KeptRows
from trainer.objective import Objective
from trainer.ranker import Ranker
from trainer.serving.bundle import Bundle
from trainer.serving.signature import Parity, TaskParity
from trainer.telemetry.auc import auc

log = logging.getLogger(__name__)
TOLERANCE = 1e-6  # in FP32 on a CPU, which adds in another order at most
_TOLERANCES = {"cuda": 1e-5, "fp16": 0.02, "int8": 0.1, "int4": 0.5, "bf16": 0.1}
_SCORE_TOLERANCE = 1e-5  # of a formula in 32 bits


class ParityError(RunFailed):
    """The bundle does not score as the trainer does. It is not written."""


def check_parity(
    bundle: Bundle,
    config: Config,
    tables: Mapping[str, Tensor | KeptRows],
    top: nn.Module,
    sample: SampleRows,
    calibrations: Mapping[str, Calibration] | None = None,
    *,
    precision: str | None = None,
) -> Parity:
    """Compares predictions of the bundle, as a server would load it, with the trainer's.

    Args:
        tables: as they were trained, by name; only the rows looked up are read.
        top: with its trained weights, in eval mode.
        calibrations: of tasks, which the trainer's predictions are put through.
        precision: of the top of the program that takes these calls; None: as the signature says.

    Raises:
        ParityError: the largest difference, or the change of a task's AUC, is above its limit.
    """
    calibrations, width = calibrations or {}, len(config.tasks)
    steepness = _steepness(config, calibrations)
    expected = _expected(config, tables, top, sample.generated, calibrations)
    found = bundle.score(sample.generated)
    difference, tasks = largest_difference(expected, found[:, :width], steepness), {}
    _check_scores(config, found)
    if sample.data is not None and sample.columns is not None:
        expected = _expected(config, tables, top, sample.columns, calibrations)
        found = bundle.predict(sample.data, str(sample.file))
        difference = max(difference, largest_difference(expected, found[:, :width], steepness))
        _check_scores(config, found)
        tasks = _by_task(config, sample, expected, found)
    parity = Parity(
        generated_rows=len(sample.generated.dense),
        data_rows=0 if sample.data is None else sample.data.num_rows,
        data_file=sample.file,
        largest_difference=difference,
        tolerance=_tolerance(bundle, precision or bundle.signature.precision),
        max_auc_change=config.export.max_auc_change,
        tasks=tasks,
    )
    _refuse(parity)
    return parity


def check_onnx_parity(
    folder: Path,
    bundle: Bundle,
    config: Config,
    parity: Parity,
    sample: SampleRows,
    calibrations: Mapping[str, Calibration],
) -> Parity:
    """`parity` with what the portable form of the bundle, run by ONNX Runtime, adds to the largest difference."""
    difference, steepness = parity.largest_difference, _steepness(config, calibrations)
    steepness += (max(steepness),) * len(config.export.scores)
    for columns in (sample.generated, *([] if sample.columns is None else [sample.columns])):
        found = onnx_predictions(folder, bundle.signature.groups, bundle.signature.dense_width, columns)
        difference = max(difference, largest_difference(bundle.score(columns), found, steepness))
    parity = parity.model_copy(update={"largest_difference": difference, "tolerance": max(parity.tolerance, 1e-5)})
    _refuse(parity)
    return parity


def check_shared_parity(
    bundle: Bundle, config: Config, parity: Parity, sample: SampleRows, calibrations: Mapping[str, Calibration]
) -> Parity:
    """`parity` with what the program for calls with columns in common adds to the largest difference."""
    difference, steepness, width = parity.largest_difference, _steepness(config, calibrations), len(config.tasks)
    for whole, shared in shared_scores(bundle, sample):
        difference = max(difference, largest_difference(whole[:, :width], shared[:, :width], steepness))
        _check_scores(config, shared)
    parity = parity.model_copy(update={"largest_difference": difference})
    _refuse(parity)
    return parity


def _check_scores(config: Config, found: npt.NDArray[np.float32]) -> None:
    """Scores beside predictions [B, T + scores] are those that their formulas give in 64 bits, and finite."""
    by_task = dict(zip(config.tasks, found.T.astype(np.float64), strict=False))
    for place, (name, formula) in enumerate(config.export.scores.items(), len(config.tasks)):
        with np.errstate(all="ignore"):
            expected = evaluate(formula, by_task)
        if not np.isfinite(expected).all():
            row = int(np.argmin(np.isfinite(expected)))
            given = ", ".join(f"{task} {values[row]:.4g}" for task, values in by_task.items())
            raise ParityError(
                f"export.scores.{name}: {formula!r} is {expected[row]} where {given}; nothing was exported\n"
                "Change the formula: a negative number has no broken power, and nothing is divided by 0."
            )
        difference = largest_difference(expected, found[:, place])
        if difference > _SCORE_TOLERANCE:
            raise ParityError(f"the program's {name} is {difference:.2e} off its formula; nothing was exported")


def _tolerance(bundle: Bundle, precision: str) -> float:
    signature = bundle.signature
    fewer = {precision, signature.device}
    for group in signature.groups:
        trained = {signature.tables[bundle.features[name].table].data_type for name in group.features}  # pyright: ignore
        fewer |= {group.row_format} if trained - {group.row_format} else set()
    return max([TOLERANCE, *(_TOLERANCES[what] for what in fewer if what in _TOLERANCES)])


def _refuse(parity: Parity) -> None:
    if not parity.largest_difference <= parity.tolerance:
        raise ParityError(
            f"trainer and bundle differ by {parity.largest_difference:.2e}, more than {parity.tolerance:.0e}; "
            "nothing was exported"
        )
    for name, task in parity.tasks.items():
        if task.trainer_auc is None or task.bundle_auc is None:
            continue
        if abs(task.trainer_auc - task.bundle_auc) > parity.max_auc_change:
            raise ParityError(
                f"AUC of {name} is {task.trainer_auc:.5f} in the trainer and {task.bundle_auc:.5f} in the bundle over "
                f"{task.rows:,} rows, more than {parity.max_auc_change:g} apart; nothing was exported\n"
                "Take more bits, --tables int8 or --precision fp32, or raise export.max_auc_change."
            )


def _by_task(
    config: Config, sample: SampleRows, expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32]
) -> dict[str, TaskParity]:
    """AUC of every task that has labels 0 and 1 in the sample, without any weights."""
    assert sample.data is not None
    has = set(sample.data.column_names)
    labelled = {n: task for n, task in config.tasks.items() if has.issuperset(Targets({n: task}, None).columns)}
    targets, places = Targets(labelled, None), list(config.tasks)
    labels, weights = (torch.from_numpy(m) for m in targets(sample.data, str(sample.file)))
    tasks = {}
    for t, name in enumerate(labelled):
        given = weights[:, t] > 0
        label = labels[given, t]
        areas = None, None
        if len(label) and bool(((label >= 0) & (label <= 1)).all()):
            scores = (torch.from_numpy(scores[:, places.index(name)])[given] for scores in (expected, found))
            areas = tuple(auc(score, label, torch.ones_like(label)) for score in scores)
        known = [None if area is None or np.isnan(area) else area for area in areas]
        tasks[name] = TaskParity(rows=len(label), trainer_auc=known[0], bundle_auc=known[1])
    return tasks


def _steepness(config: Config, calibrations: Mapping[str, Calibration]) -> tuple[float, ...]:
    """[T]: what a calibration makes differences of a task grow by; 1 where there is none."""
    return tuple(calibrations[name].steepness if name in calibrations else 1.0 for name in config.tasks)


def _expected(
    config: Config,
    tables: Mapping[str, Tensor | KeptRows],
    top: nn.Module,
    columns: Columns,
    calibrations: Mapping[str, Calibration],
) -> npt.NDArray[np.float32]:
    """The trainer's predictions [B, T], calibrated in 64 bits."""
    predictions, logits = trainer_predictions(config, tables, top, columns)
    for place, name in enumerate(config.tasks):
        if name in calibrations:
            predictions[:, place] = calibrations[name](predictions[:, place], logits[:, place])
    return predictions


def largest_difference(
    expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32], steepness: Sequence[float] = (1.0,)
) -> float:
    """Largest |a - b| / max(1, |a|) of predictions [B, T], over the steepness of their column; NaN is infinite."""
    assert expected.shape == found.shape, (expected.shape, found.shape)
    difference = np.abs(expected - found) / np.maximum(1, np.abs(expected)) / np.asarray(steepness)
    return float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max())


@torch.no_grad()
def trainer_predictions(
    config: Config, tables: Mapping[str, Tensor | KeptRows], top: nn.Module, columns: Columns
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Predictions and logits [B, T] of the trainer's modules, unsharded, in 32 bits."""
    small, weights, sparse = _looked_up(config, tables, columns)
    collection = build_tables(small, torch.device("cpu"))
    if collection is not None:
        collection.load_state_dict({f"embedding_bags.{name}.weight": rows for name, rows in weights.items()})
    unlabelled = torch.zeros(len(columns.dense), len(config.tasks))
    kjt = to_kjt(list(sparse), sparse) if sparse else None
    batch = Batch(kjt, torch.from_numpy(columns.dense), unlabelled, unlabelled, (0, 0))
    objective, logits = Objective(config, 1), []
    objective.register_forward_pre_hook(lambda _, given: logits.append(given[0][0]))
    _, outputs = Ranker(collection, small, top, objective).eval()(batch)
    return outputs.predictions.numpy(), logits[0].float().numpy()


def _looked_up(
    config: Config, tables: Mapping[str, Tensor | KeptRows], columns: Columns
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
