"""`GET /openapi.json`: the HTTP routes in OpenAPI 3.1, with the columns of the model that is served."""

from typing import Any

from trainer.serving.server.models import Models, Version
from trainer.serving.server.tensors import DTYPES

_REFUSALS = {
    "400": "Not a request of the protocol, or a tensor that does not fit the model",
    "404": "No such model or version",
    "408": "The body did not come in time",
    "413": "The body is too long",
    "415": "A Content-Encoding that is not read",
    "422": "Rows that cannot be scored",
    "503": "Too many rows are waiting; see Retry-After",
    "504": "The request's time was up",
}


def document(models: Models) -> dict[str, Any]:
    """The document."""
    first = models.first
    paths: dict[str, Any] = {
        "/predict": {"post": _post("JSON rows of the first model", "Rows", "Predictions", ["422"])},
        "/health": {"get": _get("Whether it answers", {"type": "object"})},
        "/signature": {"get": _get("The bundle's signature.json", {"type": "object"})},
        "/metrics": {"get": _get("Counters for Prometheus", {"type": "string"}, "text/plain")},
        "/openapi.json": {"get": _get("This document", {"type": "object"})},
        "/": {"get": _get("A page to try the model", {"type": "string"}, "text/html")},
        "/v2": {"get": _get("Server metadata", {"type": "object"})},
        "/v2/health/live": {"get": _get("Liveness", {"type": "object"})},
        "/v2/health/ready": {"get": _get("Readiness", {"type": "object"})},
        "/v2/models": {"get": _get("Names of the models", {"type": "object"})},
        "/v2/models/stats": {"get": _get("Statistics of all models", {"type": "object"})},
        "/v2/repository/index": {"post": _post("Models and their states", None, None, ["400"])},
    }
    model = _parameter("model", models.names)
    versions = _parameter("version", list(dict.fromkeys(version.version for version in models.loaded)))
    for version in ("", "/versions/{version}"):
        parameters = [model, versions] if version else [model]
        base = "/v2/models/{model}" + version
        paths[base] = {"get": _get("Model metadata", {"type": "object"}), "parameters": parameters}
        for part, text in (("ready", "Readiness"), ("config", "Configuration"), ("stats", "Statistics")):
            paths[f"{base}/{part}"] = {
                "get": _get(f"{text} of the model", {"type": "object"}),
                "parameters": parameters,
            }
        paths[f"{base}/infer"] = {
            "post": _post("Inference", "InferenceRequest", "InferenceResponse", ["400"]),
            "parameters": parameters,
        }
        paths["/models/{model}" + version + "/predict"] = {
            "post": _post("JSON rows", "Rows", "Predictions", ["422"]),
            "parameters": parameters,
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"multigate: {first.name}", "version": first.version},
        "paths": paths,
        "components": {"schemas": _schemas(first)},
    }


def _parameter(name: str, values: list[str]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "enum": values}}


def _get(text: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    responses = {"200": {"description": text, "content": {kind: {"schema": schema}}}}
    return {"summary": text, "responses": responses | _refusals(["404", "503"])}


def _post(text: str, takes: str | None, gives: str | None, refusals: list[str]) -> dict[str, Any]:
    found = {"$ref": f"#/components/schemas/{gives}"} if gives else {}
    made: dict[str, Any] = {
        "summary": text,
        "responses": {"200": {"description": "Done", "content": {"application/json": {"schema": found}}}}
        | _refusals(["400", "404", "408", "413", "415", "503", "504", *refusals]),
    }
    wanted = {"$ref": f"#/components/schemas/{takes}"} if takes else {"type": "object"}
    made["requestBody"] = {"required": takes is not None, "content": {"application/json": {"schema": wanted}}}
    return made


def _refusals(codes: list[str]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": _REFUSALS[code], "content": content} for code in dict.fromkeys(codes)}


def _schemas(version: Version) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}
    row = {"type": "object", "properties": _row(version), "additionalProperties": False}
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"enum": [*DTYPES, "BYTES"]},
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
    }
    outputs = {"type": "array", "items": {"type": "object", "required": ["name"]}}
    request = {"id": {"type": "string"}, "parameters": {"type": "object"}, "outputs": outputs}
    response = {"model_name": {"type": "string"}, "model_version": {"type": "string"}, "id": {"type": "string"}}
    scores = {"type": "object", "properties": {task: {"type": "number"} for task in version.bundle.tasks}}
    return {
        "Row": row | {"description": "Every column of training; null where a value is missing"},
        "Rows": {
            "type": "object",
            "required": ["rows"],
            "properties": {"rows": rows, "shared": row | {"description": "Columns that all rows have in common"}},
        },
        "Predictions": {"type": "object", "properties": {"predictions": {"type": "array", "items": scores}}},
        "InferenceRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": request | {"inputs": {"type": "array", "minItems": 1, "items": tensor}},
        },
        "InferenceResponse": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": response | {"outputs": {"type": "array", "items": tensor}},
        },
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


def _row(version: Version) -> dict[str, Any]:
    return {
        one.name: _value(one.datatype, is_list=one.width != 1)
        for one in version.inputs.values()
        if one.role == "values"
    }


def _value(datatype: str, is_list: bool) -> dict[str, Any]:
    kind = {"BYTES": "string", "BOOL": "boolean"}.get(datatype, "number" if datatype.startswith("FP") else "integer")
    if is_list:
        return {"type": ["array", "null"], "items": {"type": kind}}
    return {"type": [kind, "null"]}
