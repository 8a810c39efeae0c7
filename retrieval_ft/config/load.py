"""The whole configuration, and its way in: YAML plus `--set a.b=value`; unknown keys are refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from retrieval_ft.config.data import (
    Builder,
    ChunkingConfig,
    ClicksConfig,
    DataConfig,
    HygieneConfig,
    PairsConfig,
    SyntheticConfig,
)
from retrieval_ft.config.section import Section
from retrieval_ft.config.training import TrainingConfig
from retrieval_ft.config.work import (
    EvaluationConfig,
    IndexConfig,
    LexicalConfig,
    MiningConfig,
    ModelConfig,
)
from retrieval_ft.errors import ConfigError


class Config(Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run directory is runs/NAME."""
    runs: Path = Path("runs")
    seed: int = Field(13, ge=0)
    data: DataConfig = DataConfig()
    clicks: ClicksConfig = ClicksConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    hygiene: HygieneConfig = HygieneConfig()
    pairs: PairsConfig = PairsConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
    model: ModelConfig = ModelConfig()
    lexical: LexicalConfig = LexicalConfig()
    index: IndexConfig = IndexConfig()
    mining: MiningConfig = MiningConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def run_folder(self) -> Path:
        """Where the run lives."""
        return self.runs / self.name


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply `a.b=value` overrides.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (the nearest one is named), or a value
            that is not allowed.
    """
    return from_mapping(read(path), overrides, source=str(path))


def read(path: Path) -> dict[str, Any]:
    """Read the mapping that a YAML file holds, without a look at what is in it.

    Raises:
        ConfigError: no such file, not YAML, or no mapping.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a mapping is needed, found {type(raw).__name__}")
    return raw


def from_mapping(
    given: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    source: str,
    name: str | None = None,
) -> Config:
    """Apply `a.b=value` overrides and a name to a mapping and validate it; errors say `source`.

    Raises:
        ConfigError: every fault, one a line, by its config path.
    """
    raw = deepcopy(dict(given))
    for override in overrides:
        _apply(raw, override)
    try:
        config = Config.model_validate(raw if name is None else {**raw, "name": name})
    except ValidationError as error:
        faults = "\n".join(_fault(item) for item in error.errors())
        raise ConfigError(f"{source}: {faults}") from error
    data = config.data
    places = sum(value is not None for value in (data.path, data.name, data.builder))
    if places > 1 or (places == 0 and data.labels is None):
        raise ConfigError(
            f"{source}: data: give one of data.path (documents, rows or a folder in BEIR layout), "
            f"data.name (a data set of the hub) or data.builder ({', '.join(get_args(Builder))}), or "
            "data.labels alone where they bring the texts of their passages"
        )
    return config


def dump(config: Config) -> str:
    """The whole configuration as YAML that `load` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(raw: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set {override!r}: the form is a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error
    *parents, last = path.split(".")
    place = raw
    for key in parents:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override!r}: {key!r} holds a value, not a section")
    place[last] = value


def _fault(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{path}: {item['msg']} (found {item['input']!r})"
    known = list(_paths(Config))
    section, _, leaf = path.rpartition(".")
    same = [k for k in known if k.rpartition(".")[2] == leaf]  # right key, wrong section
    near = difflib.get_close_matches(path, same or known, n=1, cutoff=0.0)
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == section]
    return f"{path}: unknown key; did you mean {near[0]}? (allowed here: {', '.join(siblings)})"


def _paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _paths(inner, f"{prefix}{name}.")
