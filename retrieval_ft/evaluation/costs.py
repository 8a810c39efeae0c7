"""What each way to better retrieval costs: pure formulas over facts and prices, for `advise`.

Costs have three parts: once, each month, and for each query. The machine time of all options together is
mostly small beside the hours of people; the formulas show where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retrieval_ft.dataset.power import smallest_difference
from retrieval_ft.evaluation.facts import Facts, Limits, Prices

Action = Literal["fix_chunking", "add_hybrid", "rerank", "tune", "collect_labels", "leave_it"]
ACTIONS: tuple[Action, ...] = (
    "fix_chunking",
    "add_hybrid",
    "rerank",
    "tune",
    "collect_labels",
    "leave_it",
)
MONTHS = 12
_GB = 1e9
_HOUR = 3600.0


@dataclass(frozen=True)
class Cost:
    """Cost of an option over what is done today, in the currency of the prices; never negative."""

    one_time: float = 0.0
    per_month: float = 0.0
    """However many queries there are."""
    per_query: float = 0.0

    def monthly(self, queries: float) -> float:
        """per_month + per_query * queries, for so many queries a month."""
        return self.per_month + self.per_query * queries

    def total(self, queries: float) -> float:
        """one_time + 12 * monthly, for so many queries a month."""
        return self.one_time + MONTHS * self.monthly(queries)


def encoding(tokens: float, prices: Prices) -> float:
    """Cost of reading tokens with a model: tokens / tokens_per_core_second / 3600 * core_hour."""
    return tokens / prices.tokens_per_core_second / _HOUR * prices.core_hour


def memory(passages: float, prices: Prices) -> float:
    """Cost of an index in memory for a month: passages * bytes_per_passage / 1e9 * memory_gb_month."""
    return passages * prices.bytes_per_passage / _GB * prices.memory_gb_month


def reindexing(facts: Facts, prices: Prices) -> float:
    """Cost of encoding the whole corpus once: passages * passage_tokens."""
    return encoding(facts.passages * facts.passage_tokens, prices)


def training(pairs: float, prices: Prices) -> float:
    """Cost of one training: pairs * train_core_seconds_per_pair / 3600 * core_hour."""
    return pairs * prices.train_core_seconds_per_pair / _HOUR * prices.core_hour


def chunking_cost(facts: Facts, prices: Prices) -> Cost:
    """Cut the passages anew.

    Once: hours_chunking, and the corpus encoded again. Each month: every passage that was cut becomes
    two, so truncated_passages * passages more are held in memory and kept up to date.
    """
    more = facts.truncated_passages * facts.passages
    changed = more * facts.corpus_change_per_month * facts.passage_tokens
    return Cost(
        one_time=prices.hours_chunking * prices.engineer_hour + reindexing(facts, prices),
        per_month=memory(more, prices) + encoding(changed, prices),
    )


def hybrid_cost(facts: Facts, prices: Prices) -> Cost:
    """Search by words and by vectors; nothing where that is done today.

    Once: hours_hybrid. Each month: the index in memory. Each query: search_core_seconds. From BM25
    alone there is the encoding too: of the corpus once, of its changes, and of each query.
    """
    if facts.serves == "hybrid":
        return Cost()
    words_only = facts.serves == "bm25"
    corpus = reindexing(facts, prices) if words_only else 0.0
    query = encoding(facts.query_tokens, prices) if words_only else 0.0
    return Cost(
        one_time=prices.hours_hybrid * prices.engineer_hour + corpus,
        per_month=memory(facts.passages, prices) + corpus * facts.corpus_change_per_month,
        per_query=prices.search_core_seconds / _HOUR * prices.core_hour + query,
    )


def rerank_cost(facts: Facts, prices: Prices) -> Cost:
    """Read the first passages of each query with a cross-encoder.

    Once: hours_rerank. Each query: rerank_passages * (query_tokens + passage_tokens) tokens.
    """
    tokens = prices.rerank_passages * (facts.query_tokens + facts.passage_tokens)
    return Cost(
        one_time=prices.hours_rerank * prices.engineer_hour,
        per_query=encoding(tokens, prices),
    )


def tune_cost(facts: Facts, prices: Prices, limits: Limits) -> Cost:
    """Tune the embedder; it keeps its size, so that a query costs what it did.

    Once: hours_tune, a `training` and a `reindexing`. Each month: corpus_change_per_month /
    retune_after times hours_retune, a training and a reindexing. Pairs: train_labels, but not fewer
    than limits.train_labels.
    """
    pairs = max(facts.train_labels, limits.train_labels)
    once = training(pairs, prices) + reindexing(facts, prices)
    times = facts.corpus_change_per_month / prices.retune_after
    return Cost(
        one_time=prices.hours_tune * prices.engineer_hour + once,
        per_month=times * (prices.hours_retune * prices.engineer_hour + once),
    )


def queries_needed(gain: float, *, deviation: float) -> int:
    """Test queries that most likely show a gain of recall@10.

    The inverse of `dataset.power.smallest_difference`: (2.8 * deviation / gain) ** 2, rounded up.

    Raises:
        ValueError: the gain is not above zero.
    """
    if not gain > 0:
        raise ValueError(f"gain {gain}: no number of queries shows it")
    return math.ceil((smallest_difference(1, deviation=deviation) / gain) ** 2 - 1e-9)


def target_gain(facts: Facts, limits: Limits) -> float:
    """The gain that the test set should be able to show.

    plausible_gain, but not more than is missing at 10 and not less than least_gain.
    """
    return max(limits.least_gain, min(limits.plausible_gain, facts.headroom))


def labels_missing(facts: Facts, limits: Limits) -> tuple[int, int]:
    """Labels to collect: train pairs up to limits.train_labels, and test queries for `target_gain`."""
    test = queries_needed(target_gain(facts, limits), deviation=facts.deviation)
    return max(0, limits.train_labels - facts.train_labels), max(0, test - facts.test_queries)


def label_cost(facts: Facts, prices: Prices, limits: Limits) -> Cost:
    """Have `labels_missing` judged: labels / labels_per_hour * label_hour, once."""
    return Cost(
        one_time=sum(labels_missing(facts, limits)) / prices.labels_per_hour * prices.label_hour
    )


def costs(facts: Facts, prices: Prices, limits: Limits) -> Mapping[Action, Cost]:
    """The cost of every option."""
    return {
        "fix_chunking": chunking_cost(facts, prices),
        "add_hybrid": hybrid_cost(facts, prices),
        "rerank": rerank_cost(facts, prices),
        "tune": tune_cost(facts, prices, limits),
        "collect_labels": label_cost(facts, prices, limits),
        "leave_it": Cost(),
    }


def value(gain: float, *, queries: float, prices: Prices) -> float:
    """What a gain of recall@10 is worth over 12 months: 12 * queries * gain * value_per_find."""
    return MONTHS * queries * gain * prices.value_per_find


def break_even(cost: Cost, *, gain: float, prices: Prices) -> float | None:
    """Queries a month from which an option pays for itself within 12 months.

    (one_time / 12 + per_month) / (gain * value_per_find - per_query); None where a query costs as much
    as it brings, or more: no volume pays then.
    """
    margin = gain * prices.value_per_find - cost.per_query
    if margin <= 0:
        return None
    volume = (cost.one_time / MONTHS + cost.per_month) / margin
    return volume if math.isfinite(volume) else None


def cheaper_from(cost: Cost, other: Cost) -> float | None:
    """Queries a month from which one option costs less over 12 months than another.

    Where the two lines cross: ((one_time - one_time') / 12 + per_month - per_month') /
    (per_query' - per_query), not below 0; None where its query costs no less, since it then never
    becomes cheaper by volume.
    """
    saved = other.per_query - cost.per_query
    if saved <= 0:
        return None
    fixed = (cost.one_time - other.one_time) / MONTHS + cost.per_month - other.per_month
    volume = max(0.0, fixed / saved)
    return volume if math.isfinite(volume) else None
