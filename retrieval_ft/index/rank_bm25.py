"""BM25 as rank_bm25 computes it, passage by passage: slow, and beyond doubt.

The impact matrix gives its numbers at a hundredth of its time; who wants to see that for himself, or
compare with figures that rank_bm25 made, asks for this engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft.index import order
from retrieval_ft.index.lexical import LexicalIndex, LexicalPart, Mask
from retrieval_ft.index.tokens import LexicalSpec

if TYPE_CHECKING:
    from rank_bm25 import BM25Okapi

Engine = Literal["impacts", "rank_bm25"]


class RankBm25(LexicalIndex):
    """A lexical index whose scores and searches are those of `rank_bm25.BM25Okapi`.

    Args:
        parts: the segments.
        spec: how texts are split and weighed.
        texts: of the live passages, segment by segment.
    """

    def __init__(
        self, parts: Sequence[LexicalPart], spec: LexicalSpec, texts: Sequence[str]
    ) -> None:
        super().__init__(parts, spec)
        tokens = spec.tokenize(texts)
        self._engine: BM25Okapi | None = None
        if any(tokens):  # else it would divide by zero
            from rank_bm25 import BM25Okapi

            self._engine = BM25Okapi(tokens, k1=spec.k1, b=spec.b, epsilon=spec.epsilon)

    @classmethod
    def build(cls, ids: Sequence[str], texts: Sequence[str], *, spec: LexicalSpec) -> RankBm25:
        """Index texts in memory, as `LexicalIndex.build`."""
        return cls(LexicalIndex.build(ids, texts, spec=spec).parts, spec, texts)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Score every passage for a query, float32 [n]; a deleted one has 0."""
        scores = np.zeros(len(self), np.float32)
        if self._engine is not None:
            scores[_mask(self.parts, None)] = self._engine.get_scores(
                self.spec.tokenize([query])[0]
            )
        return scores

    def search(
        self, queries: Sequence[str], *, k: int, allowed: Sequence[Mask | None] | None = None
    ) -> list[order.Found]:
        """As `LexicalIndex.search`."""
        order.check_k(k)
        mask, found = _mask(self.parts, allowed), []
        for query in queries:
            scores = self.scores(query)
            positions = np.flatnonzero((scores > 0) & mask)
            positions = positions[order.candidates(scores[positions], k=k)]
            names = self.ids.take(positions)
            rows = sorted(range(len(names)), key=lambda i: (-scores[positions[i]], names[i]))[:k]
            found.append((positions[rows], scores[positions[rows]]))
        return found


def _mask(parts: Sequence[LexicalPart], allowed: Sequence[Mask | None] | None) -> Mask:
    """The passages of all segments that may be found, bool [n]."""
    masks = allowed or [part.alive for part in parts]
    whole = [
        np.ones(len(part.ids), bool) if mask is None else mask
        for part, mask in zip(parts, masks, strict=True)
    ]
    return np.concatenate([np.zeros(0, bool), *whole])
