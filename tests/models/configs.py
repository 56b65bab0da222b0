"""Whole configs for tests of what is made from one: a top with its inputs."""

from collections.abc import Mapping

from configs.layout import InputLayout, lay_out
from configs.schema import Config, ModelConfig, TaskConfig


def config_of(model: ModelConfig, tasks: Mapping[str, TaskConfig], widths: Mapping[str, int]) -> Config:
    """A run with this model, these tasks, and a dense feature of each of these widths."""
    return Config.model_validate(
        {
            "data": {"root": "data"},
            "features": {name: {"width": width} for name, width in widths.items()},
            "model": model,
            "tasks": dict(tasks),
            "training": {"run_dir": "runs/x"},
        }
    )


def dense_inputs(width: int) -> InputLayout:
    """Inputs of a top that are one dense feature."""
    return lay_out({}, {"x": width})
