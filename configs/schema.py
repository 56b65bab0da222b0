"""The schema of a run: every key of a config file, its type, default and meaning.

Pure data: pydantic models without torch, ray or torchrec, so that a config is checked in well under a second.
Loading, merging and error messages are in `configs.load`; checks across sections in `configs.checks`.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Layers = tuple[PositiveInt, ...]


class Section(BaseModel):
    """Part of a config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic would read `epochs: true` as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"must not be {str(value).lower()}")
        return value


class GenerateConfig(Section):
    """Synthetic data that the `generate` command writes, and `train` too when `data.root` does not exist."""

    kind: str = Field(default="feed", description="A module of trainer/data/generators, as feed or criteo.")
    train_rows: PositiveInt = Field(default=200_000, description="Rows of the training part.")
    validation_rows: NonNegativeInt = Field(default=20_000, description="Rows of the validation part; 0 writes none.")
    rows_per_file: PositiveInt = Field(default=50_000, description="Rows of one Parquet file.")
    rows_per_row_group: PositiveInt = Field(default=16_384, description="Rows of one row group: the unit of reading.")
    seed: NonNegativeInt = Field(default=0, description="Same seed, same files.")
    options: dict[str, Any] = Field(
        default={}, description="Arguments of the generator itself; it lists them when one is unknown."
    )


class DataConfig(Section):
    """Where rows come from and in which order they are trained."""

    root: str = Field(description="Folder of the data set: a local path or an fsspec / pyarrow.fs URL.")
    train: str = Field(default="train", description="Sub-folder of the training part.")
    validation: str = Field(
        default="validation", description="Sub-folder of the part that `train` and `evaluate` measure on."
    )
    global_batch_size: PositiveInt = Field(
        default=4096, description="Rows of one step over all workers; a multiple of `lanes`."
    )
    lanes: PositiveInt = Field(
        default=8,
        description="Parallel cursors through the data, fixed for the run and the most workers it can ever use; "
        "more lanes keep more row groups open.",
    )
    order: Literal["shuffled", "by_partition", "sequential"] = Field(
        default="shuffled",
        description="shuffled: row groups of the whole set are permuted each epoch; by_partition: folders one after "
        "another, permuted inside; sequential: as the files stand, rows too.",
    )
    follow: bool = Field(
        default=False,
        description="Train on new partitions as they become complete, in order, until training.max_steps; needs "
        "order: by_partition.",
    )
    follow_every_s: PositiveFloat = Field(
        default=60, description="follow: seconds between two looks for new partitions, when all known ones are trained."
    )
    follow_patience_s: PositiveFloat | None = Field(
        default=None, description="follow: the run ends when no partition came for so many seconds; none: it waits."
    )
    shuffle_window: NonNegativeInt = Field(
        default=16_384,
        description="Rows of a lane that are permuted together; 0 keeps the rows of a row group in order.",
    )
    weight_column: str | None = Field(default=None, description="Column that multiplies every task's loss of a row.")
    group_column: str | None = Field(
        default=None, description="Column of integers or strings, as the user, inside which evaluation computes GAUC."
    )
    threads: PositiveInt = Field(default=1, description="Threads of a worker that decode row groups.")
    prefetch_mib: PositiveInt = Field(
        default=256, description="Memory of a worker for decoded rows and batches read ahead."
    )
    verify_checksums: bool = Field(default=True, description="Verify Parquet page checksums where they were written.")
    widen_types: bool = Field(
        default=False, description="Let a column be narrower in some files: int32 and int64, float and double."
    )
    read_timeout_s: PositiveFloat = Field(
        default=120,
        description="Seconds after which a read that hangs is tried once more, and for which a storage that does not "
        "answer is asked again; then the workers start again from their checkpoint.",
    )
    on_error: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="A row group that cannot be read: fail stops all ranks with one message; quarantine trains on, its "
        "rows with weight zero.",
    )
    max_quarantined_fraction: Fraction = Field(default=0.01, description="Share of the rows that quarantine may drop.")
    generate: GenerateConfig | None = Field(
        default=None, description="Write synthetic data when `root` does not exist."
    )


class SparseFeature(Section):
    """A column of IDs, single or lists, that is looked up in a table."""

    table: str = Field(description="Name of the table; several features may share one.")
    column: str | None = Field(default=None, description="Parquet column; the feature's name when left out.")
    transform: str = Field(
        default="hash", description="A module of embeddings/transforms: hash, identity, vocabulary, bucketize."
    )
    weights: str | None = Field(default=None, description="List column of the same lengths with a weight for every ID.")
    max_length: PositiveInt | None = Field(default=None, description="Longer lists are cut to their last IDs.")
    out_of_range: Literal["error", "drop"] = Field(default="error", description="identity: an ID outside the table.")
    vocabulary: str | None = Field(
        default=None, description="vocabulary: text file, one ID a line; others share row 0."
    )
    boundaries: tuple[float, ...] = Field(default=(), description="bucketize: increasing upper edges of the buckets.")
    options: dict[str, Any] = Field(default={}, description="Arguments of a transform of your own.")


class DenseFeature(Section):
    """A numeric column, or a list column of fixed width, that enters the model as numbers."""

    column: str | None = Field(default=None, description="Parquet column; the feature's name when left out.")
    transform: Literal["none", "log1p", "standardize"] = Field(
        default="none", description="log1p: sign(x)*log(1+|x|); standardize: (x - mean) / std."
    )
    width: PositiveInt = Field(default=1, description="1 for a scalar column; the length of every list otherwise.")
    default: float = Field(default=0.0, description="Value of a null, before the transform.")
    mean: float = Field(default=0.0, description="standardize: subtracted.")
    std: PositiveFloat = Field(default=1.0, description="standardize: divided by.")


def _feature_kind(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "sparse" if isinstance(value, SparseFeature) else "dense"
    return "sparse" if isinstance(value, dict) and "table" in value else "dense"


Feature = Annotated[
    Annotated[SparseFeature, Tag("sparse")] | Annotated[DenseFeature, Tag("dense")], Discriminator(_feature_kind)
]


class TableConfig(Section):
    """An embedding table. The defaults suit IDs of high cardinality."""

    num_embeddings: PositiveInt = Field(description="Rows of the table.")
    embedding_dim: PositiveInt = Field(description="Width of a row; a multiple of 4.", multiple_of=4)
    pooling: Literal["sum", "mean"] = Field(default="sum", description="How the rows of an ID list become one.")
    data_type: Literal["fp32", "fp16"] = Field(default="fp32", description="fp16 halves the memory of the weights.")
    sharding: Literal["auto", "row_wise", "table_wise", "column_wise", "table_row_wise", "data_parallel"] = Field(
        default="auto", description="auto lets the planner choose among row_wise and table_wise, which reshard exactly."
    )
    init_scale: PositiveFloat | None = Field(
        default=None, description="Rows start uniform in [-s, s]; left out, s = 1/sqrt(num_embeddings)."
    )


class ModelConfig(Section):
    """The dense part above the tables. `compare` switches `top` and keeps the rest."""

    top: str = Field(default="mmoe", description="A module of models/tops: single_task, shared_bottom, moe, mmoe, ple.")
    num_experts: PositiveInt = Field(default=4, description="Experts (in ple: shared experts of a level).")
    num_task_experts: PositiveInt = Field(default=1, description="ple: experts of each task in a level.")
    num_levels: PositiveInt = Field(default=2, description="ple: stacked extraction levels.")
    expert_layers: Layers = Field(
        default=(64, 32, 16), description="Widths of every expert, output included.", min_length=1
    )
    gate_layers: Layers = Field(
        default=(), description="Hidden widths of every gate before its softmax; none is linear."
    )
    tower_layers: Layers = Field(default=(32, 16), description="Hidden widths of every task's tower before its logit.")
    bottom_layers: Layers | None = Field(
        default=None, description="shared_bottom, single_task: widths; expert_layers if left out."
    )
    activation: Literal["relu", "gelu", "silu", "leaky_relu", "tanh"] = Field(
        default="relu", description="Between layers."
    )
    normalization: Literal["none", "layer"] = Field(default="none", description="layer: LayerNorm of the top's input.")
    dropout: Fraction = Field(default=0.0, description="Dropout after every hidden layer of experts and towers.")
    gate_dropout: Fraction = Field(
        default=0.0, description="Share of experts hidden from a gate in training; the rest is rescaled."
    )
    gate_noise: NonNegativeFloat = Field(
        default=0.0, description="Standard deviation of noise on gate logits in training."
    )
    load_balance: NonNegativeFloat = Field(default=0.0, description="Weight of the penalty on unequal expert load.")
    residual: bool = Field(default=False, description="Experts add a projection of their input to their output.")
    options: dict[str, Any] = Field(default={}, description="Arguments of a top of your own.")


class TaskConfig(Section):
    """One target: its label, loss and tower."""

    label: str | None = Field(
        default=None, description="Label column; the task's name when left out. Null masks the row."
    )
    loss: str = Field(default="bce", description="A module of models/losses: bce, mse, huber, focal.")
    output: Literal["auto", "sigmoid", "identity"] = Field(
        default="auto", description="From logit to prediction; auto: sigmoid for bce and focal, identity otherwise."
    )
    weight: NonNegativeFloat = Field(default=1.0, description="Factor of this task's loss; 0 only watches the task.")
    positive_weight: PositiveFloat = Field(default=1.0, description="Factor of rows whose label is 1.")
    weight_column: str | None = Field(default=None, description="Column that multiplies this task's loss of a row.")
    reweight: dict[str, dict[str, Any]] = Field(
        default={},
        description="Rules that weigh rows in training, modules of trainer/data/reweighting with their settings: "
        "by_label (positives by another label's value), time_decay (old rows less). Factors multiply.",
    )
    tower_layers: Layers | None = Field(default=None, description="In place of model.tower_layers.")
    tower_features: tuple[str, ...] = Field(
        default=(),
        description="Features that also enter a shallow tower of this task's own, whose logit is added: the position.",
    )
    options: dict[str, Any] = Field(
        default={}, description="Arguments of the loss: huber has delta, focal gamma and alpha."
    )
    parent: str | None = Field(
        default=None, description="Task whose event must come first: the click of a purchase. Both labels on all rows."
    )
    relation: Literal["esmm", "aitm"] = Field(
        default="esmm",
        description="To the parent. esmm: the tower predicts this event given the parent's, and the prediction is the "
        "product with the parent's; aitm: the parent's tower passes on what it knows, and order_penalty applies.",
    )
    order_penalty: NonNegativeFloat = Field(
        default=0.6, description="aitm: price of predicting this event more probable than its parent; 0 allows it."
    )


class DenseOptimizer(Section):
    """Optimizer of the top, and of tables that are data-parallel."""

    kind: Literal["adam", "adamw", "sgd", "adagrad"] = Field(
        default="adam", description="torch.optim's, fused where it can be."
    )
    learning_rate: PositiveFloat = Field(default=1e-3, description="After warm-up.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="As torch.optim defines it for this kind.")
    eps: PositiveFloat = Field(default=1e-8, description="Added to the denominator.")


class SparseOptimizer(Section):
    """Optimizer of the tables, fused into their backward pass."""

    kind: Literal["rowwise_adagrad", "adagrad", "sgd", "adam"] = Field(
        default="rowwise_adagrad", description="rowwise_adagrad keeps one number a row; adam needs CUDA."
    )
    learning_rate: PositiveFloat = Field(default=0.05, description="Constant but for warm-up.")
    weight_decay: NonNegativeFloat = Field(default=0.0, description="L2 on the rows that a batch touches.")
    eps: PositiveFloat = Field(default=1e-8, description="Added to the denominator.")


class TrainingConfig(Section):
    """How long, how fast, how exact, and what to log."""

    run_dir: str = Field(description="Everything that the run writes.")
    epochs: PositiveInt = Field(default=1, description="Passes over the training part.")
    max_steps: PositiveInt | None = Field(default=None, description="Stop after so many steps, whatever `epochs` says.")
    seed: NonNegativeInt = Field(default=0, description="Of initial weights, sample order and dropout.")
    dense_optimizer: DenseOptimizer = DenseOptimizer()
    sparse_optimizer: SparseOptimizer = SparseOptimizer()
    warmup_steps: NonNegativeInt = Field(
        default=0, description="Steps of linear growth of both learning rates from zero."
    )
    decay: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Learning rates after warm-up, to the last step."
    )
    clip_gradient_norm: PositiveFloat | None = Field(default=None, description="Largest norm of the top's gradient.")
    task_balance: str = Field(
        default="fixed", description="A module of models/balance: fixed, uncertainty, dwa, gradnorm, pcgrad, cagrad."
    )
    task_balance_options: dict[str, Any] = Field(
        default={}, description="Arguments of the balance; it lists them when one is unknown."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16: autocast of the top; tables keep their type."
    )
    compile: bool = Field(default=False, description="torch.compile of the top; costs a minute at start.")
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


class CheckpointConfig(Section):
    """When the state of a run is saved."""

    every_steps: NonNegativeInt = Field(
        default=1000, description="Steps between checkpoints; 0: only at the end of an epoch."
    )
    keep: PositiveInt = Field(default=3, description="Complete checkpoints kept; older ones are deleted.")
    asynchronous: bool = Field(
        default=True,
        description="Write while training goes on, from a copy in host memory of what each worker holds; at most one "
        "is in flight.",
    )


class LaunchConfig(Section):
    """Workers, and the machines that carry them."""

    workers: PositiveInt = Field(default=1, description="DDP workers; at most data.lanes.")
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
    max_failures: int = Field(default=8, ge=-1, description="Failures that the run survives; -1: any number.")
    timeout_s: PositiveFloat = Field(
        default=600, description="Seconds after which a stuck collective fails the worker group."
    )


class Config(Section):
    """A run."""

    data: DataConfig
    features: dict[str, Feature] = Field(min_length=1)
    tables: dict[str, TableConfig] = {}
    model: ModelConfig = ModelConfig()
    tasks: dict[str, TaskConfig] = Field(min_length=1)
    training: TrainingConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    launch: LaunchConfig = LaunchConfig()

    @property
    def sparse_features(self) -> dict[str, SparseFeature]:
        return {name: f for name, f in self.features.items() if isinstance(f, SparseFeature)}

    @property
    def dense_features(self) -> dict[str, DenseFeature]:
        return {name: f for name, f in self.features.items() if isinstance(f, DenseFeature)}

    @property
    def input_columns(self) -> dict[str, tuple[int, int]]:
        """Feature -> the columns [start, end) of the top's input that it fills: sparse features, then dense ones."""
        widths = {name: self.tables[feature.table].embedding_dim for name, feature in self.sparse_features.items()}
        widths |= {name: feature.width for name, feature in self.dense_features.items()}
        ends = list(accumulate(widths.values()))
        return {name: (end - width, end) for (name, width), end in zip(widths.items(), ends, strict=True)}

    @property
    def input_width(self) -> int:
        """Width of what enters the top: the tables of all sparse features, and all dense features."""
        return max(end for _, end in self.input_columns.values())
