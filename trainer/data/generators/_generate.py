"""Writes the synthetic data set of a `GenerateConfig`, for the `generate` command and for configs that bring their own.

What the rows mean is in the generators (one module a kind), how files are written in `trainer.data.dataset.write`.
"""

from typing import cast

from configs.choice_settings import settings_of
from configs.choices import load
from configs.schema import GenerateConfig
from trainer.data.dataset.write import whole_or_absent, write_parquet
from trainer.data.generators import GeneratorModule


def generate(config: GenerateConfig, root: str, train_part: str = "train", validation_part: str = "validation") -> None:
    """Write `root`/`train_part` and `root`/`validation_part`, or nothing at all if it is interrupted.

    The same config gives the same rows. One file's rows are in memory at a time.

    Raises:
        UserError: `root` exists already, or the config names an unknown kind or option.
    """
    module = load("trainer.data.generators", config.kind)
    settings = settings_of(module, config.options, "data.generate.options")
    files_of = cast(GeneratorModule, module).build(settings)
    parts = {train_part: (0, config.train_rows), validation_part: (1, config.validation_rows)}
    with whole_or_absent(root) as staging:
        for part, (number, rows) in parts.items():
            for name, table in files_of(config.seed, number, rows, config.rows_per_file):
                write_parquet(table, staging / part / name, config.rows_per_row_group)
