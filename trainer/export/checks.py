"""What a machine, or the tables of a run, cannot be exported as: said before anything is read or written."""

import torch

from configs.errors import UserError
from configs.schema import Config
from configs.score_formula import FormulaError, check_formula
from trainer.export.onnx import check_onnx
from trainer.export.weights import table_groups
from trainer.serving.program import has_bf16

_EXAMPLE_SCORE = "rank: click ** 0.6 * like ** 0.2 + 0.1 * watch_time"


def check_export(config: Config) -> None:
    """Raises UserError for what this machine, or these tables, cannot be exported as."""
    wanted, device = config.export, config.export.device
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"export.device is cuda, and torch {torch.__version__} finds no GPU\nExport where one is.")
    if device == "cuda" and wanted.tables in ("int8", "int4"):
        raise UserError(f"export.tables is {wanted.tables}, which is for a CPU\nTake fp16 on a GPU.")
    if wanted.precision == "bf16" and not has_bf16(device):
        raise UserError(
            "export.precision is bf16, which this processor has not: the bundle could not be checked\n"
            "Export on a processor with AVX512_BF16 or AMX, or take fp32."
        )
    if wanted.format == "onnx":
        check_onnx(wanted, {group.row_format for group in table_groups(config, wanted.tables)})
    for name, formula in wanted.scores.items():
        _check_score(name, formula, config)
    for name, table in config.tables.items():
        if wanted.tables == "int4" and table.embedding_dim % 2:
            raise UserError(f"export.tables is int4, but tables.{name}.embedding_dim is odd\nTake int8.")


def _check_score(name: str, formula: str, config: Config) -> None:
    if name in config.tasks or not name.isidentifier():
        why = "is a task already" if name in config.tasks else "is not a name"
        raise UserError(f"export.scores: {name!r} {why}\nGive the score another name.")
    try:
        check_formula(formula, config.tasks)
    except FormulaError as error:
        raise UserError(f"export.scores.{name}: {formula!r} {error}\nAn example: {_EXAMPLE_SCORE}") from None
