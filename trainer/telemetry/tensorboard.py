"""The run on TensorBoard: two sibling runs, `train` and `eval`, whose curves of the same name lie in one chart.

    tag                               run         value
    total/loss                        both        sum over tasks of weight * loss
    total/objective                    train       what the optimizer minimizes, balance and penalties included
    loss/TASK                         both        weighted mean of the task's loss
    ne/TASK                           both        normalized entropy (binary tasks); 1: no better than the mean label
    auc/TASK                          both        eval: exact over every row; train: over the last rows of each rank
    gauc/TASK                         eval        mean AUC inside groups, weighted by rows; where a group column is set
    calibration/TASK                  both        sum of predictions / sum of labels
    mae/TASK, rmse/TASK               both        regression tasks
    rows/TASK                         both        rows with a label that counts
    speed/examples_per_second         both        rows over all ranks
    speed/step_ms                     train       mean time of a step
    speed/data_wait_share             train       share of the time spent waiting for batches, worst rank
    speed/slowest_rank                train       own part of a step, without waiting: slowest over median rank
    memory/rss_gib, host_gib, gpu_gib train       of the process, its machine or container, its GPU; worst rank
    learning_rate/GROUP               train       dense and sparse
    gate_entropy/LEVEL/GATE           both        mean over rows, 1: all experts alike, 0: always one
    gate_load/LEVEL/GATE/expert_E     both        mean weight of the expert
    gate_dead_experts/LEVEL           both        experts that get less than 1% of an equal share from every gate
    gates/LEVEL                       both        the load as a picture, a row a gate
    gradient_cosine/TASK-TASK         train       sampled, of the shared weights: 1 agree, 0 unrelated, below: fight
    calibration_error/TASK            eval        mean gap between prediction and label over bins (ECE)
    reliability/TASK                  eval        picture: mean label over mean prediction
    pr/TASK                           eval        precision and recall at 127 thresholds
    data/dropped_share/FEATURE        both        share of its IDs outside the table; with out_of_range: drop
    data/quarantined_rows             both        rows that could not be read; with data.on_error: quarantine
    steps/skipped                     train       steps left out by now; with training.non_finite: skip
    run/goodput                       train       share of the run's time in which new steps were trained; no pauses
    run/faults, run/lost_seconds      train       what broke it off since its first start, and until it trained on
    checkpoint/stall_seconds          train       time a save held training up, and other tags of StepRecord.extra

The text tab has this table, the config, the model and the sharding plan, the hparams tab the run's settings beside
its last evaluation. Rank 0 writes; the values come from `records`.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from types import TracebackType
from typing import Self

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from trainer.telemetry.curves import THRESHOLDS, TaskCurves
from trainer.telemetry.pictures import heatmap, reliability_plot
from trainer.telemetry.records import EvalRecord, Record

QUALITY = ("total", "loss", "ne", "auc", "gauc", "calibration", "calibration_error", "mae", "rmse")
COMPARED = ("auc", "rmse", "gauc", "ne", "calibration")
_LEGEND = dedent((__doc__ or "").split("\n\n")[1])  # the table of tags, for whoever meets one
OVERVIEW = {
    "overview": {
        "loss": ["Multiline", ["total/loss", "loss/.*"]],
        "normalized entropy": ["Multiline", ["ne/.*"]],
        "AUC": ["Multiline", ["^auc/.*"]],
        "AUC inside groups": ["Multiline", ["gauc/.*"]],
        "calibration": ["Multiline", ["calibration/.*"]],
        "examples per second": ["Multiline", ["speed/examples_per_second"]],
        "goodput": ["Multiline", ["run/goodput"]],
        "share of data wait": ["Multiline", ["speed/data_wait_share"]],
        "gate entropy": ["Multiline", ["gate_entropy/.*"]],
        "dead experts": ["Multiline", ["gate_dead_experts/.*"]],
        "cosine between tasks' gradients": ["Multiline", ["gradient_cosine/.*"]],
        "memory in GiB": ["Multiline", ["memory/.*"]],
        "learning rate": ["Multiline", ["learning_rate/.*"]],
        "checkpoint": ["Multiline", ["checkpoint/.*"]],
    }
}


class TensorBoard:
    """Writes `DIRECTORY/train` and `DIRECTORY/eval`. A context manager: leaving it flushes and closes."""

    def __init__(self, directory: str | Path, resume_step: int | None = None) -> None:
        """resume_step: the step of the checkpoint the run resumes from; curves drawn beyond it are dropped."""
        purge = 0 if resume_step is None else resume_step + 1  # an attempt may have died before it saved
        self.train = SummaryWriter(str(Path(directory) / "train"), purge_step=purge, flush_secs=10)
        self.eval = SummaryWriter(str(Path(directory) / "eval"), purge_step=purge, flush_secs=10)
        self._pictures_due = 0
        if resume_step is None:
            self.train.add_custom_scalars(OVERVIEW)
            self.text("tags", _LEGEND)

    def write(self, record: Record) -> None:
        """All scalars of a record at its step; NaN and infinite ones are skipped, the curve has a gap there."""
        evaluation = isinstance(record, EvalRecord)
        writer = self.eval if evaluation else self.train
        for tag, value in record.scalars().items():
            if math.isfinite(value):
                writer.add_scalar(tag, value, record.step)
        if evaluation:
            self._curves(record)
            _heatmaps(writer, record)
            writer.flush()
        elif record.step >= self._pictures_due:
            _heatmaps(writer, record)
            self._pictures_due = record.step + max(record.step // 4, 1)  # ever rarer: TensorBoard keeps ten of a tag

    def text(self, name: str, content: str) -> None:
        """A preformatted text (config, plan) on the text tab."""
        self.train.add_text(name, "\n".join(f"    {line}" for line in content.splitlines()), 0)

    def hparams(self, settings: Mapping[str, bool | int | float | str], results: Mapping[str, float]) -> None:
        """Once, at the end: the run's settings beside its results, on the hparams tab.

        results: scalars of the last evaluation, already written; of these the measures of quality are shown.
        """
        shown = {tag: value for tag, value in results.items() if tag.split("/")[0] in QUALITY}
        # add_hparams would draw each result a second time, at step 0
        for summary in hparams(dict(settings), shown):
            self.eval._get_file_writer().add_summary(summary)

    def _curves(self, record: EvalRecord) -> None:
        for task, curves in record.curves.items():
            picture = reliability_plot(curves.reliability)
            self.eval.add_image(f"reliability/{task}", picture, record.step, dataformats="HWC")
            counts = _confusion(curves)
            self.eval.add_pr_curve_raw(f"pr/{task}", *counts, global_step=record.step, num_thresholds=THRESHOLDS)

    def close(self) -> None:
        self.train.close()
        self.eval.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_hparams(
    directory: Path, settings: Mapping[str, bool | int | float | str], results: Mapping[str, float]
) -> None:
    """A run that is nothing but a row of the hparams tab: settings, and of the results those that one compares."""
    shown = {tag: results[tag] for tag in sorted(results, key=_rank) if _rank(tag) < len(COMPARED)}
    shown = {tag: value for tag, value in shown.items() if math.isfinite(value)}
    with SummaryWriter(str(directory)) as writer:
        for summary in hparams(dict(settings), shown):
            writer._get_file_writer().add_summary(summary)
        for tag, value in shown.items():
            writer.add_scalar(tag, value)


def _rank(tag: str) -> int:
    """Place of a result among those that one compares: TensorBoard shows the first five at first."""
    metric = tag.split("/")[0]
    return COMPARED.index(metric) if metric in COMPARED else len(COMPARED)


def _heatmaps(writer: SummaryWriter, record: Record) -> None:
    for level, use in record.gates.items():
        writer.add_image(f"gates/{level}", heatmap(use), record.step, dataformats="HWC")


def _confusion(curves: TaskCurves) -> tuple[np.ndarray, ...]:
    """True and false positives, true and false negatives, precision, recall: each [THRESHOLDS]."""
    true, false = np.array(curves.true_positives), np.array(curves.false_positives)
    predicted = true + false
    precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
    recall = true / true[0] if true[0] > 0 else np.zeros_like(true)
    return true, false, false[0] - false, true[0] - true, precision, recall
