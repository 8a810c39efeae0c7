"""Where the base hybrid would rank a passage if it held only its view: the round trip of a query.

A query taken from a passage stands in it, so ranking the passage itself proves nothing. Its view is
ranked in its place: against every other passage by cosine, by BM25, and by both (reciprocal rank
fusion, Cormack, Clarke and Buettcher, SIGIR 2009), as the hybrid index does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RRF_K = 60

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Rows of the corpus and the scores beside them, best first, as the indexes return them."""


@dataclass(frozen=True)
class Side:
    """What one ranker, dense or BM25, says of a block of queries."""

    rows: npt.NDArray[np.int64]
    """int64 [b, w]: its best passages, rows of the corpus, best first; -1 where it has fewer."""
    scores: npt.NDArray[np.float32]
    """float32 [b, w]: their scores."""
    view: npt.NDArray[np.float32]
    """float32 [b]: the score of each query's view, as if it were a passage of the corpus."""

    @classmethod
    def of(cls, found: Sequence[Found], view: npt.NDArray[np.float32], *, depth: int) -> Side:
        """Lay out search results, one a query, of which the first `depth + 1` are used.

        One more than the depth of fusion, because the passage that the view stands for is left out.
        """
        rows = np.full((len(found), depth + 1), -1, np.int64)
        scores = np.full((len(found), depth + 1), -np.inf, np.float32)
        for place, (best, beside) in enumerate(found):
            width = min(len(best), depth + 1)
            rows[place, :width], scores[place, :width] = best[:width], beside[:width]
        return cls(rows, scores, np.asarray(view, np.float32))


def hybrid_ranks(
    dense: Side, bm25: Side, *, passages: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Rank each query's view among the passages, its own left out.

    On each side the view's rank is 1 + the number of other passages that score higher; those that
    score no higher move down one. A side finds the view if that rank is within its depth, and BM25
    only if it scores above 0. Then both sides are added up: 1 / (60 + rank), nothing where absent.

    Args:
        dense: cosines.
        bm25: BM25 scores, with the statistics of the corpus as it is.
        passages: int64 [b], the row of the passage that each view stands for.

    Returns:
        float64 [b], 1 + the number of other passages with a higher sum, exactly as a hybrid search of
        that depth ranks them (a tie goes to the view); inf where neither side finds it.
    """
    dense_gain, dense_own = _gains(dense, passages, least=-np.inf)
    bm25_gain, bm25_own = _gains(bm25, passages, least=0.0)
    # float32, as the index has it: what it takes for a tie is one here.
    own = (dense_own + bm25_own).astype(np.float32)
    rows = np.hstack((dense.rows, bm25.rows))
    sums = _sums(rows, np.hstack((dense_gain, bm25_gain))).astype(np.float32)
    return np.where(own > 0, 1.0 + (sums > own[:, None]).sum(axis=1), np.inf)


def _gains(
    side: Side, passages: npt.NDArray[np.int64], *, least: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What a side adds to each of its passages (float64 [b, w]) and to the view (float64 [b])."""
    others = (side.rows >= 0) & (side.rows != passages[:, None])
    depth = side.rows.shape[1] - 1
    higher = others & (side.scores > side.view[:, None])
    own_rank = 1 + higher.sum(axis=1)
    found = (own_rank <= depth) & (side.view > least)
    rank = others.cumsum(axis=1) + (found[:, None] & ~higher)
    gain = np.where(others & (rank <= depth), 1 / (RRF_K + rank), 0.0)
    return gain, np.where(found, 1 / (RRF_K + own_rank), 0.0)


def _sums(rows: npt.NDArray[np.int64], gains: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Add up each passage's gains (float64 [b, 2 w], 0 in the places left over).

    Of equal rows, at most two to a query, the first place holds the sum.
    """
    order = np.argsort(rows, axis=1, kind="stable")
    rows, gains = np.take_along_axis(rows, order, 1), np.take_along_axis(gains, order, 1)
    twice = (rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] >= 0)
    gains[:, :-1] += np.where(twice, gains[:, 1:], 0.0)
    gains[:, 1:][twice] = 0.0
    return gains
