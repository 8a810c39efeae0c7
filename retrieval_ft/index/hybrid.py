"""A hybrid index: BM25, dense vectors and passages in one sealed folder, bound to one encoder.

    DIR/manifest.json   encoder, specs, counts, sha256 of every file and of the manifest itself
    DIR/corpus.jsonl    what a hit shows
    DIR/lexical/        impact matrix, vocabulary, spec
    DIR/dense/          FAISS Flat index, ids

Vectors of another encoder would give plausible, wrong answers; hence its fingerprint is stored and
compared at every search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retrieval_ft import artifacts
from retrieval_ft.dataset import Corpus, Queries, Ranking, beir
from retrieval_ft.errors import DataError
from retrieval_ft.index.dense import FACTORY, DenseIndex
from retrieval_ft.index.fusion import FusionSpec, depth_for, fuse
from retrieval_ft.index.lexical import LexicalIndex, LexicalSpec
from retrieval_ft.index.order import Found

Mode = Literal["hybrid", "dense", "bm25"]
KIND = "hybrid-index"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Hit:
    """One passage found: what it says, and what each side thought of it.

    Ranks count from 1. A side's rank and score are None where it was not asked, or where the
    passage is not among its first `depth_for(k)`.
    """

    id: str
    score: float
    title: str
    text: str
    bm25_rank: int | None
    bm25_score: float | None
    dense_rank: int | None
    dense_score: float | None


@dataclass(frozen=True, eq=False)
class HybridIndex:
    """BM25 and dense index of one corpus, and how their results are fused.

    `dataclasses.replace(index, fusion=...)` gives the same index under another fusion.
    """

    corpus: Corpus
    lexical: LexicalIndex
    dense: DenseIndex
    fusion: FusionSpec
    encoder_fingerprint: str
    encoder_path: str
    """Where the encoder was when the index was built; for messages, may be relative."""

    def __post_init__(self) -> None:
        distinct = len(self.corpus.index_of)
        if distinct != len(self.corpus):
            raise DataError(
                f"the corpus holds {len(self.corpus)} passages under {distinct} ids; "
                "ids must be unique"
            )
        if not self.corpus.ids == self.lexical.ids == self.dense.ids:
            raise DataError(
                f"the corpus ({len(self.corpus)} passages), its BM25 index ({len(self.lexical)}) "
                f"and its dense index ({len(self.dense)}) do not hold the same ids in one order"
            )

    @classmethod
    def build(
        cls,
        corpus: Corpus,
        vectors: npt.NDArray[np.float32],
        *,
        encoder_fingerprint: str,
        encoder_path: str,
        lexical: LexicalSpec | None = None,
        fusion: FusionSpec | None = None,
    ) -> HybridIndex:
        """Index a corpus and the vectors of its passages.

        Args:
            corpus: BM25 reads `corpus.passages` (title and text).
            vectors: float32 [n, d], L2-normalised, in the corpus' order.
            encoder_fingerprint: of the encoder that made the vectors.
            encoder_path: where that encoder is.
            lexical: how BM25 splits and weighs; its defaults where None.
            fusion: its defaults where None.

        Raises:
            DataError: an id stands twice, or the vectors do not fit the corpus.
        """
        return cls(
            corpus=corpus,
            lexical=LexicalIndex.build(
                corpus.ids, corpus.passages, spec=LexicalSpec() if lexical is None else lexical
            ),
            dense=DenseIndex.build(corpus.ids, vectors),
            fusion=FusionSpec() if fusion is None else fusion,
            encoder_fingerprint=encoder_fingerprint,
            encoder_path=encoder_path,
        )

    def check_encoder(self, fingerprint: str | None) -> None:
        """Refuse vectors of any encoder but the index's own.

        Raises:
            DataError: the fingerprint is another; both are named, and what to do.
        """
        if fingerprint != self.encoder_fingerprint:
            raise DataError(
                f"the queries were encoded by model {(fingerprint or 'unknown')[:12]}, the index "
                f"was built with {self.encoder_fingerprint[:12]} ({self.encoder_path}); load that "
                "model, or build the index again with yours"
            )

    def rank(
        self,
        queries: Queries,
        vectors: npt.NDArray[np.float32] | None,
        *,
        k: int,
        mode: Mode = "hybrid",
    ) -> Ranking:
        """Rank passages for queries, best first, at most `k` each.

        The caller answers for the vectors' encoder: see `check_encoder`, which `search` calls.

        Args:
            queries: their texts go to BM25.
            vectors: float32 [q, d], L2-normalised; None only where mode is "bm25".
            k: hits a query.
            mode: "hybrid" fuses both sides under `fusion`.

        Raises:
            ConfigError: `k` is below 1.
            DataError: the vectors do not fit the queries or the index.
        """
        return self._ranked(queries, vectors, k=k, mode=mode)[0]

    def search(
        self,
        texts: Sequence[str],
        vectors: npt.NDArray[np.float32] | None,
        *,
        encoder_fingerprint: str | None,
        k: int,
        mode: Mode = "hybrid",
    ) -> list[list[Hit]]:
        """Find passages for query texts; one list of hits a text, best first.

        Args:
            texts: the queries.
            vectors: float32 [q, d], L2-normalised; None only where mode is "bm25".
            encoder_fingerprint: of the encoder that made `vectors`; not looked at for "bm25".
            k: hits a query; fewer where fewer match.
            mode: "hybrid" fuses both sides under `fusion`.

        Raises:
            ConfigError: `k` is below 1.
            DataError: another encoder, or vectors that do not fit the texts or the index.
        """
        if mode != "bm25":
            self.check_encoder(encoder_fingerprint)
        queries = Queries(tuple(map(str, range(len(texts)))), tuple(texts))
        rankings = self._ranked(queries, vectors, k=k, mode=mode)
        return [self._hits(query_id, *rankings) for query_id in queries.ids]

    def _ranked(
        self,
        queries: Queries,
        vectors: npt.NDArray[np.float32] | None,
        *,
        k: int,
        mode: Mode,
    ) -> tuple[Ranking, Ranking, Ranking]:
        """Return the ranking asked for, and those of BM25 and dense that it was made from."""
        depth = depth_for(k) if mode == "hybrid" else k
        lexical, dense = Ranking({}), Ranking({})
        if mode != "dense":
            lexical = rank_lexical(self.lexical, queries, k=depth)
        if mode != "bm25":
            if vectors is None:
                raise DataError(f"mode {mode!r} needs query vectors; only 'bm25' does without")
            dense = rank_dense(self.dense, queries, vectors, k=depth)
        if mode == "hybrid":
            return fuse(lexical, dense, spec=self.fusion, k=k), lexical, dense
        return (lexical if mode == "bm25" else dense), lexical, dense

    def _hits(self, query_id: str, ranking: Ranking, lexical: Ranking, dense: Ranking) -> list[Hit]:
        bm25, cosine = _places(lexical, query_id), _places(dense, query_id)
        hits = []
        for passage_id, score in zip(ranking.ids(query_id), ranking.scores(query_id), strict=True):
            at = self.corpus.index_of[passage_id]
            bm25_rank, bm25_score = bm25.get(passage_id, (None, None))
            dense_rank, dense_score = cosine.get(passage_id, (None, None))
            hits.append(
                Hit(
                    id=passage_id,
                    score=float(score),
                    title=self.corpus.titles[at],
                    text=self.corpus.texts[at],
                    bm25_rank=bm25_rank,
                    bm25_score=bm25_score,
                    dense_rank=dense_rank,
                    dense_score=dense_score,
                )
            )
        return hits

    def save(self, folder: Path) -> None:
        """Write the index as a sealed folder that takes the place of an older one in one step."""
        with artifacts.atomic_folder(folder) as new:
            beir.write_corpus(new / "corpus.jsonl", self.corpus)
            self.lexical.save(new / "lexical")
            self.dense.save(new / "dense")
            artifacts.seal(new, self._facts())

    def _facts(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "encoder_fingerprint": self.encoder_fingerprint,
            "encoder_path": self.encoder_path,
            "lexical": asdict(self.lexical.spec),
            "fusion": asdict(self.fusion),
            "counts": {
                "passages": len(self.corpus),
                "terms": len(self.lexical.vocabulary),
                "postings": len(self.lexical.passages),
            },
            "dimension": self.dense.dimension,
            "faiss_factory": FACTORY,
        }

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True) -> HybridIndex:
        """Read an index folder.

        Args:
            folder: what `save` wrote.
            verify: compare the sha256 of every file (the manifest's own is always compared).

        Raises:
            DataError: no index is there, it is of another kind or version, or a file is missing or
                damaged; the message names the file.
        """
        manifest = _manifest(folder)
        if verify:
            artifacts.verify(folder, what="index")
        return cls(
            corpus=beir.read_corpus(folder / "corpus.jsonl", minimum=0),
            lexical=LexicalIndex.load(folder / "lexical"),
            dense=DenseIndex.load(folder / "dense"),
            fusion=FusionSpec(**manifest["fusion"]),
            encoder_fingerprint=manifest["encoder_fingerprint"],
            encoder_path=manifest["encoder_path"],
        )


def rank_lexical(index: LexicalIndex, queries: Queries, *, k: int) -> Ranking:
    """Rank passages by BM25, at most `k` a query; a query without hits is there, empty.

    Raises:
        ConfigError: `k` is below 1.
    """
    return _ranking(index.ids, queries, index.search(queries.texts, k=k))


def rank_dense(
    index: DenseIndex, queries: Queries, vectors: npt.NDArray[np.float32], *, k: int
) -> Ranking:
    """Rank passages by cosine, at most `k` a query; `vectors` is float32 [q, d], L2-normalised.

    Raises:
        ConfigError: `k` is below 1.
        DataError: the vectors do not fit the queries or the index.
    """
    if len(queries) != len(vectors):
        raise DataError(f"{len(queries)} queries came with {len(vectors)} vectors; one each")
    return _ranking(index.ids, queries, index.search(vectors, k=k))


def _ranking(ids: Sequence[str], queries: Queries, found: Sequence[Found]) -> Ranking:
    return Ranking(
        {
            query_id: (tuple(ids[position] for position in positions.tolist()), scores)
            for query_id, (positions, scores) in zip(queries.ids, found, strict=True)
        }
    )


def _places(ranking: Ranking, query_id: str) -> dict[str, tuple[int, float]]:
    ranked = zip(ranking.ids(query_id), ranking.scores(query_id).tolist(), strict=True)
    return {passage_id: (n, score) for n, (passage_id, score) in enumerate(ranked, start=1)}


def _manifest(folder: Path) -> dict[str, Any]:
    manifest = artifacts.read_manifest(folder, what="index")
    path = folder / artifacts.MANIFEST
    if manifest.get("kind") != KIND:
        raise DataError(f"{path}: not the manifest of a {KIND}, or damaged; build the index again")
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path}: index schema {manifest['schema_version']}, this version reads "
            f"{SCHEMA_VERSION}; build the index again"
        )
    return manifest
