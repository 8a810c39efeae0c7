"""One order for every ranking: score descending, then id ascending.

Selection is exact at the k-th place too: where equal scores straddle it, ids decide who is in, so a
ranking depends neither on the order of the corpus nor on a library's choice among ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import ConfigError

if TYPE_CHECKING:
    from retrieval_ft.index.strings import Joined

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Positions in the index and the scores beside them, best first."""


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
        ranks: int64 [n], the rank of each position's id (`Ids.ranks`).
        k: how many to return; all where there are fewer.
    """
    kept = candidates(scores, k=k)
    positions, scores = positions[kept], scores[kept]
    order = np.lexsort((ranks[positions], -scores))[:k]
    return positions[order], scores[order]


def merge(
    found: Sequence[Sequence[Found]],
    *,
    ids: Joined,
    queries: int,
    k: int,
) -> list[Found]:
    """Put what each segment found for each query into one order.

    Args:
        found: by segment and query, under positions of the segment.
        ids: of the segments.
        queries: how many there are.
        k: how many to return; all where there are fewer.
    """
    if len(found) == 1:
        return list(found[0])
    none: Found = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    merged = []
    for query in range(queries):
        rows = [segment[query] for segment in found]
        scores = np.concatenate([none[1], *(row[1] for row in rows)])
        positions = np.concatenate(
            [none[0], *(row[0] + at for row, at in zip(rows, ids.begins, strict=False))]
        )
        names = ids.take(positions)
        kept = candidates(scores, k=k).tolist()
        best_first = sorted(kept, key=lambda i: (-scores[i], names[i]))[:k]
        merged.append((positions[best_first], scores[best_first]))
    return merged
