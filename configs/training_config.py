"""The sections `training`, `checkpoint` and `launch`: how a model is trained, kept and spread over machines."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import ConfigDict, Field

from configs.section import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seconds, Section, Seed


class DenseOptimizer(Section):
    """Optimizer of the top, and of tables that are data-parallel."""

    kind: Literal["adam", "adamw", "sgd", "adagrad"] = Field(
        default="adam", description="torch.optim's, fused where it can be."
    )
    learning_rate: PositiveFloat = Field(default=1e-3, description="After warm-up; training.decay lowers it.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="As torch.optim defines it for this kind.")
    eps: PositiveFloat = Field(default=1e-8, description="Added to the denominator.")


class SparseOptimizer(Section):
    """Optimizer of the tables, fused into their backward pass."""

    kind: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] = Field(
        default="rowwise_adagrad", description="rowwise_adagrad keeps one number a row; adam needs CUDA."
    )
    learning_rate: PositiveFloat = Field(
        default=0.05, description="After warm-up; training.decay lowers it as it does the dense one."
    )
    weight_decay: NonNegativeFloat = Field(default=0.0, description="L2 on the rows that a batch touches.")
    eps: PositiveFloat = Field(default=1e-8, description="Added to the denominator.")


class WarmStart(Section):
    """What a new run takes over from another run, before its first step."""

    model_config = ConfigDict(serialize_by_alias=True)  # `from` is a word of Python's

    run: str = Field(
        alias="from",
        description="Run directory. What fits is loaded with its optimizer state; features, tasks, experts and rows of "
        "tables that are new begin as in any new run. A run that resumes from its own checkpoint ignores the section.",
    )
    checkpoint: str = Field(
        default="latest",
        description="latest or best (by that run's evaluations) of its whole checkpoints, or a step that it has saved.",
    )
    include: tuple[str, ...] = Field(
        default=("*",),
        min_length=1,
        description="Names to load, with * for any text: tables.NAME, and weights of the top by the layers' names that "
        "the run prints at its start, as top.mixture.first.weight or top.towers.*. Tables alone: [tables.*].",
    )
    exclude: tuple[str, ...] = Field(
        default=(), description="Names not to load, of those that `include` names; such a table or weight begins fresh."
    )

    def takes(self, name: str) -> bool:
        """Whether a table or weight of this name is to be loaded."""
        chosen, refused = (any(fnmatchcase(name, one) for one in names) for names in (self.include, self.exclude))
        return chosen and not refused


class TrainingConfig(Section):
    """How long, how fast, how exact, and what to log."""

    run_dir: str = Field(description="Everything that the run writes.")
    epochs: PositiveInt = Field(default=1, description="Passes over the training part.")
    max_steps: PositiveInt | None = Field(default=None, description="Stop after so many steps, whatever `epochs` says.")
    seed: Seed = Field(default=0, description="Of initial weights, sample order and dropout.")
    warm_start: WarmStart | None = Field(
        default=None, description="Begin with tables and weights of another run, in place of random ones."
    )
    dense_optimizer: DenseOptimizer = DenseOptimizer()
    sparse_optimizer: SparseOptimizer = SparseOptimizer()
    warmup_steps: NonNegativeInt = Field(
        default=0,
        description="Steps of linear growth of both learning rates from zero; fewer than the run has.",
    )
    decay: Literal["constant", "linear", "cosine"] = Field(
        default="constant",
        description="Both learning rates after warm-up: constant, or down to nearly zero at the last step.",
    )
    non_finite: Literal["stop", "skip"] = Field(
        default="stop",
        description="A batch whose loss is NaN or infinite. stop: the run ends at its next log line, unsaved, and "
        "names step and files. skip: such a batch trains nothing, and is counted; for a few bad rows in much data. "
        "The workers then agree on every batch, a small exchange between forward and backward.",
    )
    clip_gradient_norm: PositiveFloat | None = Field(default=None, description="Largest norm of the top's gradient.")
    task_balance: str = Field(
        default="fixed", description="A module of models/balance: fixed, uncertainty, dwa, gradnorm, pcgrad, cagrad."
    )
    task_balance_options: dict[str, Any] = Field(
        default={}, description="Arguments of the balance; it lists them when one is unknown."
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="bf16: autocast of the top in training; tables keep their type, and evaluation is in fp32, as "
        "serving is. Up to 4 times the speed where the top is most of the work and the processor has BF16 "
        "(AVX512-BF16, AMX, GPUs). tf32: matrix products of a GPU round their inputs to 10 bits, in evaluations too; "
        "on a CPU it is fp32. Both round, so neither is chosen for you.",
    )
    deterministic: bool = Field(
        default=False,
        description="The same bits in every run of a config on machines of one kind. A GPU takes kernels that add in a "
        "fixed order, which a resumed run needs to end as an undisturbed one, and rounds fp16 tables to the nearest "
        "number, which loses small updates. A resumed run on CPUs always ends so; without it, two runs may differ in "
        "the last bits, as each takes the ways to compute that it finds fastest.",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile of the top; seconds to half a minute at start. Pays on GPUs, where it also launches "
        "the top's kernels together (CUDA graphs), and for small tops on CPUs; not for wide ones in fp32 there.",
    )
    log_every: PositiveInt = Field(default=50, description="Steps between two log lines.")
    evaluate_every: NonNegativeInt = Field(
        default=0, description="Steps between evaluations; 0: at the end of every epoch."
    )
    gradient_cosines_every: NonNegativeInt = Field(
        default=500, description="Steps between samples of how the tasks' gradients agree; 0: never."
    )
    profile_at: PositiveInt | None = Field(
        default=None, description="Step at which ten steps are traced into profile/."
    )


BEST_METRICS = {"auc": True, "gauc": True, "loss": False, "ne": False, "mae": False, "rmse": False}
"""What checkpoint.keep_best may go by -> whether larger is better."""


class CheckpointConfig(Section):
    """When the state of a run is saved."""

    every_steps: NonNegativeInt = Field(
        default=1000, description="Steps between checkpoints; 0: only at the end of an epoch."
    )
    delta_every_s: Seconds | None = Field(
        default=None,
        description="Seconds between links, which save the rows that changed since: what a failure loses. A link of "
        "half a second costs a few percent of the speed, and one byte a row of the tables in memory. With links, whole "
        "tables are copied once a run; later checkpoints are merged from files by a process beside it.",
    )
    delta_every_steps: NonNegativeInt = Field(
        default=0, description="Steps between links, in place of or beside delta_every_s; 0: none."
    )
    keep: PositiveInt = Field(
        default=3, description="Complete checkpoints kept, each with the links behind it; older ones are deleted."
    )
    keep_best: str | None = Field(
        default=None,
        description="A metric, such as auc/click or loss/click: the checkpoint whose evaluation has the best one is "
        "kept too. Every evaluation is saved then.",
    )
    keep_every_steps: NonNegativeInt = Field(
        default=0, description="Checkpoints whose step this divides are kept for ever; 0: none."
    )
    asynchronous: bool = Field(
        default=True,
        description="Write while training continues, from a copy in host memory of what each worker holds; at most one "
        "is in flight.",
    )

    @property
    def has_links(self) -> bool:
        return self.delta_every_s is not None or self.delta_every_steps > 0


class LaunchConfig(Section):
    """Workers, and the machines that carry them."""

    workers: PositiveInt = Field(default=1, description="Processes that train together; at most data.lanes.")
    min_workers: PositiveInt | None = Field(
        default=None, description="Go on with as few as this when nodes are lost; none: all."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda when the cluster has a GPU a worker."
    )
    cpus_per_worker: PositiveInt = Field(
        default=1, description="CPU cores that Ray reserves for a worker, and its threads."
    )
    workers_per_host: PositiveInt | None = Field(
        default=None, description="Workers of one machine, for `plan`; none: all on one."
    )
    memory_gib: PositiveFloat | None = Field(
        default=None, description="Memory of one GPU (or of the host on CPU) that the planner may fill; none: measured."
    )
    address: str | None = Field(
        default=None, description="Ray cluster; none: RAY_ADDRESS, a running one, or a new local one."
    )
    max_failures: int = Field(
        default=8, ge=-1, description="Failures that the run survives without saving anything new; -1: any number."
    )
    hang_timeout_s: Seconds = Field(
        default=300, description="Seconds without a step, on any rank, after which the workers start again."
    )
    timeout_s: Seconds = Field(
        default=600, description="Seconds after which a stuck collective fails the worker group."
    )
