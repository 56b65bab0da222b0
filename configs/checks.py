"""Mistakes that no section of a config shows alone: two keys that contradict each other, a name that leads nowhere.

`check` runs all checks: of choices and their settings (`configs.choice_checks`), of features and tables
(`configs.feature_checks`), of tasks (`configs.task_checks`), and of the run, here. A check takes a `Config` that is
valid section by section. What only the data can show is for its reader.
"""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from configs.choice_checks import choices_exist, settings_are_right
from configs.choices import did_you_mean
from configs.feature_checks import FEATURE_CHECKS
from configs.fused_optimizers import missing
from configs.schema import Config
from configs.task_checks import TASK_CHECKS
from configs.training_config import BEST_METRICS
from configs.yaml_source import Mistake


def check(config: Config, tops: tuple[str, ...] = ()) -> list[Mistake]:
    """All that is wrong across the sections of `config`; tops: those that a comparison puts in place of model.top."""
    found = [mistake for one in (*FEATURE_CHECKS, *TASK_CHECKS, *RUN_CHECKS) for mistake in one(config)]
    return [*found, *settings_are_right(config, tops)]


def lanes_carry_the_batch(config: Config) -> Iterator[Mistake]:
    data, path = config.data, ("data", "global_batch_size")
    if data.global_batch_size % data.lanes:
        lower = data.global_batch_size // data.lanes * data.lanes
        fitting = f"{lower} or {lower + data.lanes}" if lower else str(data.lanes)
        message = f"{data.global_batch_size} rows are no multiple of data.lanes = {data.lanes}; use {fitting}"
        yield Mistake(path, message, also=(("data", "lanes"),))
    if data.generate and data.generate.train_rows < data.global_batch_size:
        rows = data.generate.train_rows
        message = f"a batch of {data.global_batch_size} rows is more than data.generate.train_rows = {rows}"
        yield Mistake(path, message, also=(("data", "generate", "train_rows"),))


def followed_data_is_in_order(config: Config) -> Iterator[Mistake]:
    """A data set that grows is trained once, partition by partition, and has no planned end."""
    data, training, follow = config.data, config.training, ("data", "follow")
    if not data.follow:
        return
    if data.order != "by_partition":
        message = f"is {data.order}, but data.follow trains partitions as they come; use by_partition"
        yield Mistake(("data", "order"), message, also=(follow,))
    if training.epochs > 1:
        message = f"is {training.epochs}, but data.follow goes through the data once; use 1"
        yield Mistake(("training", "epochs"), message, also=(follow,))
    if training.decay != "constant" and training.max_steps is None:
        message = f"is {training.decay}, but the end is not known with data.follow; use constant, or set max_steps"
        yield Mistake(("training", "decay"), message, also=(follow,))


def best_is_measured(config: Config) -> Iterator[Mistake]:
    """Of a metric that has a better and a worse, and a task that there is."""
    best, path = config.checkpoint.keep_best, ("checkpoint", "keep_best")
    if best is None:
        return
    metric, _, task = best.partition("/")
    if metric not in BEST_METRICS:
        yield Mistake(path, f"is {best}; use METRIC/TASK with one of {', '.join(BEST_METRICS)}, such as auc/click")
    elif task not in config.tasks:
        yield Mistake(path, f"is {best}, but {task or 'nothing'} is no task; {did_you_mean(task, list(config.tasks))}")


def workers_fit(config: Config) -> Iterator[Mistake]:
    lanes, launch = config.data.lanes, config.launch
    workers = ("launch", "workers")
    if launch.workers > lanes:
        message = f"{launch.workers} workers are more than data.lanes = {lanes}: each reads a lane; raise data.lanes"
        yield Mistake(workers, message, also=(("data", "lanes"),))
    if launch.min_workers and launch.min_workers > launch.workers:
        message = f"is more than launch.workers = {launch.workers}"
        yield Mistake(("launch", "min_workers"), message, also=(workers,))
    if launch.workers_per_host and launch.workers % launch.workers_per_host:
        message = f"launch.workers = {launch.workers} is no multiple of it: hosts carry equally many"
        yield Mistake(("launch", "workers_per_host"), message, also=(workers,))


def steps_are_reached(config: Config) -> Iterator[Mistake]:
    training, last = config.training, ("training", "max_steps")
    if training.max_steps is None:
        return
    if training.warmup_steps >= training.max_steps:
        message = f"warm-up would not end before training.max_steps = {training.max_steps}"
        yield Mistake(("training", "warmup_steps"), message, also=(last,))
    if training.profile_at and training.profile_at > training.max_steps:
        message = f"is after the last step, training.max_steps = {training.max_steps}"
        yield Mistake(("training", "profile_at"), message, also=(last,))


def optimizer_is_there(config: Config) -> Iterator[Mistake]:
    """What the fused kernels of the tables cannot do."""
    path = ("training", "sparse_optimizer")
    for key, why, remedy in missing(
        config.training.sparse_optimizer, config.launch.device, {table.data_type for table in config.tables.values()}
    ):
        yield Mistake((*path, key), f"{why}; {remedy}", also=((*path, "kind"), ("launch", "device")))


def skipped_batches_train_nothing(config: Config) -> Iterator[Mistake]:
    """The tables' optimizer steps inside the backward pass, on a gradient of zero."""
    path, sparse = ("training", "sparse_optimizer"), config.training.sparse_optimizer
    if config.training.non_finite != "skip" or not config.tables:
        return
    if sparse.kind == "adam":
        message = "moves rows without a gradient too, so training.non_finite = skip cannot leave a batch out; use stop"
        yield Mistake((*path, "kind"), message, also=(("training", "non_finite"),))
    if sparse.weight_decay:
        message = "shrinks the rows of a batch that training.non_finite = skip would leave out; use 0, or stop"
        yield Mistake((*path, "weight_decay"), message, also=(("training", "non_finite"),))


def replicated_tables_are_fp32(config: Config) -> Iterator[Mistake]:
    """The dense optimizer keeps its state in the type of the weights: squares of small gradients are 0 in 16 bits."""
    for name, table in config.tables.items():
        if table.sharding == "data_parallel" and table.data_type != "fp32":
            path = ("tables", name, "data_type")
            message = f"is {table.data_type}, but a data_parallel table trains in 32 bits only; use fp32"
            yield Mistake(path, message, also=(("tables", name, "sharding"),))


def elastic_tables_reshard(config: Config) -> Iterator[Mistake]:
    """Row state of a column-wise table is kept per shard of columns: it belongs to one number of workers."""
    fewest = config.launch.min_workers or config.launch.workers
    for name, table in config.tables.items():
        if table.sharding == "column_wise" and fewest < config.launch.workers:
            message = f"a column_wise table cannot move to launch.min_workers = {fewest} workers; use auto"
            yield Mistake(("tables", name, "sharding"), message, also=(("launch",),))


def folders_are_apart(config: Config) -> Iterator[Mistake]:
    """A run inside its data would be read as data; data inside a run would be deleted with it."""
    run, root = PurePosixPath(config.training.run_dir), PurePosixPath(config.data.root)
    parts = [root / config.data.train, root / config.data.validation]
    if run == root or any(part in (run, *run.parents) for part in parts):
        message = f"lies inside the data, data.root = {root}; use another folder"
        yield Mistake(("training", "run_dir"), message, also=(("data",),))
    elif run in root.parents:
        message = f"lies inside training.run_dir = {run}, which --overwrite deletes; use another folder"
        yield Mistake(("data", "root"), message, also=(("training", "run_dir"),))


RUN_CHECKS: tuple[Callable[[Config], Iterator[Mistake]], ...] = (
    choices_exist,
    lanes_carry_the_batch,
    followed_data_is_in_order,
    best_is_measured,
    workers_fit,
    steps_are_reached,
    optimizer_is_there,
    skipped_batches_train_nothing,
    replicated_tables_are_fp32,
    elastic_tables_reshard,
    folders_are_apart,
)
