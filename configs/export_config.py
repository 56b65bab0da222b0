"""The section `export`: what a bundle is made of. Training does not depend on it; options of `export` come first."""

from typing import Literal

from pydantic import Field

from configs.section import Section

RowFormat = Literal["fp32", "fp16", "int8", "int4"]
CalibrationKind = Literal["platt", "isotonic"]


class ExportConfig(Section):
    """How `export RUN` stores and computes what the run has learned. Read from the run's config."""

    format: Literal["program", "onnx"] = Field(
        default="program",
        description="program: what `serve` and `score` load, raw columns in; onnx: also model.onnx for other servers, "
        "which takes row numbers instead of raw columns. It needs the extra `onnx`.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="Where the bundle computes. cuda: exported and served on a machine with a GPU only."
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Of the top. bf16 halves the time of wide tops where the processor has BF16, and changes "
        "predictions in the third digit; elsewhere such a bundle is refused.",
    )
    tables: RowFormat | None = Field(
        default=None,
        description="How rows of tables are stored; none: as trained. int8 takes a quarter of fp32's memory, int4 an "
        "eighth; the bundle's card says what that changed.",
    )
    scores: dict[str, str] = Field(
        default={},
        description="Further outputs, each a formula of tasks' predictions with + - * / ** and numbers: "
        "{rank: click ** 0.6 * like ** 0.2}. Computed in the program, returned beside the tasks.",
    )
    calibration: dict[str, CalibrationKind] = Field(
        default={},
        description="Task -> how its probabilities are calibrated, on the labels of parity_rows of the validation "
        "part: {click: isotonic}. platt: sigmoid(a * logit + b), for few rows; isotonic: any rising line. Scores take "
        "calibrated predictions.",
    )
    max_auc_change: float = Field(
        default=1e-4,
        ge=0,
        description="Of a task between trainer and bundle on the rows that both score; beyond, nothing is exported. "
        "Raise it for int4, or where few of those rows have a positive label.",
    )
    parity_rows: int = Field(
        default=16384,
        ge=0,
        description="Rows of the data that trainer and bundle both score; more make a change of AUC plainer, and the "
        "export slower and larger in memory.",
    )
