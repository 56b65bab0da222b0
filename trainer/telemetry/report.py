"""Where rank 0 puts its records: the driver's screen, its log, TensorBoard and metrics.jsonl.

The other ranks put them nowhere.
"""

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from configs.load import dump_config
from configs.schema import Config
from embeddings.planning.plan import Plan
from embeddings.planning.plan_report import PlanReport
from models.describe import describe
from trainer.run.run_directory import RunDirectory
from trainer.telemetry.console import eval_table, step_line
from trainer.telemetry.metrics_file import Evaluated, MetricsFile
from trainer.telemetry.records import EvalRecord, Record, StepRecord, to_json
from trainer.telemetry.slow_rank import SlowRank

if TYPE_CHECKING:
    from trainer.telemetry.tensorboard import TensorBoard


class Report:
    """Takes every record once. A context manager: leaving it flushes and closes."""

    def __init__(self, run: RunDirectory, rank: int, resume_step: int | None, say: Callable[[str], None]) -> None:
        """resume_step: what earlier attempts wrote beyond it is dropped; None for a new run."""
        self._say = say
        self._rank = rank
        self.tensorboard = _tensorboard(run, resume_step) if rank == 0 else None
        self._metrics = MetricsFile(run.metrics, resume_step) if rank == 0 else None
        self._slow_rank = SlowRank()

    def line(self, text: str) -> None:
        if self._rank == 0:
            print(text)  # noqa: T201 - into the rank's log
            self._say(text)

    def texts(self, config: Config, plan: Plan) -> None:
        """What the run is, on the text tab."""
        if self.tensorboard is not None:
            self.tensorboard.text("config", dump_config(config))
            self.tensorboard.text("model", describe(config))
            self.tensorboard.text("plan", PlanReport(plan).text)

    def write(self, record: Record) -> None:
        if self.tensorboard is None or self._metrics is None:
            return
        self.line(eval_table(record) if isinstance(record, EvalRecord) else step_line(record))
        self.tensorboard.write(record)
        self._metrics.write(to_json(record))
        if isinstance(record, StepRecord) and record.own_seconds:
            self._slow_rank.add(record.own_seconds)

    def slow_rank(self, hosts: Sequence[str]) -> None:
        """Names the rank that the others have waited for, if there is one. hosts: by rank."""
        if line := self._slow_rank.line(hosts):
            self.line(line)

    def last_evaluation(self, tasks: Collection[str]) -> Evaluated | None:
        """The last evaluation that earlier attempts reported, up to where this one begins. On rank 0."""
        return self._metrics.last_evaluation(tasks) if self._metrics is not None else None

    def finish(self, config: Config, record: EvalRecord) -> None:
        """The run's settings beside its last evaluation, on the hparams tab."""
        if self.tensorboard is not None:
            self.tensorboard.hparams(_settings(config), record.scalars())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tensorboard is not None and self._metrics is not None:
            self.tensorboard.close()
            self._metrics.close()


def _tensorboard(run: RunDirectory, resume_step: int | None) -> "TensorBoard":
    from trainer.telemetry.tensorboard import TensorBoard  # takes rank 0 .2 s at the start, and the others nothing

    return TensorBoard(run.tensorboard, resume_step)


def _settings(config: Config) -> dict[str, bool | int | float | str]:
    """What one compares runs by."""
    sections = {"model": config.model.model_dump(), "training": config.training.model_dump(exclude={"run_dir"})}
    flat = {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
    flat |= {"data.global_batch_size": config.data.global_batch_size, "launch.workers": config.launch.workers}
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in flat.items()}
