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
    "capped_recall@10",
    "success@10",
    "hole@10",
)
"""What reports hold unless asked otherwise."""

DEFINITIONS: Mapping[str, str] = {
    "recall": "relevant passages among the first k, divided by all relevant ones (not capped at k)",
    "capped_recall": "relevant passages among the first k, divided by the smaller of k and all "
    "relevant ones (so that 1 can be reached where there are more than k)",
    "success": "1 where a relevant passage is among the first k, else 0",
    "ndcg": "sum of grade / log2(rank + 1) over the first k, divided by that of the ideal order",
    "mrr": "1 / rank of the first relevant passage, 0 where none is among the first k",
    "precision": "relevant passages among the first k, divided by k",
    "map": "sum of the precision at each relevant passage of the whole ranking, divided by all "
    "relevant ones",
    "hole": "passages among the first k that nobody judged for the query, divided by k (a grade of 0 "
    "or below is a judgement; a place that the ranking leaves empty is no hole)",
}
"""Each metric in a line, by the part of its name before the `@`.

All but two are trec_eval's. `capped_recall` and `hole` are those of BEIR (`recall_cap` and `hole` in
its `custom_metrics.py`), but for that a hole is a passage nobody judged for this query, not for any;
so `precision@k + hole@k` is at most 1, and what is missing was judged not relevant or not returned.
"""
_KINDS = "|".join(kind for kind in DEFINITIONS if kind != "map")
_NAME = re.compile(rf"({_KINDS})@([1-9][0-9]*)|(map)")


@dataclass(frozen=True)
class _Judged:
    """One query's ranking reduced to what the metrics need."""

    ranks: Floats
    """Ranks from 1 of the relevant passages that were found, ascending, [found]."""
    gains: Floats
    """Their grades, [found]."""
    ideal: Floats
    """Grades of all relevant passages, best first, [relevant]."""
    holes: Floats
    """Ranks from 1 of the passages that nobody judged, ascending, [unjudged]."""

    def found(self, k: int) -> int:
        """Number of relevant passages among the first k."""
        return int(self.ranks.searchsorted(k, "right"))


def _recall(judged: _Judged, k: int) -> float:
    return judged.found(k) / len(judged.ideal)


def _capped_recall(judged: _Judged, k: int) -> float:
    return judged.found(k) / min(k, len(judged.ideal))


def _success(judged: _Judged, k: int) -> float:
    return float(judged.found(k) > 0)


def _hole(judged: _Judged, k: int) -> float:
    return int(judged.holes.searchsorted(k, "right")) / k


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
    "capped_recall": _capped_recall,
    "success": _success,
    "hole": _hole,
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
            f"unknown metric {name!r}; allowed: recall@k, ndcg@k, mrr@k, precision@k, success@k, "
            "capped_recall@k, hole@k with k from 1 (such as recall@10), and map"
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
    given = np.fromiter((grades.get(p, np.nan) for p in ids), np.float64, count=len(ids))
    hits = np.flatnonzero(given > 0)
    ideal = np.array(sorted((g for g in grades.values() if g > 0), reverse=True), np.float64)
    return _Judged(
        ranks=(hits + 1).astype(np.float64),
        gains=given[hits],
        ideal=ideal,
        holes=(np.flatnonzero(np.isnan(given)) + 1).astype(np.float64),
    )


def evaluate(ranking: Ranking, qrels: Qrels, *, metrics: Sequence[str] = METRICS) -> PerQuery:
    """Score a ranking against judgements, query by query, as trec_eval does.

    The order of `ranking` is taken as it is given. Unjudged passages and grades of 0 or below are
    not relevant. A judged query that the ranking lacks scores 0; a ranked query that is not judged
    is ignored, and so is one with no relevant passage, for which recall has no value.

    Args:
        ranking: Search results, best first.
        qrels: Judgements.
        metrics: Names of the kinds in `DEFINITIONS`, with a depth: `recall@10`; `map` has none.

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
