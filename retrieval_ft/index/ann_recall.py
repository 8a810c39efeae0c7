"""How hard an approximate index has to look: the cheapest search whose recall is enough.

Recall is measured as users meet it: candidates are scored against the exact vectors, so what counts
is whether the exact best are among those proposed, not how the index ranks them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.index.ann_choice import Kind
from retrieval_ft.index.vectors import Vectors, selector

Positions = npt.NDArray[np.int64]

MEASURED_QUERIES = 200
"""Queries that a recall is measured on at most."""
DEPTH = 100  # hits that recall is measured for; what fusion takes from each side
_TOP = 10
_FEW_LISTS = 64
_LONGEST_QUEUE = 1024
_TIE = 1e-6  # two float32 sums of the same products differ by less
_OVERSAMPLES: dict[Kind, tuple[int, ...]] = {
    "hnsw": (1,),
    "ivf-flat": (1,),  # its order is the exact one
    "ivf-sq8": (2,),
    "ivf-rabitq": (2, 4, 8, 16),
}


@dataclass(frozen=True)
class Reached:
    """What one way to search comes to.

    Attributes:
        effort: lists probed a query (nprobe), or the length of the graph's queue (efSearch).
        oversample: candidates proposed for each hit wanted.
        recall_at_10: share of the exact first 10 that are proposed; a tie with the tenth counts.
        recall_at_100: the same for the first 100.
    """

    effort: int
    oversample: int
    recall_at_10: float
    recall_at_100: float


def search(
    index: Any,
    kind: Kind,
    queries: Vectors,
    *,
    k: int,
    effort: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> Positions:
    """Return the positions the FAISS index proposes, int64 [q, k], -1 where there are no more."""
    import faiss

    chosen = selector(allowed)
    if kind == "hnsw":
        parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=chosen)
    else:
        parameters = faiss.SearchParametersIVF(nprobe=effort, sel=chosen)
    if kind == "ivf-rabitq":
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    rows = np.ascontiguousarray(queries, dtype=np.float32)
    positions: Positions = index.search(rows, k, params=parameters)[1]
    return positions


def cheapest(
    index: Any, kind: Kind, vectors: Vectors, queries: Vectors, *, min_recall: float
) -> Reached:
    """Return the cheapest search that is good enough, or else the best there is.

    Good enough is a fifth fewer misses at 10 than `min_recall` allows, since other queries will do
    worse than those that the choice was made on. Cheap is by bytes read: codes of the lists
    probed, and the exact vectors of the candidates.

    Args:
        index: the filled FAISS index.
        kind: its kind.
        vectors: float32 [n, d], what it holds; may be a read-only map.
        queries: float32 [q, d] to measure on.
        min_recall: in [0, 1].
    """
    import faiss

    target = min_recall + (1 - min_recall) / 5
    depth = min(DEPTH, len(vectors))
    exact, _ = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
    oversamples = _OVERSAMPLES[kind]
    wanted = min(DEPTH * oversamples[-1], len(vectors))
    tried: list[Reached] = []
    enough: dict[float, Reached] = {}
    for effort in _efforts(index, kind):
        if enough and _bytes_read(index, kind, effort, oversamples[0]) >= min(enough):
            break
        proposed = search(index, kind, queries, k=wanted, effort=effort)
        scores = _scores(vectors, queries, proposed)
        for oversample in oversamples:
            seen = scores[:, : DEPTH * oversample]
            at_10, at_100 = _recall(seen, exact[:, :_TOP]), _recall(seen, exact)
            tried.append(Reached(effort, oversample, at_10, at_100))
            if at_10 >= target:
                enough[_bytes_read(index, kind, effort, oversample)] = tried[-1]
    return enough[min(enough)] if enough else max(tried, key=lambda found: found.recall_at_10)


def _efforts(index: Any, kind: Kind) -> Iterator[int]:
    """Yield efforts to try, each up to half as large again as the one before."""
    import faiss

    effort, last = DEPTH, _LONGEST_QUEUE  # FAISS lifts a shorter queue to the candidates wanted
    if kind != "hnsw":
        lists = faiss.extract_index_ivf(index).nlist
        # Who reads over a quarter of the vectors can as well read them all, and be exact.
        effort, last = 1, max(lists // 4, min(lists, _FEW_LISTS))
    while effort < last:
        yield effort
        effort += max(1, effort // 2)
    yield last


def _bytes_read(index: Any, kind: Kind, effort: int, oversample: int) -> float:
    import faiss

    row = 4 * index.d
    rescored = DEPTH * oversample * row
    if kind == "hnsw":
        return float(effort * row + rescored)
    ivf = faiss.extract_index_ivf(index)
    return float(effort * index.ntotal / ivf.nlist * ivf.code_size + rescored)


def _scores(vectors: Vectors, queries: Vectors, positions: Positions) -> Vectors:
    """Return exact inner products, float32 [q, m]; -inf where a position is -1."""
    scores = np.full(positions.shape, -np.inf, np.float32)
    for query, row, out in zip(queries, positions, scores, strict=True):
        found = row >= 0
        out[found] = vectors[row[found]] @ query
    return scores


def _recall(scores: Vectors, exact: Vectors) -> float:
    """Return the share of the exact best that `scores` holds, by score as ties are as good.

    So does ANN-Benchmarks (Aumueller, Bernhardsson and Faithfull, 2018): what counts is a distance
    no worse than the k-th, not one of several equal neighbours.
    """
    top = exact.shape[1]
    hits = (scores >= exact[:, -1:] - _TIE).sum(axis=1)
    return float(np.minimum(hits, top).mean() / top)
