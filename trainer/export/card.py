"""README.md of a bundle: what it is and how to call it. For programs, signature.json says the same."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from configs.schema import SparseFeature
from trainer.serving.signature import Signature

_BYTES = {"fp32": "4 bytes a number", "fp16": "2 bytes a number", "int8": "1 byte a number", "int4": "4 bits a number"}


def card(
    signature: Signature,
    example: pa.Table | None,
    answer: Sequence[float] | None = None,
    onnx: Sequence[str] | None = None,
) -> str:
    """The card.

    Args:
        example: raw rows, of which the first is shown in the calls.
        answer: the bundle's predictions for that row.
        onnx: names of the inputs of the portable form, where there is one.
    """
    name = signature.source.run.rstrip("/").rpartition("/")[2]
    row = _example_row(example)
    answered = dict(zip((*signature.tasks, *signature.scores), answer, strict=True)) if row and answer else None
    parts = [
        f"# {name}, step {signature.source.step:,}",
        "A bundle of multigate: raw columns in, one prediction per task out. Nothing in it is pickled; the compiled "
        "program is machine code, so load it only from where you would install software from.",
        "## Outputs\n" + _table(("task", "AUC of the run", "AUC here, trainer", "AUC here, bundle"), _tasks(signature)),
        *(["## Calibration\n" + _calibration(signature)] if signature.calibration else []),
        *(["## Scores\n" + _scores(signature)] if signature.scores else []),
        "## Inputs\nEvery column must be there; null is a missing value. IDs are hashed or looked up inside.\n\n"
        + _table(("column", "type in training", "feature", "becomes"), _inputs(signature)),
        "## Made from\n" + _table(("", ""), _origin(signature)),
        "## Checked\n" + _checks(signature),
        *([] if onnx is None else ["## model.onnx\n" + _portable(signature, onnx)]),
        "## How to call it\n" + _calls(name, row or dict.fromkeys(signature.columns), answered),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _tasks(signature: Signature) -> list[list[str]]:
    rows = []
    for task in signature.tasks:
        found = signature.parity.tasks.get(task) if signature.parity else None
        ours = [_number(found.trainer_auc), _number(found.bundle_auc)] if found else ["", ""]
        rows.append([f"`{task}`", _number(signature.source.metrics.get(f"auc/{task}")), *ours])
    return rows


def _scores(signature: Signature) -> str:
    rows = [[f"`{name}`", f"`{formula}`"] for name, formula in signature.scores.items()]
    return _table(("score", "formula of the tasks"), rows)


def _calibration(signature: Signature) -> str:
    rows = []
    for task, found in signature.calibration.items():
        pairs = zip(found.before.model_dump().values(), found.after.model_dump().values(), strict=True)
        cells = [f"{before:.5f} -> {after:.5f}" for before, after in pairs]
        rows.append([f"`{task}`", found.kind, f"{found.rows:,}", *cells])
    head = ("task", "kind", "rows", "log loss", "sum of predictions / of labels", "expected calibration error")
    return (
        "Predictions, and scores of them, are calibrated on these rows of the validation part. What stands after "
        "each arrow is of rows that a fit on the others has not seen; the error is over 10 bins of equal weight.\n\n"
        + _table(head, rows)
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5f}"


def _inputs(signature: Signature) -> list[list[str]]:
    rows = []
    for name, feature in signature.features.items():
        column = feature.column or name
        kind = signature.columns.get(column, "not known")
        if isinstance(feature, SparseFeature):
            table = signature.tables[feature.table]
            becomes = f"{feature.transform}: a row of `{feature.table}` ({table.num_embeddings:,} x "
            becomes += f"{table.embedding_dim}), {table.pooling} of a list"
        else:
            numbers = "a number" if feature.width == 1 else f"{feature.width} numbers"
            becomes = f"{numbers}, {feature.transform}; null is {feature.default:g}"
        rows.append([f"`{column}`", kind, f"`{name}`", becomes])
        if isinstance(feature, SparseFeature) and feature.weights is not None:
            rows.append([f"`{feature.weights}`", signature.columns.get(feature.weights, ""), f"`{name}`", "weights"])
    return rows


def _origin(signature: Signature) -> list[list[str]]:
    source, formats = signature.source, sorted({group.row_format for group in signature.groups})
    rows = [
        ["run", f"`{source.run}`, epoch {source.epoch}, step {source.step:,}"],
        ["data", f"`{source.data}`" if source.data else "not known"],
        ["identity", f"`{signature.identity}`: bundles of the same can replace each other"],
        ["top", f"{signature.precision}, on {signature.device}{_of_few_rows(signature)}"],
        ["tables", ", ".join(f"{kind}: {_BYTES[kind]}" for kind in formats) or "none"],
        ["compiled for", ", ".join(c.instructions for c in signature.compiled) or _not_compiled(signature.device)],
        ["versions", ", ".join(f"{name} {version}" for name, version in signature.versions.items())],
    ]
    values = [f"{tag} {value:.5g}" for tag, value in source.metrics.items()]
    return rows + ([["metrics at that step", ", ".join(values)]] if values else [])


def _of_few_rows(signature: Signature) -> str:
    small = signature.small
    return f"; calls of up to {small.rows} rows compute in fp32, which is faster there" if small else ""


def _not_compiled(device: str) -> str:
    return "nothing: no C++ compiler" if device == "cpu" else "nothing: a GPU takes the graph"


def _checks(signature: Signature) -> str:
    parity = signature.parity
    if parity is None:
        return "Not yet."
    data = f" and {parity.data_rows:,} rows of `{parity.data_file}`" if parity.data_rows else ""
    times = "; ".join(
        f"{name}: " + ", ".join(f"{rows} rows {value:.3g} ms" for rows, value in by_rows.items())
        for name, by_rows in signature.milliseconds.items()
    )
    few = signature.small.parity if signature.small else None
    of_few = f" {few.largest_difference:.2e} in the program for few rows (limit {few.tolerance:.0e})." if few else ""
    return (
        f"Trainer and bundle scored {parity.generated_rows:,} generated rows{data}: the largest difference is "
        f"{parity.largest_difference:.2e} (limit {parity.tolerance:.0e}; of AUC {parity.max_auc_change:g}).{of_few} "
        f"One call where it was exported, one thread: {times}."
    )


def _portable(signature: Signature, onnx: Sequence[str]) -> str:
    groups = [
        [f"`ids.{g.name}`, feature {place}", f"`{name}`", f"{first:,} + row", f"{rows:,}"]
        for g in signature.groups
        for place, (name, first, rows) in enumerate(zip(g.features, g.first_rows, g.rows, strict=True))
    ]
    return (
        f"Takes {', '.join(f'`{name}`' for name in onnx)} and gives `predictions` [rows, tasks]. It takes row numbers, "
        "not raw columns: the transforms of IDs stay outside, and so does the order of the dense features, "
        "which is that of the inputs above. `ids` [N] come row by row and in a row feature by feature, `lengths` "
        "[rows, features] says how many each bag has.\n\n"
        + _table(("input", "feature", "value", "rows of its table"), groups)
    )


def _example_row(example: pa.Table | None) -> dict[str, Any] | None:
    """None where there is no row, or where JSON cannot hold it."""
    if example is None or not example.num_rows:
        return None
    first = example.slice(0, 1).to_pylist()[0]
    return None if _as_json(first) is None else first


def _as_json(row: dict[str, Any]) -> str | None:
    try:
        return json.dumps(row, ensure_ascii=False)
    except (TypeError, ValueError):  # bytes, decimals, dates
        return None


def _calls(name: str, row: dict[str, Any], answer: Mapping[str, float] | None) -> str:
    body = json.dumps({"rows": [row]}, ensure_ascii=False).replace("'", "'\\''")
    rounded = {task: float(f"{value:.5g}") for task, value in answer.items()} if answer else None
    answered = "" if rounded is None else f"\n# {json.dumps({'predictions': [rounded]})}"
    return f"""```
python -m trainer serve FOLDER --http-port 8080 --name {name}
curl -s localhost:8080/predict -H 'content-type: application/json' -d '{body}'{answered}
```

The server also speaks the Open Inference Protocol (v2), over HTTP and gRPC, so that clients such as tritonclient work:
`GET /v2/models/{name}` says which tensors it takes, `POST /v2/models/{name}/infer` scores them.

Files and whole data sets: `python -m trainer score FOLDER FILES OUT`."""
