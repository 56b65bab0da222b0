"""Measures a model on every row of a part of the data, each once, over all ranks."""

import torch

from configs.schema import Config
from trainer.build import Built
from trainer.data.reader import Reader
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
    return evaluation.close(step, epoch)
