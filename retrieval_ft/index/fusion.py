"""Two rankings into one: reciprocal rank fusion and convex combination, as pure functions.

Both names mean different things in different engines, so each is defined where it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
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
Method = Literal["rrf", "convex"]
_METHODS: tuple[Method, ...] = ("rrf", "convex")
RRF_K = 60  # Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion", SIGIR 2009


@dataclass(frozen=True)
class FusionSpec:
    """How BM25 and dense results become one ranking.

    Attributes:
        method: "rrf" adds up reciprocal ranks, "convex" min-max scaled scores.
        dense_weight: weight of the dense side, in [0, 1]; BM25 gets `1 - dense_weight`. For "rrf",
            .5 is the usual unweighted form (scores are half of the usual, in the same order).

    Raises:
        ConfigError: the method is unknown, or the weight is out of [0, 1].
    """

    method: Method = "rrf"
    dense_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise ConfigError(
                f"unknown fusion method {self.method!r}; choose from {', '.join(_METHODS)}"
            )
        if not 0 <= self.dense_weight <= 1:
            raise ConfigError(f"dense_weight must lie in [0, 1], found {self.dense_weight}")

    def describe(self) -> str:
        """One line with what a hybrid figure depends on, to stand beside it."""
        name = f"RRF k={RRF_K}" if self.method == "rrf" else "convex (min-max per query)"
        return f"{name}, dense_weight {self.dense_weight:g}"


def depth_for(k: int) -> int:
    """Return how many hits each side gives to a fused top `k`: max(100, 4 k)."""
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
    sides = [
        (lexical[0], (1 - dense_weight) * _min_max(lexical[1])),
        (dense[0], dense_weight * _min_max(dense[1])),
    ]
    return _add_up(sides, limit=limit)


def fuse(lexical: Ranking, dense: Ranking, *, spec: FusionSpec, k: int) -> Ranking:
    """Fuse two rankings query by query, from the first `depth_for(k)` hits of each side.

    A query that one side lacks is ranked by the other alone; what a side holds beyond that depth
    changes nothing.

    Raises:
        ConfigError: `k` is below 1.
    """
    order.check_k(k)
    depth = depth_for(k)
    fused = {}
    for query_id in dict.fromkeys(chain(lexical.hits, dense.hits)):
        sides = [
            (side.ids(query_id)[:depth], side.scores(query_id)[:depth]) for side in (lexical, dense)
        ]
        if spec.method == "rrf":
            weights = (1 - spec.dense_weight, spec.dense_weight)
            fused[query_id] = rrf(sides, weights=weights, limit=k)
        else:
            fused[query_id] = convex(*sides, dense_weight=spec.dense_weight, limit=k)
    return Ranking(fused)


def _min_max(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    values = scores.astype(np.float64)
    if not values.size or values.min() == values.max():
        return np.ones(values.size)
    scaled: npt.NDArray[np.float64] = (values - values.min()) / (values.max() - values.min())
    return scaled


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
