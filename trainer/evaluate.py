"""Measures a model on every row of a part of the data, each once, over all ranks; and the evaluations of a run."""

from collections.abc import Callable

import torch

from configs.schema import Config, DataConfig
from trainer.build import Built
from trainer.data.dataset.faults import DataError
from trainer.data.reading.reader import Reader
from trainer.pulse import Pulse
from trainer.ranks.agreement import Agreement, AnyRank
from trainer.ranks.collectives import sum_over_ranks
from trainer.run.position import Position
from trainer.telemetry.divergence import refuse_diverged_evaluation
from trainer.telemetry.dropped import dropped_shares
from trainer.telemetry.records import EvalRecord
from trainer.telemetry.report import Report
from trainer.telemetry.window import Evaluation


class Evaluations:
    """The evaluations of a run on its validation part: one at a step, whatever attempt of the run made it.

    Attributes:
        tasks: {task: {metric: value}} of the last one.
    """

    def __init__(
        self,
        built: Built,
        reader: Reader | None,
        config: Config,
        device: torch.device,
        report: Report,
        pulse: Pulse,
        stops: Callable[[], bool],
    ) -> None:
        """All ranks together.

        Args:
            reader: of the validation part; None where the run has none, and evaluates nothing.
            stops: whether this rank has been asked to stop.
        """
        self._built, self._reader, self._config, self._device, self._report = built, reader, config, device, report
        self._pulse, self._any_rank, self._stops = pulse, AnyRank(Agreement()), stops
        former = Agreement().from_first(report.last_evaluation(list(config.tasks)))
        self._step, self.tasks = former or (0, {})
        self._record: EvalRecord | None = None

    def __call__(self, at: Position) -> bool:
        """Evaluates and reports, unless that was done at this step; the model is not attached to a train pipeline.

        Returns whether it came to its end: not where some rank was asked to stop, the same on all ranks.

        Raises:
            UserError: a loss is NaN or infinite.
        """
        if self._reader is None or at.step == self._step:
            return True
        arguments = self._built, self._reader, self._config, self._device, at.step, at.trained_epoch, self._pulse
        record = evaluate(*arguments, lambda: self._any_rank(self._stops()))
        if record is None:
            return False
        refuse_diverged_evaluation(record)
        self._report.write(record)
        self._step, self.tasks, self._record = record.step, record.tasks, record
        return True

    def finish(self) -> None:
        """The settings of the run beside the last evaluation, if this attempt made it."""
        if self._record is not None:
            self._report.finish(self._config, self._record)


def evaluate(
    built: Built,
    reader: Reader,
    config: Config,
    device: torch.device,
    step: int,
    epoch: int,
    pulse: Pulse,
    stops: Callable[[], bool] = lambda: False,
) -> EvalRecord | None:
    """The record of one pass over `reader`, the same on every rank; None if it was stopped on the way.

    The model is back in training mode afterwards.

    Args:
        built: its model is not attached to a train pipeline, which would feed it the wrong batches.
        step, epoch: how far the model is trained, for the record.
        stops: asked after each batch; the same on every rank.
    """
    model, stopped = built.model, False
    evaluation = Evaluation(config.tasks, built.objective.criterion.binary, device)
    model.eval()
    batches = reader.batches(0)
    with torch.no_grad():
        for batch in batches:
            batch = batch.to(device)
            _, outputs = model(batch)
            evaluation.add(outputs, batch.groups)
            pulse()
            if stopped := stops():
                break
    batches.close()
    model.train()
    if stopped:
        return None
    with pulse.during():
        skipped = _skipped_rows(reader, config.data, device)
        return evaluation.close(step, epoch, skipped, dropped_shares(reader, device))


def _skipped_rows(reader: Reader, data: DataConfig, device: torch.device) -> int | None:
    """Rows that could not be read, over all ranks; None where that stops a run.

    Raises:
        DataError: on all ranks, if they are more than data.max_quarantined_fraction.
    """
    if data.on_error == "fail":
        return None
    rows = int(sum_over_ranks(torch.tensor(reader.skipped_rows, device=device)))
    limit, there = data.max_quarantined_fraction, reader.manifest.rows
    if rows > limit * there:
        raise DataError(
            f"{rows:,} of {there:,} rows to evaluate on cannot be read, more than data.max_quarantined_fraction="
            f"{limit:g}\nRestore the files that the ranks' logs name, or raise the limit."
        )
    return rows
