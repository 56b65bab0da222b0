"""The schema of a run: every key of a config file, its type, default and meaning.

Pure data: pydantic models without torch, ray or torchrec, so that a config is checked in well under a second. Each
section has a module; all are imported from here. Loading, merging and error messages are in `configs.load`; checks
across sections in `configs.checks`.
"""

from pydantic import Field

from configs.data_config import DataConfig, GenerateConfig
from configs.doctor_config import DoctorConfig
from configs.export_config import ExportConfig
from configs.feature_config import DenseFeature, Feature, SparseFeature, TableConfig
from configs.layout import InputLayout, layout_of
from configs.model_config import ModelConfig, TaskConfig
from configs.section import Section
from configs.serve_config import ServeConfig
from configs.training_config import (
    CheckpointConfig,
    DenseOptimizer,
    LaunchConfig,
    SparseOptimizer,
    TrainingConfig,
    WarmStart,
)

__all__ = [
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "DenseFeature",
    "DenseOptimizer",
    "DoctorConfig",
    "ExportConfig",
    "Feature",
    "GenerateConfig",
    "LaunchConfig",
    "ModelConfig",
    "Section",
    "ServeConfig",
    "SparseFeature",
    "SparseOptimizer",
    "TableConfig",
    "TaskConfig",
    "TrainingConfig",
    "WarmStart",
]


class Config(Section):
    """A run."""

    data: DataConfig
    features: dict[str, Feature] = Field(min_length=1)
    tables: dict[str, TableConfig] = {}
    model: ModelConfig = ModelConfig()
    tasks: dict[str, TaskConfig] = Field(min_length=1)
    training: TrainingConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    launch: LaunchConfig = LaunchConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    doctor: DoctorConfig = DoctorConfig()

    @property
    def sparse_features(self) -> dict[str, SparseFeature]:
        return {name: f for name, f in self.features.items() if isinstance(f, SparseFeature)}

    @property
    def dense_features(self) -> dict[str, DenseFeature]:
        return {name: f for name, f in self.features.items() if isinstance(f, DenseFeature)}

    @property
    def tables_by_feature(self) -> dict[str, TableConfig]:
        """Sparse feature -> the table that it is looked up in."""
        return {name: self.tables[feature.table] for name, feature in self.sparse_features.items()}

    @property
    def input_layout(self) -> InputLayout:
        """Which columns of the top's input each feature fills."""
        return layout_of(self.features, self.tables)
