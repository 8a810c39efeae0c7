"""Settings of the work on it: model, BM25, hard negatives, evaluation.

Defaults are the recipe that won on the dev sets of more than one corpus.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from retrieval_ft.config.section import Section

NegativeSource = Literal["bm25", "dense", "random"]


class ModelConfig(Section):
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


class LexicalConfig(Section):
    """BM25 (Okapi, as rank_bm25 computes it)."""

    k1: float = Field(1.5, ge=0)
    b: float = Field(0.75, ge=0, le=1)
    stemmer: str | None = "english"
    """A Snowball stemmer, or null for none."""
    stop_words: str = "english"
    """"none", "english" (Lucene's 33 words), or a language of the package `stop-words`."""
    bigrams: bool = True
    """Pairs of letters where a script sets no spaces between words (Chinese, Japanese, Thai, ...)."""
    engine: Literal["impacts", "rank_bm25"] = "impacts"
    """rank_bm25 gives the same ranking by that package itself, hundreds of times slower: to check."""


class IndexConfig(Section):
    """The hybrid index: how vectors are kept and searched."""

    kind: Literal["auto", "flat", "hnsw", "ivf-flat", "ivf-sq8", "ivf-rabitq"] = "auto"
    """How dense search is done. auto: exact up to 200,000 passages, beyond by `memory_gb` and
    `deletes`, and the index says why."""
    min_recall: float = Field(0.95, ge=0, le=1)
    """An approximate index that finds less of the exact first 10 is not built."""
    memory_gb: float = Field(1.0, gt=0)
    """What an approximate index may keep in memory, in 10^9 bytes."""
    deletes: bool = True
    """Whether passages will be deleted or replaced: a graph (hnsw) cannot shrink."""
    vectors: Literal["float32", "int8"] = "float32"
    """int8 takes a quarter of the room; what it loses is measured on the queries there are."""
    dimension: int | None = Field(None, ge=8)
    """Leading components that are kept, for a model trained with `training.matryoshka`."""
    tenant_key: str | None = None
    """A metadata key: who searches must say for which value of it, and finds nothing else."""


class MiningConfig(Section):
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
    dropped, or becomes a positive of the query where it scores above every positive of the query
    and above the median of all known ones."""
    denoise_threshold: float = Field(0.6, gt=0, le=1)
    """Of the positive's probability, as CADET does it (arXiv 2505.19274)."""
    audit_sample: int = Field(200, ge=0)
    """Pairs of which one negative is scored by the cross-encoder to estimate the rate of false ones."""


class EvaluationConfig(Section):
    """The one look at test."""

    depth: int = Field(100, ge=100)
    """Passages ranked for each query."""
    resamples: int = Field(10_000, ge=1_000)
    """Resamples of the sign-flip test and of the bootstrap."""
    min_gain: float = Field(0.0, ge=0, lt=1)
    """Least gain of recall@10 for which the tuned model is promoted, dense and hybrid."""
    max_forgetting: float | None = Field(None, ge=0, lt=1)
    """Largest loss of recall@10 on a general set with which it is promoted; null: not looked at."""
    max_latency_regression: float | None = Field(0.1, ge=0)
    """Largest growth of the p95 time to encode a query with which it is promoted, a share of the
    base's, beyond the noise of the clock; null: not looked at. Searching costs both the same."""
    cluster: bool = False
    """Resample by document instead of by query: queries about one document (or about near-duplicates)
    are not independent, so the intervals of many such queries are wider than they look."""
    rerank: int = Field(0, ge=0)
    """First hits of BM25 and of each hybrid that `cross_encoder` orders anew, as systems of their own;
    0 for none (100 passages for each of 600 queries take a quarter of an hour on 2 cores)."""
    unmixed: bool = False
    """Where the candidate is a soup, also measure the tuned weights without the base's, dense: the
    corpus is encoded once more."""
    cross_encoder: str = "ms-marco-MiniLM-L-12-v2-int8"
    """For `rerank`: a name of `retrieval-ft models list`, a hub name or a folder."""
    general: Literal["auto"] | tuple[str, ...] = "auto"
    """Sets of other domains that the embedder is measured on before and after, to see what it forgot:
    built-in names or folders in BEIR layout. auto: two built-in sets that stand on this machine."""
