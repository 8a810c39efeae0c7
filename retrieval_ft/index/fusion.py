"""Two rankings into one: reciprocal rank fusion, convex combination and DBSF, as pure functions.

These names mean different things in different engines, so each is defined where it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset import Ranking
from retrieval_ft.errors import ConfigError
from retrieval_ft.index import order

Hits = tuple[tuple[str, ...], npt.NDArray[np.float32]]
"""Distinct passage ids and the scores beside them, best first: one query's entry in a Ranking."""
Method = Literal["rrf", "convex", "dbsf"]
RRF_K = 60  # Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009
_NAMES: dict[Method, str] = {
    "rrf": f"RRF k={RRF_K}",
    "convex": "convex (min-max per query)",
    "dbsf": "DBSF (mean +- 3 std per query)",
}


@dataclass(frozen=True)
class FusionSpec:
    """How BM25 and dense results become one ranking.

    Attributes:
        method: "rrf" adds up reciprocal ranks, "convex" min-max scaled scores, "dbsf" scores scaled
            by their mean and standard deviation.
        dense_weight: weight of the dense side, in [0, 1]; BM25 gets `1 - dense_weight`. For "rrf",
            .5 is the usual unweighted form (scores are half of the usual, in the same order).
        depth: how many hits each side gives, never fewer than `k`; None for `depth_for(k)`.

    Raises:
        ConfigError: the method is unknown, the weight is out of [0, 1], or the depth is below 1.
    """

    method: Method = "rrf"
    dense_weight: float = 0.5
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.method not in _NAMES:
            raise ConfigError(
                f"unknown fusion method {self.method!r}; choose from {', '.join(_NAMES)}"
            )
        if not 0 <= self.dense_weight <= 1:
            raise ConfigError(f"dense_weight must lie in [0, 1], found {self.dense_weight}")
        if self.depth is not None and self.depth < 1:
            raise ConfigError(f"the fusion depth must be at least 1, found {self.depth}")

    def depth_for(self, k: int) -> int:
        """Return how many hits each side gives to a fused top `k`; never fewer than `k`."""
        return depth_for(k) if self.depth is None else max(self.depth, k)

    def describe(self) -> str:
        """One line with what a hybrid figure depends on, to stand beside it."""
        depth = "" if self.depth is None else f", depth {self.depth}"
        return f"{_NAMES[self.method]}, dense_weight {self.dense_weight:g}{depth}"


def depth_for(k: int) -> int:
    """Return how many hits each side gives to a fused top `k` by default: max(100, 4 k)."""
    return max(100, 4 * k)


def rrf(
    rankings: Sequence[Hits],
    *,
    weights: Sequence[float],
    k: int = RRF_K,
    limit: int | None = None,
) -> Hits:
    """Fuse by rank: the sum of `weight / (k + rank)`, ranks from 1; absent adds nothing.

    Args:
        rankings: one query's hits from each side.
        weights: one a ranking; all equal gives the usual order.
        k: what dampens the first ranks.
        limit: return only the best so many.

    Returns:
        Ids and float32 scores, sorted by score, then by id.
    """
    sides = [
        (ids, weight / (k + np.arange(1, len(ids) + 1)))
        for (ids, _), weight in zip(rankings, weights, strict=True)
    ]
    return _add_up(sides, limit=limit)


def convex(lexical: Hits, dense: Hits, *, dense_weight: float, limit: int | None = None) -> Hits:
    """Fuse by score: `(1 - dense_weight) x lexical + dense_weight x dense`, each min-max scaled.

    Scaling is over the hits given: best 1, worst 0; all equal (or one alone) 1; absent 0.

    Args:
        lexical: one query's BM25 hits.
        dense: the same query's dense hits.
        dense_weight: weight of the dense side, in [0, 1].
        limit: return only the best so many.

    Returns:
        Ids and float32 scores in [0, 1], sorted by score, then by id.
    """
    return _scaled(lexical, dense, scale=_min_max, dense_weight=dense_weight, limit=limit)


def dbsf(lexical: Hits, dense: Hits, *, dense_weight: float, limit: int | None = None) -> Hits:
    """Distribution-based score fusion: as `convex`, but scaled by mean and standard deviation.

    Mean - 3 std becomes 0, mean + 3 std becomes 1, what lies beyond is clipped (Mazzeschi,
    "Distribution-Based Score Fusion", 2023); the standard deviation is the population's. Scaling is
    over the hits given: all equal (or one alone) .5, as a score at the mean; absent 0.

    Args:
        lexical: one query's BM25 hits.
        dense: the same query's dense hits.
        dense_weight: weight of the dense side, in [0, 1].
        limit: return only the best so many.

    Returns:
        Ids and float32 scores in [0, 1], sorted by score, then by id.
    """
    return _scaled(lexical, dense, scale=_three_sigma, dense_weight=dense_weight, limit=limit)


def fuse(lexical: Ranking, dense: Ranking, *, spec: FusionSpec, k: int) -> Ranking:
    """Fuse two rankings query by query, from the first `spec.depth_for(k)` hits of each side.

    A query that one side lacks is ranked by the other alone; what a side holds beyond that depth
    changes nothing.

    Raises:
        ConfigError: `k` is below 1.
    """
    order.check_k(k)
    depth, weight = spec.depth_for(k), spec.dense_weight
    fused = {}
    for query_id in dict.fromkeys(chain(lexical.hits, dense.hits)):
        sides = [
            (side.ids(query_id)[:depth], side.scores(query_id)[:depth]) for side in (lexical, dense)
        ]
        if spec.method == "rrf":
            fused[query_id] = rrf(sides, weights=(1 - weight, weight), limit=k)
        else:
            by_score = convex if spec.method == "convex" else dbsf
            fused[query_id] = by_score(*sides, dense_weight=weight, limit=k)
    return Ranking(fused)


_Scale = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def _scaled(
    lexical: Hits, dense: Hits, *, scale: _Scale, dense_weight: float, limit: int | None
) -> Hits:
    sides = [
        (ids, weight * scale(scores.astype(np.float64)))
        for (ids, scores), weight in ((lexical, 1 - dense_weight), (dense, dense_weight))
    ]
    return _add_up(sides, limit=limit)


def _min_max(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not values.size or values.min() == values.max():
        return np.ones(values.size)
    scaled: npt.NDArray[np.float64] = (values - values.min()) / (values.max() - values.min())
    return scaled


def _three_sigma(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not values.size or values.min() == values.max():
        return np.full(values.size, 0.5)
    scaled: npt.NDArray[np.float64] = 0.5 + (values - values.mean()) / (6 * values.std())
    return scaled.clip(0, 1)


def _add_up(
    sides: Sequence[tuple[tuple[str, ...], npt.NDArray[np.float64]]], *, limit: int | None
) -> Hits:
    """Sum values by id; sort by the float32 sum that is returned, then by id."""
    place = {i: n for n, i in enumerate(dict.fromkeys(chain.from_iterable(s[0] for s in sides)))}
    sums = np.zeros(len(place))
    for ids, values in sides:
        sums[np.fromiter(map(place.__getitem__, ids), np.int64, len(ids))] += values
    scores, names = sums.astype(np.float32), list(place)
    kept = order.candidates(scores, k=len(names) if limit is None else limit)
    ranked = sorted(zip((-scores[kept]).tolist(), (names[i] for i in kept), strict=True))[:limit]
    return tuple(name for _, name in ranked), -np.array([s for s, _ in ranked], np.float32)
