"""Dense search over segments: inner product of L2-normalised vectors, so scores are cosines.

Search is exact, by FAISS Flat, where a segment has no approximate index; where it has one, that
proposes and the vectors themselves decide, so a score is the same number either way. FAISS returns
ties in any order; they are put in order here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_ft.errors import DataError
from retrieval_ft.index import order
from retrieval_ft.index.strings import Ids, Joined
from retrieval_ft.index.vectors import (
    DenseSpec,
    Mask,
    Vectors,
    checked,
    fill,
    new_storage,
    selector,
)

if TYPE_CHECKING:
    from retrieval_ft.index.ann import Approximate

_SPARE = 32  # asked for beyond k, so that the usual tie at the k-th place is seen whole
_NARROW = 0.2
"""A filter that lets pass no more than this share is searched exactly: it would starve a graph."""
_FEW = 200_000
"""So is one that lets pass no more passages than this."""


@dataclass(frozen=True, eq=False)
class DensePart:
    """A segment as dense search sees it."""

    ids: Ids
    storage: Any
    """FAISS Flat or 8-bit scalar quantizer under inner product, [n, d]."""
    approximate: Approximate | None = None
    alive: Mask | None = None
    """Which passages live; None for all."""

    def search(self, rows: Vectors, *, k: int, allowed: Mask | None) -> list[order.Found]:
        """The best of the segment for each query, under its own positions."""
        count = len(self.ids) if allowed is None else int(np.count_nonzero(allowed))
        if not count:
            return [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in rows]
        narrow = allowed is not None and (count <= _FEW or count <= _NARROW * len(self.ids))
        if self.approximate is None or narrow:
            return self._exact(rows, k=k, fetch=k + _SPARE, allowed=allowed, count=count)
        proposed = self.approximate.candidates(rows, k=k, allowed=allowed)
        return [
            self._rescored(row, positions[positions >= 0], k=k)
            for row, positions in zip(rows, proposed, strict=True)
        ]

    def _rescored(self, row: Vectors, positions: npt.NDArray[np.int64], *, k: int) -> order.Found:
        scores = self.storage.reconstruct_batch(positions) @ row
        return order.best(positions, scores, ranks=self.ids.ranks, k=k)

    def _exact(
        self, rows: Vectors, *, k: int, fetch: int, allowed: Mask | None, count: int
    ) -> list[order.Found]:
        fetch = min(fetch, count)
        import faiss

        params = None if allowed is None else faiss.SearchParameters(sel=selector(allowed))
        scores, positions = self.storage.search(rows, fetch, params=params)
        found = [
            order.best(at[at >= 0], score[at >= 0], ranks=self.ids.ranks, k=k)
            for at, score in zip(positions, scores, strict=True)
        ]
        if fetch < count:
            cut = np.flatnonzero(scores[:, k - 1] == scores[:, -1])
            if cut.size:
                again = self._exact(rows[cut], k=k, fetch=4 * fetch, allowed=allowed, count=count)
                for row, hits in zip(cut, again, strict=True):
                    found[row] = hits
        return found


class DenseIndex:
    """Dense search over the live passages of some segments.

    A position counts through the segments, deleted passages included.

    Args:
        parts: the segments.
        spec: how their vectors are kept.
        dimension: width of the vectors that the encoder makes.
    """

    def __init__(self, parts: Sequence[DensePart], spec: DenseSpec, *, dimension: int) -> None:
        self.parts = tuple(parts)
        self.spec = spec
        self.dimension = dimension
        self.ids = Joined([part.ids for part in self.parts])
        """Passage ids by position."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def build(
        cls, ids: Sequence[str], vectors: Vectors, *, spec: DenseSpec | None = None
    ) -> DenseIndex:
        """Index vectors in memory, float32 [n, d], L2-normalised.

        Raises:
            DataError: ids and vectors differ in number, or a vector holds NaN or is not of length
                1 (within 1%); the message names its id.
        """
        spec = spec or DenseSpec()
        if len(ids) != len(vectors):
            raise DataError(f"cannot index {len(vectors)} vectors under {len(ids)} ids")
        rows = checked(vectors, names=ids)
        cut = spec.cut(rows)
        storage = new_storage(cut.shape[1], spec, sample=cut)
        fill(storage, cut)
        return cls([DensePart(Ids.of(ids), storage)], spec, dimension=rows.shape[1])

    def search(
        self, vectors: Vectors, *, k: int, allowed: Sequence[Mask | None] | None = None
    ) -> list[order.Found]:
        """Return for each query the positions (int64) and cosines (float32) of its best passages.

        Sorted by cosine, then by id, also where a tie straddles the k-th place: as long as the last
        score FAISS returns still equals the k-th, more is asked for. Equal means equal as FAISS
        computed it: the last bit of a cosine can depend on the size of the batch.

        Args:
            vectors: float32 [q, d], L2-normalised; q may be 0.
            k: how many to return; all where there are fewer.
            allowed: the passages of each segment that may be found, live ones only; None for all
                live ones.

        Raises:
            ConfigError: `k` is below 1.
            DataError: the dimension is not the index's, or a vector holds NaN or is not of length
                1; the message names its row.
        """
        order.check_k(k)
        if not len(vectors):
            return []
        rows = checked(vectors, names=None)
        if rows.shape[1] != self.dimension:
            raise DataError(
                f"the query vectors have {rows.shape[1]} dimensions, the index has "
                f"{self.dimension}; search with the model the index was built with"
            )
        rows = np.ascontiguousarray(self.spec.cut(rows))
        masks = allowed or [part.alive for part in self.parts]
        found = [
            part.search(rows, k=k, allowed=mask)
            for part, mask in zip(self.parts, masks, strict=True)
        ]
        return order.merge(found, ids=self.ids, queries=len(rows), k=k)
