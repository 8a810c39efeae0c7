"""Exact nearest passages of many queries, by tiles over the given matrix and without a copy of it.

FAISS copies every vector that is added to an index: at a million passages that is the whole memory
that mining may take. Here passages are read once, a block at a time, so that they may lie on disk,
and what is kept between blocks is k numbers a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import DataError
from retrieval_ft.mining.candidates import IdOrder, Ints

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint64]

_PASSAGES, _QUERIES = 8_192, 256
"""Rows of a tile: its scores (8 MB) stay in the caches of the processor."""
_THREADS = 2
"""One multiplies, on all cores, while the other one merges."""
_GROUP = 16
"""Scores of which only the greatest counts in the first look at a tile."""
_LOW = np.uint64(0xFFFF_FFFF)
_EMPTY = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def exact_top_k(
    queries: Floats, passages: Floats, *, ids: Sequence[str], k: int
) -> tuple[Ints, Floats]:
    """Find the k passages with the greatest inner product for each query.

    Sorted by score, then by id, also where a tie straddles the k-th place. Equal means equal as
    computed: the last bit of a product can depend on the place of a row in its tile.

    Args:
        queries: float32 [q, d].
        passages: float32 [p, d]; may be a `np.memmap`.
        ids: of the passages, distinct; they settle ties.
        k: how many to find; where there are fewer passages the rest is padding.

    Returns:
        Rows of `passages`, int64 [q, k], -1 where there is none; and scores, float32 [q, k], -inf
        where there is none.

    Raises:
        DataError: vectors of queries and passages differ in width, or one holds NaN or infinity.
    """
    if queries.shape[1] != passages.shape[1]:
        raise DataError(
            f"the query vectors have {queries.shape[1]} dimensions, the passage vectors "
            f"{passages.shape[1]}; encode both with one model"
        )
    _check_finite(queries, first=0, what="query")
    order = IdOrder.of(ids)
    best = np.full((len(queries), k), _EMPTY)
    tiles = [slice(first, first + _QUERIES) for first in range(0, len(queries), _QUERIES)]
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(passages) if k else 0, _PASSAGES):
            rows = np.array(passages[start : start + _PASSAGES], np.float32)
            _check_finite(rows, first=start, what="passage")
            block, places = _Block(rows), order.places[start : start + len(rows)]
            list(pool.map(partial(_search, best, queries, block, places), tiles))
    places = np.minimum(best & _LOW, np.uint64(len(ids))).astype(np.int64)
    return order.rows[places], _scores(best)


def _search(best: Keys, queries: Floats, block: _Block, places: Ints, tile: slice) -> None:
    _merge(best[tile], block.scores(queries[tile]), places)


def _merge(best: Keys, scores: Floats, places: Ints) -> None:
    """Take a tile's scores, float32 [q, n], into the k best keys of each query, uint64 [q, k]."""
    k = best.shape[1]
    least = _scores(best[:, -1])
    if not np.isfinite(least).all():
        least = np.maximum(least, _kth_at_least(scores, k))
    flat = np.flatnonzero(scores >= least[:, None])
    if not flat.size:
        return
    rows, columns = np.divmod(flat, scores.shape[1])
    found = _keys(scores.ravel()[flat], places[columns])
    counts = np.bincount(rows, minlength=len(scores))
    ends = np.cumsum(counts)
    wide = np.full((len(scores), k + int(counts.max())), _EMPTY)
    wide[:, :k] = best
    wide[rows, k + np.arange(len(rows)) - (ends - counts)[rows]] = found
    wide.sort(axis=1)
    best[:] = wide[:, :k]


def _kth_at_least(scores: Floats, k: int) -> Floats:
    """A bound below the k-th greatest score of each row: the k-th greatest maximum of groups."""
    groups = scores.shape[1] // _GROUP
    if groups < k:
        return np.full(len(scores), -np.inf, np.float32)
    greatest = scores[:, : groups * _GROUP].reshape(len(scores), _GROUP, groups).max(axis=1)
    greatest.partition(groups - k, axis=1)
    kth: Floats = greatest[:, groups - k]
    return kth


def _keys(scores: Floats, places: Ints) -> Keys:
    """One number for score and id, the smaller the better."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (~ascending).astype(np.uint64) << np.uint64(32) | places.astype(np.uint64)


def _scores(keys: Keys) -> Floats:
    """The scores that `_keys` put in; -inf where there is none."""
    ascending = ~(keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(ascending >> 31, ascending ^ np.uint32(1 << 31), ~ascending)
    return np.where(keys == _EMPTY, -np.inf, bits.view(np.float32)).astype(np.float32)


class _Block:
    """A block of passages, to be multiplied by queries.

    oneDNN multiplies float32 at twice the speed of what torch and numpy bring for it on AMD (225
    against 105 GFLOPS a core of Zen 5). Its numbers differ by 3e-7 at most.
    """

    def __init__(self, passages: Floats) -> None:
        import torch

        self._passages: torch.Tensor = torch.from_numpy(passages)
        if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            self._passages = self._passages.to_mkldnn()

    def scores(self, queries: Floats) -> Floats:
        """Inner products, float32 [queries, passages]."""
        import torch
        from torch.nn.functional import linear

        asked = torch.from_numpy(np.ascontiguousarray(queries))
        with torch.inference_mode():
            if self._passages.is_mkldnn:
                return linear(asked.to_mkldnn(), self._passages).to_dense().numpy()
            return linear(asked, self._passages).numpy()


def _check_finite(vectors: Floats, *, first: int, what: str) -> None:
    if not np.isfinite(vectors.sum(dtype=np.float64)):
        row = first + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise DataError(f"the vector of {what} {row} holds NaN or infinity; encode it again")
