"""The configuration: frozen, typed, YAML plus `--set a.b=value`; unknown keys are refused.

Defaults are the recipe that won on the dev sets of more than one corpus; each says where it comes
from in docs of its field.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from retrieval_ft.errors import ConfigError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(_Section):
    """What is trained and measured on."""

    path: Path | None = None
    """A dataset folder in BEIR layout. Either this or `builder`."""
    builder: Literal["cwe", "hpo"] | None = None
    """A data set that this package builds at set-up, into data/NAME."""
    dev_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of train queries that becomes dev where the dataset brings no dev split."""
    test_fraction: float = Field(0.2, gt=0, lt=0.5)
    """Share of train queries that becomes test where the dataset brings no test split."""
    unjudged_queries: Literal["refuse", "drop"] = "refuse"
    """What to do with a query that has no relevant passage: refuse the data, or drop and count."""


class ModelConfig(_Section):
    """The embedding model and how it runs."""

    base: str = "BAAI/bge-small-en-v1.5"
    """A name of `retrieval-ft models list`, a hub name, or a model folder."""
    max_length: int = Field(512, ge=16, le=8192)
    """Tokens of a text, prompt included; longer texts are cut, and their share is reported. Never
    more than the model's own maximum, which is 512 for BGE v1.5."""
    query_prompt: str | None = None
    """Put before each query; by default what the model was saved with."""
    passage_prompt: str | None = None
    """Put before each passage; by default what the model was saved with."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast where the hardware multiplies bf16, else fp32."""


class LexicalConfig(_Section):
    """BM25 (Okapi, as rank_bm25 computes it)."""

    k1: float = Field(1.5, ge=0)
    b: float = Field(0.75, ge=0, le=1)
    stemmer: str | None = "english"
    """A Snowball stemmer, or null for none."""
    stop_words: Literal["none", "english"] = "english"


class MiningConfig(_Section):
    """Hard negatives."""

    depth: int = Field(50, ge=1)
    """Candidates of a query from each side, BM25 and dense."""
    negatives: int = Field(4, ge=0)
    """Negatives kept for each (query, positive)."""
    margin: float = Field(0.95, gt=0, le=1)
    """Positive-aware margin (NV-Retriever, arXiv 2407.15831), on the calibrated scale: a candidate
    whose score above chance is over `margin` x the positive's is taken for a false negative."""
    floor_quantile: float = Field(0.25, ge=0, le=1)
    """A positive that scores below this quantile of all known positives is judged at the quantile:
    where the base ranks a positive far down, its score says little about what is false."""
    duplicate_jaccard: float = Field(0.8, gt=0, le=1)
    """A candidate this similar in words to a positive of the query is never a negative."""


class TrainingConfig(_Section):
    """The contrastive run."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the pairs; by default more for fewer pairs (see `training/recipe.py`)."""
    batch_size: int | None = Field(None, ge=2)
    """Queries of a batch, whose passages are each other's negatives; by default from the pairs."""
    negatives_per_query: int = Field(1, ge=0)
    """Mined negatives of each query in a batch; others take their turn in later epochs."""
    learning_rate: float | None = Field(None, gt=0)
    """Peak of the schedule; by default from the width of the model."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    temperature: float = Field(0.02, gt=0)
    """Divides the cosines in InfoNCE (FlagEmbedding's value for BGE)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout while training."""
    max_length: int = Field(128, ge=16)
    """Tokens of a text while training; never more than model.max_length. On `cwe` (a third of the
    passages are longer than 128) 256 took 1.5 times as long and was no better on dev."""
    graph_tokens: int | None = Field(None, ge=1)
    """Padded tokens of a batch whose activations are kept; a larger batch goes through GradCache.
    By default from the free memory."""
    evaluations: int = Field(4, ge=1)
    """Dev evaluations (and checkpoints) over the run; the best one is kept."""
    dev_passages: int = Field(4_000, ge=100)
    """Passages that dev queries are scored against while training: the whole corpus up to this size,
    else the relevant ones, the base model's and BM25's candidates, and random ones."""
    patience: int = Field(2, ge=1)
    """Dev evaluations without a new best after which training stops."""
    soup_alphas: tuple[float, ...] = (1.0, 0.8, 0.6, 0.5, 0.4)
    """Shares of tuned weights to try on dev, from 1 down until one is worse (LM-Cocktail, arXiv
    2311.13534)."""

    @field_validator("soup_alphas")
    @classmethod
    def _tuned_is_a_choice(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in alphas or not all(0 < alpha <= 1 for alpha in alphas):
            raise ValueError("alphas lie in (0, 1] and 1 must be among them")
        return alphas


class EvaluationConfig(_Section):
    """The one look at test."""

    depth: int = Field(100, ge=100)
    """Passages ranked for each query."""
    resamples: int = Field(10_000, ge=1_000)
    """Resamples of the sign-flip test and of the bootstrap."""


class Config(_Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The run directory is runs/NAME."""
    runs: Path = Path("runs")
    seed: int = Field(13, ge=0)
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    lexical: LexicalConfig = LexicalConfig()
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
    if (config.data.path is None) == (config.data.builder is None):
        raise ConfigError(
            f"{source}: data: give either data.path (a folder in BEIR layout) or data.builder "
            "(cwe or hpo)"
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
