"""Retrieval metrics per query, defined as trec_eval defines them.

Every judged query counts: one without results scores 0, so that a system cannot gain by answering
less. Values are kept per query because the paired tests need them; a mean alone proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset.types import Qrels, Ranking
from retrieval_ft.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]

METRICS: tuple[str, ...] = (
    "recall@1",
    "recall@5",
    "recall@10",
    "recall@20",
    "recall@50",
    "recall@100",
    "ndcg@10",
    "mrr@10",
    "precision@10",
    "map",
)
"""What reports hold unless asked otherwise."""

DEFINITIONS: Mapping[str, str] = {
    "recall": "relevant passages among the first k, divided by all relevant ones (not capped at k)",
    "ndcg": "sum of grade / log2(rank + 1) over the first k, divided by that of the ideal order",
    "mrr": "1 / rank of the first relevant passage, 0 where none is among the first k",
    "precision": "relevant passages among the first k, divided by k",
    "map": "sum of the precision at each relevant passage of the whole ranking, divided by all "
    "relevant ones",
}
"""Each metric in a line, by the part of its name before the `@`."""

_NAME = re.compile(r"(recall|ndcg|mrr|precision)@([1-9][0-9]*)|(map)")


@dataclass(frozen=True)
class _Judged:
    """One query's ranking reduced to what the metrics need."""

    ranks: Floats
    """Ranks from 1 of the relevant passages that were found, ascending, [found]."""
    gains: Floats
    """Their grades, [found]."""
    ideal: Floats
    """Grades of all relevant passages, best first, [relevant]."""

    def found(self, k: int) -> int:
        """Number of relevant passages among the first k."""
        return int(np.searchsorted(self.ranks, k, side="right"))


def _recall(judged: _Judged, k: int) -> float:
    return judged.found(k) / len(judged.ideal)


def _precision(judged: _Judged, k: int) -> float:
    return judged.found(k) / k


def _mrr(judged: _Judged, k: int) -> float:
    return 1.0 / float(judged.ranks[0]) if judged.found(k) else 0.0


def _ndcg(judged: _Judged, k: int) -> float:
    found = judged.found(k)
    ideal = judged.ideal[:k]
    dcg = np.sum(judged.gains[:found] / np.log2(judged.ranks[:found] + 1))
    return float(dcg / np.sum(ideal / np.log2(np.arange(len(ideal)) + 2)))


def _map(judged: _Judged, _: int) -> float:
    found = np.arange(1, len(judged.ranks) + 1)
    return float(np.sum(found / judged.ranks) / len(judged.ideal))


_FUNCTIONS: Mapping[str, Callable[[_Judged, int], float]] = {
    "recall": _recall,
    "precision": _precision,
    "mrr": _mrr,
    "ndcg": _ndcg,
    "map": _map,
}


def parse_metric(name: str) -> tuple[str, int]:
    """Split a metric's name into its kind and its depth: `recall@10` -> `("recall", 10)`.

    Returns:
        The kind, and k; 0 for `map`, which looks at the whole ranking.

    Raises:
        ConfigError: no such metric.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConfigError(
            f"unknown metric {name!r}; allowed: recall@k, ndcg@k, mrr@k, precision@k with k from "
            "1 (such as recall@10), and map"
        )
    return match[1] or match[3], int(match[2] or 0)


@dataclass(frozen=True)
class PerQuery:
    """Metric values of one system: `values[metric]` is float64 [queries], beside `query_ids`."""

    query_ids: tuple[str, ...]
    values: Mapping[str, Floats]

    def of(self, metric: str) -> Floats:
        """Values of one metric, float64 [queries].

        Raises:
            ConfigError: the metric was not measured.
        """
        if metric not in self.values:
            raise ConfigError(f"{metric!r} was not measured; measured: {', '.join(self.values)}")
        return self.values[metric]

    def mean(self, metric: str) -> float:
        """Mean of one metric over all judged queries.

        Raises:
            ConfigError: the metric was not measured.
        """
        return float(self.of(metric).mean())

    def means(self) -> dict[str, float]:
        """Mean of each metric, in the order they were asked for."""
        return {metric: self.mean(metric) for metric in self.values}

    def select(self, query_ids: Collection[str]) -> PerQuery:
        """The values of these queries alone."""
        rows = [row for row, query_id in enumerate(self.query_ids) if query_id in query_ids]
        return PerQuery(
            tuple(self.query_ids[row] for row in rows),
            {metric: values[rows] for metric, values in self.values.items()},
        )


def _judge(query_id: str, ids: Sequence[str], grades: Mapping[str, int]) -> _Judged:
    if len(set(ids)) != len(ids):
        twice = next(passage_id for i, passage_id in enumerate(ids) if passage_id in ids[:i])
        raise DataError(
            f"the ranking of query {query_id!r} holds passage {twice!r} twice; a repeated passage "
            "would count as two hits, so rank each one once"
        )
    gains = np.fromiter((max(grades.get(p, 0), 0) for p in ids), np.float64, count=len(ids))
    hits = np.flatnonzero(gains)
    ideal = np.array(sorted((g for g in grades.values() if g > 0), reverse=True), np.float64)
    return _Judged(ranks=(hits + 1).astype(np.float64), gains=gains[hits], ideal=ideal)


def evaluate(ranking: Ranking, qrels: Qrels, *, metrics: Sequence[str] = METRICS) -> PerQuery:
    """Score a ranking against judgements, query by query, as trec_eval does.

    The order of `ranking` is taken as it is given. Unjudged passages and grades of 0 or below are
    not relevant. A judged query that the ranking lacks scores 0; a ranked query that is not judged
    is ignored, and so is one with no relevant passage, for which recall has no value.

    Args:
        ranking: Search results, best first.
        qrels: Judgements.
        metrics: Names such as `recall@10`, `ndcg@10`, `mrr@10`, `precision@10` and `map`.

    Returns:
        Values float64 [queries], for the judged queries with a relevant passage, sorted by id.

    Raises:
        ConfigError: an unknown metric.
        DataError: no query has a relevant passage, or a passage is ranked twice for a query.
    """
    parsed = {name: parse_metric(name) for name in metrics}
    query_ids = tuple(query_id for query_id in qrels.query_ids if qrels.relevant(query_id))
    if not query_ids:
        raise DataError(
            f"none of the {len(qrels)} judged queries has a relevant passage (a grade above 0); "
            "there is nothing to measure"
        )
    values = {name: np.zeros(len(query_ids), np.float64) for name in parsed}
    for row, query_id in enumerate(query_ids):
        judged = _judge(query_id, ranking.ids(query_id), qrels.grades[query_id])
        for name, (kind, k) in parsed.items():
            values[name][row] = _FUNCTIONS[kind](judged, k)
    return PerQuery(query_ids=query_ids, values=values)
