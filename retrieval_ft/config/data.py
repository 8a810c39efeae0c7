"""Settings of what is trained and measured on: sources, labels, cleaning, pairs from the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from retrieval_ft.config.section import Section

DataFormat = Literal["auto", "beir", "files", "jsonl", "csv", "parquet", "dataset", "sqlite"]
LabelsFormat = Literal["auto", "trec", "flagembedding", "pairs", "triplets", "llamaindex", "clicks"]
PairKind = Literal["title", "heading", "first_sentence", "crop", "link"]
SyntheticKind = Literal["question", "keywords", "claim", "title"]
Builder = Literal["cwe", "hpo", "pycode", "pycode-small", "debian"]


class DataConfig(Section):
    """What is trained and measured on."""

    path: Path | None = None
    """A dataset folder in BEIR layout, a folder or a glob of documents, or a file of rows. Either
    this, `name` or `builder`."""
    name: str | None = None
    """A data set of the hub, as `datasets.load_dataset` takes it."""
    builder: Builder | None = None
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


class ClicksConfig(Section):
    """How a log of queries and clicks becomes labels."""

    minimum: int = Field(2, ge=1)
    """Clicks on a passage for a query below which there is no label."""
    bias: float = Field(1.0, ge=0)
    """Position bias: a rank is looked at with probability rank ** -bias, and a click there weighs
    the inverse (Joachims et al., arXiv 1608.04468)."""
    skip_above: bool = True
    """Passages shown above a click and not clicked become judged negatives (grade 0)."""


class ChunkingConfig(Section):
    """How documents are cut into passages."""

    tokens: int = Field(320, ge=16, le=8192)
    """Tokens of a passage at most, by the base model's own tokenizer, title and headings counted.
    Between 256 and 384 a passage holds about one thought, and BGE v1.5 (512 at most) cuts none."""
    cut: Literal["auto", "always", "never"] = "auto"
    """auto: documents are cut unless labels name them by their ids."""
    overlap: int = Field(48, ge=0)
    """Tokens of whole sentences at the end of a passage that the next one repeats."""


class HygieneConfig(Section):
    """What is cleaned out of a corpus before anything is made from it."""

    duplicates: Literal["collapse", "report"] = "collapse"
    """Equal and nearly equal passages become one, and their labels go to it; or are only listed."""
    near_duplicate_jaccard: float = Field(0.98, gt=0, le=1)
    """Passages whose sets of word 3-grams are this similar are near-duplicates (MinHash); a passage
    under 20 words has only equal ones. At .95 two functions of 120 words that differ in one telling
    name are one; data sheets that differ by a number are too."""
    boilerplate_share: float = Field(0.3, gt=0, le=1)
    """A line that stands in this share of the documents (and in 5 at least) is boilerplate."""
    min_words: int = Field(3, ge=1)
    """A passage of a document with fewer words, title left out, is dropped as empty. Rows that
    carry their own ids are never dropped for it."""
    pii: Literal["off", "report", "scrub"] = "off"
    """Personal data: left alone, listed only (the dry run), or replaced by typed marks."""


class PairsConfig(Section):
    """Training pairs made from the corpus itself."""

    tier: Literal["auto", "labels", "both", "corpus"] = "auto"
    """What training uses. auto: labels where there are `plentiful` train pairs, labels and generated
    ones where there are fewer, generated ones where there are none."""
    plentiful: int = Field(500, ge=1)
    kinds: tuple[PairKind, ...] = ("title", "heading", "first_sentence", "crop", "link")
    per_passage: int = Field(2, ge=1)
    """Pairs of a passage at most."""
    max_pairs: int = Field(20_000, ge=10)
    round_trip_k: int = Field(100, ge=1)
    """A pair is kept if the base hybrid ranks its passage, without the query's words, this high. At
    20 only pairs that teach little are left: on `hpo` tuning won half as much as without a limit."""
    max_overlap: float = Field(0.8, gt=0, le=1)
    """A pair is dropped if this share of the query's words stands in what it must find: too easy."""


class SyntheticConfig(Section):
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
