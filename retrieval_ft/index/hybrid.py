"""A hybrid index: BM25, dense vectors and passages of one corpus, bound to one encoder.

This is the handle that is searched: a generation as it was when it was opened, in memory or mapped
from a directory (`store.py`). It never changes; `writer.py` makes the next generation.

Vectors of another encoder would give plausible, wrong answers; hence its fingerprint is stored and
compared at every search.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset import Corpus, Queries, Ranking
from retrieval_ft.errors import ConfigError, DataError
from retrieval_ft.index import filters, making, order, store
from retrieval_ft.index.dense import DenseIndex
from retrieval_ft.index.filters import Filter
from retrieval_ft.index.fusion import FusionSpec, fuse
from retrieval_ft.index.lexical import LexicalIndex
from retrieval_ft.index.passages import Passage
from retrieval_ft.index.rank_bm25 import RankBm25
from retrieval_ft.index.segment import Live
from retrieval_ft.index.spec import IndexSpec
from retrieval_ft.index.strings import Joined
from retrieval_ft.index.vectors import Mask

Mode = Literal["hybrid", "dense", "bm25"]


@dataclass(frozen=True)
class Hit:
    """One passage found: what it says, and what each side thought of it.

    Ranks count from 1. A side's rank and score are None where it was not asked, or where the
    passage is not among its first `FusionSpec.depth_for(k)`.
    """

    id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any]
    bm25_rank: int | None
    bm25_score: float | None
    dense_rank: int | None
    dense_score: float | None
    rerank_score: float | None = None
    """Of the cross-encoder, where one was asked: it has the last word, `score` is what fusion gave."""


class HybridIndex:
    """BM25 and dense index of one corpus, and how their results are fused.

    Args:
        spec: what the index is.
        lives: its segments and which of their passages live.
        folder: where it stands; None in memory.
        generation: which of the folder it is.
    """

    def __init__(
        self,
        spec: IndexSpec,
        lives: Sequence[Live],
        *,
        folder: Path | None = None,
        generation: int = 0,
    ) -> None:
        self.spec = spec
        self.lives = tuple(lives)
        self.folder = folder
        self.generation = generation
        self.lexical = LexicalIndex([live.lexical for live in lives], spec.lexical)
        self.dense = DenseIndex(
            [live.dense for live in lives], spec.dense, dimension=spec.dimension
        )
        self._narrowed: Filter | None = None
        self._tenant = False

    def __len__(self) -> int:
        return sum(map(len, self.lives))

    @classmethod
    def build(
        cls,
        corpus: Corpus,
        vectors: npt.NDArray[np.float32],
        *,
        spec: IndexSpec,
        queries: npt.NDArray[np.float32] | None = None,
    ) -> HybridIndex:
        """Index a corpus and the vectors of its passages, in memory.

        Args:
            corpus: BM25 reads `corpus.passages` (title and text).
            vectors: float32 [n, d], L2-normalised, in the corpus' order.
            spec: what the index is; `spec.dimension` is d.
            queries: float32 [q, d], L2-normalised: real queries that an approximate index is tuned
                and measured on; a sample of the passages where there are none.

        Raises:
            DataError: an id stands twice or is none, the vectors do not fit the corpus, or an
                approximate index does not reach `spec.ann.min_recall`.
        """
        live = Live(making.segment(corpus, vectors, spec=spec, queries=queries))
        return cls(spec, [live] if len(live) else [])

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True) -> HybridIndex:
        """Open the current generation of an index folder.

        Args:
            folder: what `save` wrote.
            verify: compare the sha256 of every file (the manifest's own is always compared).

        Raises:
            DataError: no index is there, it is of another kind or version, or a file is missing or
                damaged; the message names the file.
        """
        generation, lives = store.open_current(folder, check=verify)
        spec = IndexSpec.of(generation.manifest["spec"])
        return cls(spec, lives, folder=folder, generation=generation.number)

    def save(self, folder: Path) -> None:
        """Write the index as a folder of one generation, in the place of an older one.

        Raises:
            DataError: another process writes to it, or what stands there is no index.
        """
        from retrieval_ft.index.writer import create

        create(folder, self)

    def with_fusion(self, fusion: FusionSpec) -> Self:
        """The same index under another fusion."""
        other = copy.copy(self)
        other.spec = replace(self.spec, fusion=fusion)
        return other

    def with_rank_bm25(self) -> Self:
        """The same index with BM25 by rank_bm25 itself, over the live passages; it reads them all."""
        other = copy.copy(self)
        texts = [p.whole for live in self.lives for p in live.segment.passages.live(live.alive)]
        other.lexical = RankBm25(self.lexical.parts, self.spec.lexical, texts)
        return other

    def narrowed(self, where: Filter) -> Self:
        """A handle that finds only what passes a filter, whatever is asked of it later."""
        other = copy.copy(self)
        other._narrowed = self._both(where)
        return other

    def for_tenant(self, value: str | int) -> Self:
        """The handle of one tenant of an index that keeps them apart (`IndexSpec.tenant_key`).

        Raises:
            ConfigError: the index has no tenants.
        """
        if self.spec.tenant_key is None:
            raise ConfigError(
                "this index keeps no tenants apart; it was built without a tenant key"
            )
        other = self.narrowed(filters.parse({self.spec.tenant_key: {"$eq": value}}))
        other._tenant = True
        return other

    def passage(self, passage_id: str) -> Passage | None:
        """A live passage by its id; None where there is none, or the handle must not see it."""
        allowed = self._allowed(None)
        for at, live in enumerate(self.lives):
            position = live.find(passage_id)
            if position is not None and (allowed is None or allowed[at][position]):
                return live.segment.passages[position]
        return None

    def matching(self, where: Filter) -> list[str]:
        """Ids of the passages that pass a filter, in the order of the segments."""
        masks = self._allowed(where) or []
        return [
            passage_id
            for live, mask in zip(self.lives, masks, strict=True)
            for passage_id in live.segment.ids.take(np.flatnonzero(mask))
        ]

    def rank(
        self,
        queries: Queries,
        vectors: npt.NDArray[np.float32] | None,
        *,
        k: int,
        mode: Mode = "hybrid",
        where: Filter | None = None,
    ) -> Ranking:
        """Rank passages for queries, best first, at most `k` each.

        The caller answers for the vectors' encoder: see `IndexSpec.check_encoder`, which `search`
        calls.

        Args:
            queries: their texts go to BM25.
            vectors: float32 [q, d], L2-normalised; None only where mode is "bm25".
            k: hits a query.
            mode: "hybrid" fuses both sides under the index's fusion.
            where: passages that may be found; exact, whatever share it lets pass.

        Raises:
            ConfigError: `k` is below 1, or the index keeps tenants apart and this handle is of none.
            DataError: the vectors do not fit the queries or the index.
        """
        return self._ranked(queries, vectors, k=k, mode=mode, where=where)[0]

    def search(
        self,
        texts: Sequence[str],
        vectors: npt.NDArray[np.float32] | None,
        *,
        encoder_fingerprint: str | None,
        k: int,
        mode: Mode = "hybrid",
        where: Filter | None = None,
    ) -> list[list[Hit]]:
        """Find passages for query texts; one list of hits a text, best first.

        Args:
            texts: the queries.
            vectors: float32 [q, d], L2-normalised; None only where mode is "bm25".
            encoder_fingerprint: of the encoder that made `vectors`; not looked at for "bm25".
            k: hits a query; fewer where fewer match.
            mode: "hybrid" fuses both sides under the index's fusion.
            where: passages that may be found; exact, whatever share it lets pass.

        Raises:
            ConfigError: `k` is below 1, or the index keeps tenants apart and this handle is of none.
            DataError: another encoder, or vectors that do not fit the texts or the index.
        """
        if mode != "bm25":
            self.spec.check_encoder(encoder_fingerprint, what="queries")
        queries = Queries(tuple(map(str, range(len(texts)))), tuple(texts))
        rankings = self._ranked(queries, vectors, k=k, mode=mode, where=where)
        return [self._hits(query_id, *rankings) for query_id in queries.ids]

    def _ranked(
        self,
        queries: Queries,
        vectors: npt.NDArray[np.float32] | None,
        *,
        k: int,
        mode: Mode,
        where: Filter | None,
    ) -> tuple[Ranking, Ranking, Ranking]:
        """Return the ranking asked for, and those of BM25 and dense that it was made from."""
        order.check_k(k)
        depth = self.spec.fusion.depth_for(k) if mode == "hybrid" else k
        allowed = self._allowed(where)
        lexical, dense = Ranking({}), Ranking({})
        if mode != "dense":
            lexical = rank_lexical(self.lexical, queries, k=depth, allowed=allowed)
        if mode != "bm25":
            if vectors is None:
                raise DataError(f"mode {mode!r} needs query vectors; only 'bm25' does without")
            dense = rank_dense(self.dense, queries, vectors, k=depth, allowed=allowed)
        if mode == "hybrid":
            return fuse(lexical, dense, spec=self.spec.fusion, k=k), lexical, dense
        return (lexical if mode == "bm25" else dense), lexical, dense

    def _allowed(self, where: Filter | None) -> list[Mask] | None:
        """The live passages of each segment that a filter and the handle let pass; None for all."""
        if self.spec.tenant_key is not None and not self._tenant:
            raise ConfigError(
                f"this index keeps tenants apart by {self.spec.tenant_key!r}: open it for one, with "
                "for_tenant(VALUE) or --tenant VALUE"
            )
        combined = self._both(where)
        if combined is None:
            return None
        masks = []
        for live in self.lives:
            mask = combined.allowed(live.segment.fields)
            masks.append(mask if live.alive is None else mask & live.alive)
        return masks

    def _both(self, where: Filter | None) -> Filter | None:
        """What the handle is narrowed to, and a further filter."""
        if self._narrowed is None or where is None:
            return self._narrowed or where
        return filters.both(self._narrowed, where)

    def _hits(self, query_id: str, ranking: Ranking, lexical: Ranking, dense: Ranking) -> list[Hit]:
        bm25, cosine = _places(lexical, query_id), _places(dense, query_id)
        hits = []
        for passage_id, score in zip(ranking.ids(query_id), ranking.scores(query_id), strict=True):
            found = (live.segment.passages[at] for live in self.lives
                     if (at := live.find(passage_id)) is not None)  # fmt: skip
            passage = next(found)
            bm25_rank, bm25_score = bm25.get(passage_id, (None, None))
            dense_rank, dense_score = cosine.get(passage_id, (None, None))
            hits.append(
                Hit(
                    id=passage_id,
                    score=float(score),
                    title=passage.title,
                    text=passage.text,
                    metadata=passage.metadata,
                    bm25_rank=bm25_rank,
                    bm25_score=bm25_score,
                    dense_rank=dense_rank,
                    dense_score=dense_score,
                )
            )
        return hits


def rank_lexical(
    index: LexicalIndex, queries: Queries, *, k: int, allowed: Sequence[Mask | None] | None = None
) -> Ranking:
    """Rank passages by BM25, at most `k` a query; a query without hits is there, empty.

    Raises:
        ConfigError: `k` is below 1.
    """
    return _ranking(index.ids, queries, index.search(queries.texts, k=k, allowed=allowed))


def rank_dense(
    index: DenseIndex,
    queries: Queries,
    vectors: npt.NDArray[np.float32],
    *,
    k: int,
    allowed: Sequence[Mask | None] | None = None,
) -> Ranking:
    """Rank passages by cosine, at most `k` a query; `vectors` is float32 [q, d], L2-normalised.

    Raises:
        ConfigError: `k` is below 1.
        DataError: the vectors do not fit the queries or the index.
    """
    if len(queries) != len(vectors):
        raise DataError(f"{len(queries)} queries came with {len(vectors)} vectors; one each")
    return _ranking(index.ids, queries, index.search(vectors, k=k, allowed=allowed))


def _ranking(ids: Joined, queries: Queries, found: Sequence[order.Found]) -> Ranking:
    return Ranking(
        {
            query_id: (tuple(ids.take(positions)), scores)
            for query_id, (positions, scores) in zip(queries.ids, found, strict=True)
        }
    )


def _places(ranking: Ranking, query_id: str) -> dict[str, tuple[int, float]]:
    ranked = zip(ranking.ids(query_id), ranking.scores(query_id).tolist(), strict=True)
    return {passage_id: (n, score) for n, (passage_id, score) in enumerate(ranked, start=1)}
