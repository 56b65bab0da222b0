"""The section `data`: where rows come from, in which order they are trained, and what is made up for a first run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from configs.section import Fraction, NonNegativeInt, PositiveInt, RowCount, Seconds, Section, Seed


class GenerateConfig(Section):
    """Synthetic data that the `generate` command writes, and `train` too when `data.root` does not exist."""

    kind: str = Field(default="feed", description="A module of trainer/data/generators, as feed or criteo.")
    train_rows: RowCount = Field(default=200_000, description="Rows of the training part.")
    validation_rows: NonNegativeInt = Field(default=20_000, description="Rows of the validation part; 0 writes none.")
    rows_per_file: PositiveInt = Field(default=50_000, description="Rows of one Parquet file.")
    rows_per_row_group: PositiveInt = Field(default=16_384, description="Rows of one row group: the unit of reading.")
    seed: Seed = Field(default=0, description="Same seed, same files.")
    options: dict[str, Any] = Field(
        default={}, description="Settings of the generator itself: `config --choices` lists them."
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
    follow_every_s: Seconds = Field(
        default=60, description="follow: seconds between two looks for new partitions, when all known ones are trained."
    )
    follow_patience_s: Seconds | None = Field(
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
    read_timeout_s: Seconds = Field(
        default=120,
        description="Seconds after which a read that hangs is tried once more, and for which a storage that does not "
        "answer is asked again; then the workers start again from their checkpoint.",
    )
    on_error: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="A row group that cannot be read: fail stops all ranks with one message; quarantine skips it, its "
        "rows with weight zero.",
    )
    max_quarantined_fraction: Fraction = Field(default=0.01, description="Share of the rows that quarantine may skip.")
    generate: GenerateConfig | None = Field(
        default=None, description="Write synthetic data when `root` does not exist."
    )
