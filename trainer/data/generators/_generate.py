"""Writes the synthetic data set of a `GenerateConfig`, for the `generate` command and for configs that bring their own.

What the rows mean is in the generators (one module a kind), how files are written in `trainer.data.dataset.write`.
"""

from configs.choices import load
from configs.schema import GenerateConfig
from trainer.data.dataset.write import whole_or_absent, write_parquet


def generate(config: GenerateConfig, root: str, train_part: str = "train", validation_part: str = "validation") -> None:
    """Write `root`/`train_part` and `root`/`validation_part`, or nothing at all if it is interrupted.

    The same config gives the same rows. One file's rows are in memory at a time.

    Raises:
        UserError: `root` exists already, or the config names an unknown kind or option.
    """
    generator = load("trainer.data.generators", config.kind)
    options = generator.parse(config.options)
    parts = {train_part: (0, config.train_rows), validation_part: (1, config.validation_rows)}
    with whole_or_absent(root) as staging:
        for part, (number, rows) in parts.items():
            files = generator.files(options, config.seed, number, rows, config.rows_per_file)
            for name, table in files:
                write_parquet(table, staging / part / name, config.rows_per_row_group)
