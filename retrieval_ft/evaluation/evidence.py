"""What the report draws beside its tables: recall curves, gains query by query, examples, separation.

A mean hides how it came about. Each function here gives JSON values made from rankings and values per
query, so that whoever doubts a figure can look at the queries behind it. No torch, no matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset.types import Corpus, Qrels, Queries, Ranking
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.evaluation.compare import check_systems
from retrieval_ft.evaluation.metrics import PerQuery, evaluate
from retrieval_ft.evaluation.stats import CONFIDENCE

Floats = npt.NDArray[np.float64]

KS: tuple[int, ...] = (1, 2, 3, 5, 10, 20, 50, 100)
"""Depths of a recall curve; 100 is the depth that rankings are kept to."""
TIE_BREAK = "ndcg@10"
"""What orders queries whose difference is the same: recall@10 knows few values, nDCG many."""
CHARACTERS = 400
"""Of a passage that an example shows."""
_TITLE, _QUERY = 200, 1_000
_BLOCK = 1 << 20  # draws held at once, 8 MB


def recall_curves(
    rankings: Mapping[str, Ranking],
    qrels: Qrels,
    *,
    ks: Sequence[int] = KS,
    seed: int,
    resamples: int = 1_000,
) -> dict[str, Any]:
    """Recall at each depth, with the 95% percentile interval of the mean over queries drawn again.

    All systems are measured on the same draws. The bands say how sure each mean is; whether two systems
    differ is for the paired tests (`difference_rows`), since bands that overlap may still differ.

    Args:
        rankings: Search results by system.
        qrels: Judgements.
        ks: Depths, ascending.
        seed: The only source of randomness.
        resamples: Bootstrap samples.

    Returns:
        `{"k": [...], "systems": {name: {"mean": [...], "low": [...], "high": [...]}}}`.

    Raises:
        ConfigError: depths that are not from 1 or not ascending, or no resample.
        DataError: no judged query has a relevant passage, or a passage is ranked twice.
    """
    if resamples < 1:
        raise ConfigError(f"resamples: found {resamples}; 1 or more is allowed")
    if not ks or ks[0] < 1 or list(ks) != sorted(set(ks)):
        raise ConfigError(f"ks: found {list(ks)}; ascending depths from 1 are allowed")
    if not rankings:
        return {"k": list(ks), "systems": {}}
    names = [f"recall@{k}" for k in ks]
    found = [evaluate(ranking, qrels, metrics=names) for ranking in rankings.values()]
    values = np.column_stack([one.of(name) for one in found for name in names])
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(_drawn_means(values, seed, resamples), (tail, 1.0 - tail), axis=0)
    rows = [column.reshape(len(found), len(ks)).tolist() for column in (values.mean(0), low, high)]
    return {
        "k": list(ks),
        "systems": {
            name: {"mean": mean, "low": below, "high": above}
            for name, mean, below, above in zip(rankings, *rows, strict=True)
        },
    }


def _drawn_means(values: Floats, seed: int, resamples: int) -> Floats:
    """Column means of rows drawn with replacement, float64 [resamples, columns]."""
    n = len(values)
    generator = np.random.default_rng(seed)
    blocks = []
    most = max(1, _BLOCK // n)
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        drawn = generator.integers(0, n, size=(rows, n)) + np.arange(0, rows * n, n)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        blocks.append(times.astype(np.float64) @ values / n)
    return np.concatenate(blocks)


def query_deltas(
    per_query: Mapping[str, PerQuery], pairs: Sequence[tuple[str, str]], *, metric: str
) -> list[dict[str, Any]]:
    """System minus against at a metric for every query, the largest gain first.

    Args:
        per_query: Values of each system.
        pairs: `(system, against)` each.
        metric: A metric that all of them have.

    Returns:
        For each pair `system`, `against`, `metric`, and beside each other `query_ids` and `values`;
        equal values are sorted by query id.

    Raises:
        ConfigError: an unknown system, or a metric that was not measured.
        DataError: two systems of a pair were measured on different queries.
    """
    rows = []
    for system, against in pairs:
        ids, deltas = _deltas(per_query, system, against, metric=metric)
        order = sorted(range(len(ids)), key=lambda row: (-deltas[row], ids[row]))
        rows.append(
            {
                "system": system,
                "against": against,
                "metric": metric,
                "query_ids": [ids[row] for row in order],
                "values": [float(deltas[row]) for row in order],
            }
        )
    return rows


def _deltas(
    per_query: Mapping[str, PerQuery], system: str, against: str, *, metric: str
) -> tuple[tuple[str, ...], Floats]:
    check_systems(per_query, (system, against))
    a, b = per_query[system], per_query[against]
    if a.query_ids != b.query_ids:
        raise DataError(
            f"{system} and {against} were measured on different queries ({len(a.query_ids)} and "
            f"{len(b.query_ids)}); a difference per query needs one set of queries"
        )
    return a.query_ids, a.of(metric) - b.of(metric)


def examples(
    rankings: Mapping[str, Ranking],
    per_query: Mapping[str, PerQuery],
    *,
    corpus: Corpus,
    queries: Queries,
    qrels: Qrels,
    system: str,
    against: str,
    metric: str,
    count: int = 5,
    shown: int = 5,
) -> dict[str, Any]:
    """The queries where a system gains and loses most against another, with texts and both rankings.

    Of equal differences that with the larger one of nDCG@10 comes first, then the smaller id. A query
    without a difference is neither win nor loss.

    Args:
        rankings: Search results of both systems.
        per_query: Values of both, `metric` and ndcg@10 among them.
        corpus: The passages; a ranked or judged id that it lacks has no text (`None`).
        queries: The texts of the measured queries.
        qrels: Judgements of the split that was measured.
        system: The one.
        against: The other.
        metric: What the difference is taken at.
        count: Wins, and losses, at most.
        shown: Hits of each system, and relevant passages, at most.

    Returns:
        `system`, `against`, `metric`, and `wins` and `losses`, the largest first. Each has `query_id`,
        `query`, `delta`, `values` (of both systems), `relevant_count`, `relevant` (passages, highest
        grade first) and `hits`: for both systems passages with `score` and `grade`, None where nobody
        judged it. A passage has `id`, `title`, and `text`, cut at `CHARACTERS` with "…".

    Raises:
        ConfigError: an unknown system, or a metric that was not measured.
        DataError: the systems were measured on different queries.
    """
    if missing := [name for name in (system, against) if name not in rankings]:
        raise ConfigError(f"no ranking of {missing[0]!r}; there are those of {', '.join(rankings)}")
    ids, deltas = _deltas(per_query, system, against, metric=metric)
    _, finer = _deltas(per_query, system, against, metric=TIE_BREAK)

    def worst_first(sign: int) -> list[int]:
        rows = np.flatnonzero(sign * deltas > 0).tolist()
        return sorted(rows, key=lambda r: (-sign * deltas[r], -sign * finer[r], ids[r]))[:count]

    def item(row: int) -> dict[str, Any]:
        query_id = ids[row]
        grades = qrels.grades.get(query_id, {})
        relevant = sorted(qrels.relevant(query_id), key=lambda p: (-grades[p], p))
        return {
            "query_id": query_id,
            "query": _cut(queries.text_of.get(query_id, ""), _QUERY),
            "delta": float(deltas[row]),
            "values": {name: float(per_query[name].of(metric)[row]) for name in (system, against)},
            "relevant_count": len(relevant),
            "relevant": [{**_passage(corpus, p), "grade": grades[p]} for p in relevant[:shown]],
            "hits": {
                name: _hits(rankings[name], query_id, corpus=corpus, grades=grades, shown=shown)
                for name in (system, against)
            },
        }

    return {
        "system": system,
        "against": against,
        "metric": metric,
        "wins": [item(row) for row in worst_first(1)],
        "losses": [item(row) for row in worst_first(-1)],
    }


def _hits(
    ranking: Ranking, query_id: str, *, corpus: Corpus, grades: Mapping[str, int], shown: int
) -> list[dict[str, Any]]:
    scores = ranking.scores(query_id)[:shown].tolist()
    return [
        {**_passage(corpus, passage_id), "score": score, "grade": grades.get(passage_id)}
        for passage_id, score in zip(ranking.ids(query_id)[:shown], scores, strict=True)
    ]


def _passage(corpus: Corpus, passage_id: str) -> dict[str, Any]:
    row = corpus.index_of.get(passage_id)
    if row is None:
        return {"id": passage_id, "title": "", "text": None}
    title, text = _cut(corpus.titles[row], _TITLE), _cut(corpus.texts[row], CHARACTERS)
    return {"id": passage_id, "title": title, "text": text}


def _cut(text: str, most: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def separation(
    sides: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], *, bins: int = 40
) -> dict[str, dict[str, Any]]:
    """Histograms of the scores of relevant and of other passages; all sides share their edges.

    AUC is the chance that a positive scores above a negative, ties counted half: the Mann-Whitney U
    over the number of pairs (Hanley and McNeil 1982). It compares scores across queries, so it is about
    a threshold, not about rankings.

    Args:
        sides: Name, such as `base` and `tuned` -> scores of positives and of negatives, [n] and [m].
        bins: Bins between the lowest and the highest score of all sides.

    Returns:
        By side `edges` (bins + 1), `positive` and `negative` (counts), and `auc`, None where there is
        no positive or no negative.

    Raises:
        ConfigError: less than one bin.
        DataError: a score is not finite.
    """
    if bins < 1:
        raise ConfigError(f"bins: found {bins}; 1 or more is allowed")
    scores = {
        name: tuple(np.asarray(kind, np.float64).ravel() for kind in pair)
        for name, pair in sides.items()
    }
    for name, pair in scores.items():
        if bad := sum(int(np.count_nonzero(~np.isfinite(kind))) for kind in pair):
            raise DataError(f"{name}: {bad} scores are not finite numbers; nothing can be counted")
    every = [kind for pair in scores.values() for kind in pair if len(kind)]
    edges = np.histogram_bin_edges(np.concatenate(every) if every else np.zeros(0), bins=bins)
    return {
        name: {
            "edges": edges.tolist(),
            "positive": np.histogram(positive, edges)[0].tolist(),
            "negative": np.histogram(negative, edges)[0].tolist(),
            "auc": _auc(positive, negative),
        }
        for name, (positive, negative) in scores.items()
    }


def _auc(positive: Floats, negative: Floats) -> float | None:
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    below = ordered.searchsorted(positive, "left").sum()
    not_above = ordered.searchsorted(positive, "right").sum()
    return float((below + not_above) / 2.0 / (len(positive) * len(negative)))
