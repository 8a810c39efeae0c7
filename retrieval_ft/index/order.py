"""One order for every ranking: score descending, then id ascending.

Selection is exact at the k-th place too: where equal scores straddle it, ids decide who is in, so a
ranking depends neither on the order of the corpus nor on a library's choice among ties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import ConfigError

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Positions in the index and the scores beside them, best first."""


def id_ranks(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the place of each id among the sorted ids, int64 [n]."""
    ranks = np.empty(len(ids), np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def check_k(k: int) -> None:
    """Refuse to look for less than one hit.

    Raises:
        ConfigError: `k` is below 1.
    """
    if k < 1:
        raise ConfigError(f"k = {k}: the number of hits to return must be at least 1")


def candidates(scores: npt.NDArray[np.float32], *, k: int) -> npt.NDArray[np.int64]:
    """Return the places in `scores` (float32 [m]) that score no less than the k-th best.

    More than `k` come back where the k-th score is tied; in no order.
    """
    if len(scores) <= k:
        return np.arange(len(scores))
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth)


def best(
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    *,
    ranks: npt.NDArray[np.int64],
    k: int,
) -> Found:
    """Return the `k` best of some positions, sorted by score, then by id.

    Args:
        positions: int64 [m], positions in the index.
        scores: float32 [m], the score of each.
        ranks: int64 [n], the rank of each position's id (`id_ranks`).
        k: how many to return; all where there are fewer.
    """
    kept = candidates(scores, k=k)
    positions, scores = positions[kept], scores[kept]
    order = np.lexsort((ranks[positions], -scores))[:k]
    return positions[order], scores[order]
