"""What a model is, in the protocol's words: metadata, configuration, statistics. Dicts, as JSON has them.

gRPC's messages have the same names, so `service` fills them from the same dicts.
"""

from typing import Any

from trainer.serving.server.board import Totals
from trainer.serving.server.models import Version
from trainer.serving.server.tensors import Input

SERVER = {
    "name": "multigate",
    "extensions": ["binary_tensor_data", "model_configuration", "statistics", "model_repository"],
}
PLATFORM = "multigate_bundle"


def metadata(version: Version, versions: list[str]) -> dict[str, Any]:
    """Inputs and outputs of a model."""
    return {
        "name": version.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [
            {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
            for one in version.inputs.values()
            if is_told(one)
        ],
        "outputs": [{"name": task, "datatype": "FP32", "shape": [-1, 1]} for task in version.bundle.tasks],
    }


def is_told(one: Input) -> bool:
    """Whether metadata and configuration list an input: lengths and marks of nulls may stay away; clients send all."""
    return one.role == "values"


def config(version: Version, max_rows: int) -> dict[str, Any]:
    """A model's configuration in Triton's form: rows are its batches."""
    inputs = [
        {
            "name": one.name,
            "data_type": _type(one.datatype),
            "dims": list(one.shape[1:]) or [1],
            "allow_ragged_batch": not one.width,
        }
        for one in version.inputs.values()
        if is_told(one)
    ]
    return {
        "name": version.name,
        "platform": PLATFORM,
        "backend": "multigate",
        "max_batch_size": max_rows,
        "input": inputs,
        "output": [{"name": task, "data_type": "TYPE_FP32", "dims": [1]} for task in version.bundle.tasks],
        "instance_group": [{"name": version.name, "kind": "KIND_CPU", "count": 1}],
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0},
        "version_policy": {"all": {}},
    }


def _type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def statistics(version: Version, totals: Totals) -> dict[str, Any]:
    """What all processes have counted for a model."""
    parts = {
        "success": (totals.requests, totals.request_ns),
        "fail": (totals.failed, totals.failed_ns),
        "queue": (totals.requests, totals.wait_ns),
        "compute_input": (totals.requests, totals.parse_ns + totals.transform_ns),
        "compute_infer": (totals.requests, totals.score_ns),
        "compute_output": (totals.requests, totals.answer_ns),
        "cache_hit": (0, 0),
        "cache_miss": (0, 0),
    }
    return {
        "name": version.name,
        "version": version.version,
        "last_inference": totals.last_ms,
        "inference_count": totals.rows,
        "execution_count": totals.batches,
        "inference_stats": {name: {"count": count, "ns": ns} for name, (count, ns) in parts.items()},
        "batch_stats": [],
        "memory_usage": [],
    }
