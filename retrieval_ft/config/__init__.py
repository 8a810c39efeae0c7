"""The configuration: frozen, typed, YAML plus `--set a.b=value`; unknown keys are refused."""

from retrieval_ft.config.data import (
    ChunkingConfig,
    ClicksConfig,
    DataConfig,
    DataFormat,
    HygieneConfig,
    LabelsFormat,
    PairKind,
    PairsConfig,
    SyntheticConfig,
    SyntheticKind,
)
from retrieval_ft.config.load import Config, dump, from_mapping, load, read
from retrieval_ft.config.training import TrainingConfig
from retrieval_ft.config.work import (
    EvaluationConfig,
    IndexConfig,
    LexicalConfig,
    MiningConfig,
    ModelConfig,
    NegativeSource,
)

__all__ = [
    "ChunkingConfig",
    "ClicksConfig",
    "Config",
    "DataConfig",
    "DataFormat",
    "EvaluationConfig",
    "HygieneConfig",
    "IndexConfig",
    "LabelsFormat",
    "LexicalConfig",
    "MiningConfig",
    "ModelConfig",
    "NegativeSource",
    "PairKind",
    "PairsConfig",
    "SyntheticConfig",
    "SyntheticKind",
    "TrainingConfig",
    "dump",
    "from_mapping",
    "load",
    "read",
]
