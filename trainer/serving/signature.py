"""signature.json of a bundle: what goes in, what comes out, which files, made from what, and how it was checked.

    export/
        signature.json          written last
        README.md               the same for people, and how to call it
        weights.safetensors     tables, stacked by width and type, then the top; mapped into memory, never copied
        program.json            the program as a graph in JSON: runs wherever this torch runs
        program.avx512.pt2      the same compiled, for each kind of processor; missing without a C++ compiler
        program.small.*         the same for calls of few rows, where the top of the other is BF16: its top is FP32
        weights.small.safetensors   the top of that one
        program.shared.*        the same for calls whose rows have columns in common
        model.onnx, .data       the portable form, where it was asked for; takes row numbers
        warmup.parquet          rows that are scored when the bundle is loaded
        vocabulary/<feature>.txt

Nothing here is pickled. The compiled program is machine code, though: load bundles from where you would run software.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.errors import UserError
from configs.export_config import CalibrationKind, RowFormat
from configs.inputs import check_regular
from configs.schema import Feature, TableConfig
from trainer.file_record import FileRecord, checksum, record_of
from trainer.serving.shares import Shares

FORMAT = 2
SIGNATURE = "signature.json"
WEIGHTS = "weights.safetensors"
GRAPH = "program.json"
SMALL_GRAPH = "program.small.json"
SHARED_GRAPH = "program.shared.json"
SMALL_WEIGHTS = "weights.small.safetensors"
WARM_UP = "warmup.parquet"
CARD = "README.md"
ONNX = "model.onnx"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(_Part):
    """Tables of equal width and type, stacked into one matrix; the features are in the order of the program's input.

    Feature f looks up rows first_rows[f] .. first_rows[f] + rows[f] - 1 of the matrix.
    """

    name: str
    embedding_dim: int
    row_format: RowFormat
    features: tuple[str, ...]
    first_rows: tuple[int, ...]
    rows: tuple[int, ...]
    mean: tuple[bool, ...]
    weighted: bool


class Weight(_Part):
    """One tensor of weights.safetensors, by its torch dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Compiled(_Part):
    """A compiled program, and where it runs: this torch, operating system, processor family and instructions."""

    file: str
    instructions: str
    torch: str
    system: str
    machine: str
    processor: str


class TaskParity(_Part):
    """AUC of a task over the same rows, by the trainer's modules and by the bundle; None where there is none."""

    rows: Annotated[int, Field(description="with a label")]
    trainer_auc: float | None
    bundle_auc: float | None


class Parity(_Part):
    """Rows that the trainer's modules and the bundle both scored; difference = |a - b| / max(1, |a|), the largest.

    Of calibrated predictions it is divided by what the calibration makes differences grow by.
    """

    generated_rows: int
    data_rows: int
    data_file: str | None
    largest_difference: float
    tolerance: float
    max_auc_change: float
    tasks: dict[str, TaskParity] = {}


class Small(_Part):
    """The program for calls of few rows: the same tables, and a top that computes in FP32.

    However small a product in BF16 is, its weights are laid out anew for it in each call.
    """

    rows: Annotated[int, Field(description="calls of up to so many take it; measured at export")]
    top: Annotated[tuple[Weight, ...], Field(description="in weights.small.safetensors, instead of the other's top")]
    compiled: Annotated[tuple[Compiled, ...], Field(description="the fastest first")]
    parity: Parity | None = None


class Quality(_Part):
    """Of probabilities, over labelled rows."""

    log_loss: float
    ratio: Annotated[float, Field(description="sum of predictions / sum of labels")]
    error: Annotated[float, Field(description="expected calibration error, over 10 bins of equal weight")]


class TaskCalibration(_Part):
    """How predictions of a task are calibrated, and what that does to rows that the fit has not seen."""

    kind: CalibrationKind
    rows: int
    before: Quality
    after: Quality


class Source(_Part):
    """The training run that this bundle was exported from."""

    run: str
    run_digest: Annotated[str, Field(description="of what the run was trained with: one run, one digest")]
    data: Annotated[str | None, Field(description="root of the data that it was trained on")] = None
    step: int
    epoch: int
    row_log_window: Annotated[int | None, Field(description="last one in the weights; None: without a row log")] = None
    metrics: Annotated[dict[str, float], Field(description="of the evaluation at that step, METRIC/TASK")] = {}
    facts: dict[str, object] = {}


class Signature(_Part):
    """All of signature.json. Outputs are predictions [B, T], one column a task, then one a score, in this order."""

    format: int = FORMAT
    tasks: tuple[str, ...]
    scores: Annotated[dict[str, str], Field(description="further outputs after the tasks, by formula of them")] = {}
    calibration: Annotated[dict[str, TaskCalibration], Field(description="task -> of its predictions")] = {}
    features: dict[str, Feature]
    tables: dict[str, TableConfig]
    columns: Annotated[dict[str, str], Field(description="raw column -> its Arrow type in training")] = {}
    arrow_schema: Annotated[str | None, Field(description="the same for programs: serving/columns.py")] = None
    dense_width: int
    groups: tuple[Group, ...]
    weights: tuple[Weight, ...]
    table_digests: Annotated[dict[str, str], Field(description="table -> xxh3-128 of its stored rows")] = {}
    identity: Annotated[str, Field(description="digest of transforms, program and shapes: equal ones can replace")]
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Annotated[Literal["fp32", "bf16"], Field(description="of the top")] = "fp32"
    compiled: Annotated[tuple[Compiled, ...], Field(description="the fastest first")]
    small: Small | None = None
    shared: Annotated[tuple[Compiled, ...], Field(description="as compiled, for calls with columns in common")] = ()
    source: Source
    versions: dict[str, str]
    parity: Parity | None = None
    shares: Annotated[dict[str, Shares], Field(description="feature -> of the rows of the data that were scored")] = {}
    milliseconds: Annotated[dict[str, dict[str, float]], Field(description="program -> rows -> one call")] = {}
    files: dict[str, FileRecord] = {}
    checksum: Annotated[str | None, Field(description="of all other keys; None in bundles of earlier versions")] = None


def write_signature(folder: Path, signature: Signature) -> None:
    """Writes signature.json with a record of every other file."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SIGNATURE):
        with path.open("rb") as file:
            files[path.relative_to(folder).as_posix()] = record_of(file)
    content = json.loads(signature.model_copy(update={"files": files}).model_dump_json())
    content["checksum"] = _checksum(content)
    (folder / SIGNATURE).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _checksum(content: dict[str, Any]) -> str:
    """Of every key of signature.json but the checksum itself, however the file is laid out."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def read_signature(folder: Path) -> Signature:
    """Reads signature.json, compares its checksum, and the sizes of all other files.

    Raises:
        UserError: there is no bundle, or not a whole one, or one of another version, or it may not be read.
    """
    path = folder / SIGNATURE
    try:
        check_regular(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not a bundle: it has no {SIGNATURE}\nMake one: python -m trainer export RUN"
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}\nExport the bundle again.") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, this version reads {FORMAT}\nExport the run again.")
    try:
        signature = Signature.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {error}\nExport the bundle again.") from None
    if signature.checksum not in (None, _checksum(content)):
        raise UserError(
            f"{path} is damaged: its checksum is {_checksum(content)}, it says {signature.checksum}\n"
            "Copy the bundle again, or export it again."
        )
    for name, record in signature.files.items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != record.size:
            was = "missing" if size is None else f"of {size:,} bytes instead of {record.size:,}"
            raise UserError(f"{folder / name} is {was}\nCopy the bundle again, or export it again.")
    return signature


def is_bundle(folder: Path) -> bool:
    """Whether `export` wrote all that is in a folder."""
    try:
        files = read_signature(folder).files
    except UserError:
        return False
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return found <= {SIGNATURE, *files}


def check_checksums(folder: Path, signature: Signature) -> None:
    """Reads every file of a bundle and compares its checksum.

    Raises:
        UserError: one is damaged, or may not be read.
    """
    for name, record in signature.files.items():
        try:
            with (folder / name).open("rb") as file:
                found = record_of(file)
        except OSError as error:
            raise unreadable(folder / name, error) from None
        if found.checksum != record.checksum:
            raise UserError(
                f"{folder / name} is damaged: its checksum is {found.checksum}, {SIGNATURE} says {record.checksum}\n"
                "Copy the bundle again, or export it again."
            )


def unreadable(path: Path, error: OSError) -> UserError:
    """What to raise when a file of a bundle cannot be read."""
    return UserError(f"{path} cannot be read: {error.strerror or error}\nCheck its permissions and its owner.")
