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

DataFormat = Literal["auto", "beir", "files", "jsonl", "csv", "parquet", "dataset", "sqlite"]
LabelsFormat = Literal["auto", "trec", "flagembedding", "pairs", "triplets", "llamaindex", "clicks"]
PairKind = Literal["title", "heading", "first_sentence", "crop", "link"]
SyntheticKind = Literal["question", "keywords", "claim", "title"]
NegativeSource = Literal["bm25", "dense", "random"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(_Section):
    """What is trained and measured on."""

    path: Path | None = None
    """A dataset folder in BEIR layout, a folder or a glob of documents, or a file of rows. Either
    this, `name` or `builder`."""
    name: str | None = None
    """A data set of the hub, as `datasets.load_dataset` takes it."""
    builder: Literal["cwe", "hpo"] | None = None
    """A data set that this package builds at set-up, into data/NAME."""
    format: DataFormat = "auto"
    """What `path` is; by default what its look says."""
    columns: Mapping[str, str] = {}
    """Columns of rows by their part: id, title, text. By default those of these names (`_id` and
    `content` too); the others become metadata."""
    sql: str | None = None
    """The query that gives the rows of a sqlite file."""
    subset: str | None = None
    """Part of a hub data set, its second name."""
    split: str = "train"
    """Split of a hub or saved data set."""
    labels: Path | None = None
    """A file of labels for the passages of `path`."""
    labels_format: LabelsFormat = "auto"
    queries: Path | None = None
    """Texts of the queries where `labels` names them by id only: JSONL, or TSV of id and text."""
    label_use: Literal["all", "test_only"] = "all"
    """test_only: train and dev labels are hidden, and pairs are made from the corpus alone."""
    split_by: Literal["auto", "document", "query", "time"] = "auto"
    """What stays together when splits are carved: documents (near-duplicates count as one), query
    texts only, or nothing but the order in time. auto: time where labels come from a log, documents
    where the data allow it, else queries."""
    dev_fraction: float = Field(0.1, gt=0, lt=0.5)
    """Share of train queries that becomes dev where the dataset brings no dev split."""
    test_fraction: float = Field(0.2, gt=0, lt=0.5)
    """Share of train queries that becomes test where the dataset brings no test split."""
    unjudged_queries: Literal["refuse", "drop"] = "refuse"
    """What to do with a query that has no relevant passage: refuse the data, or drop and count."""


class ClicksConfig(_Section):
    """How a log of queries and clicks becomes labels."""

    minimum: int = Field(2, ge=1)
    """Clicks on a passage for a query below which there is no label."""
    bias: float = Field(1.0, ge=0)
    """Position bias: a rank is looked at with probability rank ** -bias, and a click there weighs
    the inverse (Joachims et al., arXiv 1608.04468)."""
    skip_above: bool = True
    """Passages shown above a click and not clicked become judged negatives (grade 0)."""


class ChunkingConfig(_Section):
    """How documents are cut into passages."""

    tokens: int = Field(320, ge=16, le=8192)
    """Tokens of a passage at most, by the base model's own tokenizer, title and headings counted.
    Between 256 and 384 a passage holds about one thought, and BGE v1.5 (512 at most) cuts none."""
    overlap: int = Field(48, ge=0)
    """Tokens of whole sentences at the end of a passage that the next one repeats."""


class HygieneConfig(_Section):
    """What is cleaned out of a corpus before anything is made from it."""

    duplicates: Literal["collapse", "report"] = "collapse"
    """Equal and nearly equal passages become one, and their labels go to it; or are only listed."""
    near_duplicate_jaccard: float = Field(0.95, gt=0, le=1)
    """Passages whose sets of word 3-grams are this similar are near-duplicates (MinHash); a passage
    under 20 words has only equal ones."""
    boilerplate_share: float = Field(0.3, gt=0, le=1)
    """A line that stands in this share of the documents (and in 5 at least) is boilerplate."""
    min_words: int = Field(3, ge=1)
    """A passage of a document with fewer words, title left out, is dropped as empty. Rows that
    carry their own ids are never dropped for it."""
    pii: Literal["off", "report", "scrub"] = "off"
    """Personal data: left alone, listed only (the dry run), or replaced by typed marks."""


class PairsConfig(_Section):
    """Training pairs made from the corpus itself."""

    tier: Literal["auto", "labels", "both", "corpus"] = "auto"
    """What training uses. auto: labels where there are `plentiful` train pairs, labels and generated
    ones where there are fewer, generated ones where there are none."""
    plentiful: int = Field(500, ge=1)
    kinds: tuple[PairKind, ...] = ("title", "heading", "first_sentence", "crop", "link")
    per_passage: int = Field(2, ge=1)
    """Pairs of a passage at most."""
    max_pairs: int = Field(20_000, ge=10)
    round_trip_k: int = Field(20, ge=1)
    """A pair is kept if the base hybrid ranks its passage, without the query's words, this high."""
    max_overlap: float = Field(0.8, gt=0, le=1)
    """A pair is dropped if this share of the query's words stands in what it must find: too easy."""


class SyntheticConfig(_Section):
    """Queries written by a language model behind an OpenAI-compatible endpoint."""

    base_url: str | None = None
    """Such as http://127.0.0.1:8000/v1; null turns it off. Texts leave this machine for it."""
    model: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    kinds: tuple[SyntheticKind, ...] = ("question", "keywords", "claim", "title")
    max_passages: int = Field(2_000, ge=1)
    per_passage: int = Field(1, ge=1)
    """Queries asked for each passage; the kinds take turns."""
    few_shot: int = Field(3, ge=0)
    """The user's own train queries shown as examples of the style."""
    temperature: float = Field(0.7, ge=0, le=2)
    concurrency: int = Field(4, ge=1, le=64)
    timeout_s: float = Field(60.0, gt=0)
    retries: int = Field(5, ge=0)
    max_tokens: int = Field(2_000_000, ge=1)
    """Tokens, prompt and answer, that may be spent in all."""
    max_cost: float | None = Field(None, gt=0)
    """Money that may be spent in all, in the unit of the prices."""
    input_price: float = Field(0.0, ge=0)
    """Price of a million prompt tokens."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million answered tokens."""


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

    sources: tuple[NegativeSource, ...] = ("bm25", "dense")
    """Where candidates come from: both is hybrid. `random` alone mines none."""
    skip_top: int = Field(0, ge=0)
    """First ranks of each source that are passed over: the window is (skip_top, depth]."""
    depth: int = Field(50, ge=1)
    """Last rank of each source that is a candidate."""
    scope: Literal["all", "train"] = "all"
    """Passages that may be negatives: the whole corpus, or those that train judges."""
    negatives: int = Field(4, ge=0)
    """Negatives kept for each (query, positive)."""
    filter: Literal["calibrated", "relative", "absolute", "none"] = "calibrated"
    """What takes a candidate for an unlabelled positive: a score over `margin` x the positive's
    above chance (calibrated), over `margin` x the positive's (relative, as NV-Retriever does), over
    the positive's less `absolute_margin`, or nothing."""
    margin: float = Field(0.95, gt=0, le=1)
    """Positive-aware margin (NV-Retriever, arXiv 2407.15831), for calibrated and relative."""
    absolute_margin: float = Field(0.05, ge=0, le=2)
    """For the absolute filter, in cosine."""
    floor_quantile: float = Field(0.25, ge=0, le=1)
    """calibrated: a positive that scores below this quantile of all known positives is judged at the
    quantile: where the base ranks a positive far down, its score says little about what is false."""
    duplicate_jaccard: float = Field(0.8, gt=0, le=1)
    """A candidate this similar in words to a positive of the query is never a negative."""
    rounds: int = Field(1, ge=1, le=5)
    """Times that negatives are mined and a model trained; from the second on with the tuned model."""
    cross_encoder: str | None = None
    """A name of `retrieval-ft models list`, a hub name or a folder: scores candidates for `denoise`
    and a sample of them for the audit."""
    denoise: Literal["drop", "relabel"] = "drop"
    """With a cross-encoder: a candidate over `denoise_threshold` x the positive's score in (0, 1) is
    dropped, or becomes a positive of the query where it scores above the positive itself."""
    denoise_threshold: float = Field(0.6, gt=0, le=1)
    """CADET's (arXiv 2505.19274)."""
    audit_sample: int = Field(200, ge=0)
    """Pairs whose negatives the cross-encoder scores to estimate the rate of false ones."""


class TrainingConfig(_Section):
    """The contrastive run."""

    epochs: int | None = Field(None, ge=1)
    """Passes over the pairs; by default more for fewer pairs (see `training/recipe.py`)."""
    max_steps: int | None = Field(None, ge=1)
    """Optimizer steps at most, whatever the epochs; the schedule ends there."""
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
    clicks: ClicksConfig = ClicksConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    hygiene: HygieneConfig = HygieneConfig()
    pairs: PairsConfig = PairsConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
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
    if sum(v is not None for v in (config.data.path, config.data.name, config.data.builder)) != 1:
        raise ConfigError(
            f"{source}: data: give one of data.path (documents, rows or a folder in BEIR layout), "
            "data.name (a data set of the hub) or data.builder (cwe or hpo)"
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
