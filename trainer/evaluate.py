"""Measures a model on every row of a part of the data, each once, over all ranks."""

import torch

from configs.schema import Config, DataConfig
from trainer.build import Built
from trainer.data.dataset.faults import DataError
from trainer.data.reading.reader import Reader
from trainer.ranks.collectives import sum_over_ranks
from trainer.telemetry.records import EvalRecord
from trainer.telemetry.window import Evaluation


def evaluate(built: Built, reader: Reader, config: Config, device: torch.device, step: int, epoch: int) -> EvalRecord:
    """The record of one pass over `reader`, the same on every rank. The model is back in training mode afterwards.

    Args:
        built: its model is not attached to a train pipeline, which would feed it the wrong batches.
        step, epoch: how far the model is trained, for the record.
    """
    model = built.model
    evaluation = Evaluation(config.tasks, built.objective.criterion.binary, device)
    model.eval()
    with torch.no_grad():
        for batch in reader.batches(0):
            batch = batch.to(device)
            _, outputs = model(batch)
            evaluation.add(outputs, batch.groups)
    model.train()
    return evaluation.close(step, epoch, _left_out(reader, config.data, device))


def _left_out(reader: Reader, data: DataConfig, device: torch.device) -> int | None:
    """Rows that are missing over all ranks; None where none may be.

    Raises:
        DataError: on all ranks, if they are more than data.max_quarantined_fraction.
    """
    if data.on_error == "fail":
        return None
    rows = int(sum_over_ranks(torch.tensor(reader.rows_left_out, device=device)))
    limit, there = data.max_quarantined_fraction, reader.manifest.rows
    if rows > limit * there:
        raise DataError(
            f"{rows:,} of {there:,} rows to evaluate on cannot be read, more than data.max_quarantined_fraction="
            f"{limit:g}\nRestore the files that the ranks' logs name, or raise the limit."
        )
    return rows
