"""Rankings put in the order of a cross-encoder: what reading query and passage together would bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset import Corpus, Ranking
from retrieval_ft.index import rerank
from retrieval_ft.index.hybrid import Hit
from retrieval_ft.pipeline.workbench import Workbench

if TYPE_CHECKING:
    from retrieval_ft.encoder.cross_encoder import CrossEncoder

RERANK = "_rerank"
"""After the name of the system whose hits were put in a new order."""


def reranked(
    rankings: Mapping[str, Ranking], bench: Workbench, judge: CrossEncoder, *, first: int
) -> dict[str, Ranking]:
    """Put the first hits of each system in the order of a cross-encoder, the others behind them.

    Systems share most of their hits, so a (query, passage) pair is read once for all of them. Scores
    are 1 / rank: those of a cross-encoder and those of a search cannot be laid side by side.

    Returns:
        Rankings by the name of their system with `_rerank` after it.
    """
    queries, corpus = bench.dataset.queries_of("test"), bench.corpus_of("test")
    hits = {
        name: [_hits(corpus, ranking.ids(q)[:first]) for q in queries.ids]
        for name, ranking in rankings.items()
    }
    asked: dict[tuple[str, str], None] = {}

    def collect(texts: Sequence[str], passages: Sequence[str]) -> npt.NDArray[np.float32]:
        asked.update(dict.fromkeys(zip(texts, passages, strict=True)))
        return np.zeros(len(texts), np.float32)

    for found in hits.values():
        rerank(queries.texts, found, scores=collect, first=first)
    texts, passages = zip(*asked, strict=True) if asked else ((), ())
    score_of = dict(zip(asked, judge.scores(texts, passages).tolist(), strict=True))

    def known(texts: Sequence[str], passages: Sequence[str]) -> npt.NDArray[np.float32]:
        pairs = zip(texts, passages, strict=True)
        return np.array([score_of[pair] for pair in pairs], np.float32)

    return {
        name + RERANK: _joined(
            queries.ids, rerank(queries.texts, found, scores=known, first=first), rankings[name]
        )
        for name, found in hits.items()
    }


def _hits(corpus: Corpus, ids: Sequence[str]) -> list[Hit]:
    rows = ((p, corpus.index_of[p]) for p in ids)
    none = (None, None, None, None)
    return [Hit(p, 0.0, corpus.titles[row], corpus.texts[row], {}, *none) for p, row in rows]


def _joined(
    query_ids: Sequence[str], answers: Sequence[Sequence[Hit]], ranking: Ranking
) -> Ranking:
    """The hits that were read in their new order, then the rest in its old one."""
    hits = {}
    for query_id, read in zip(query_ids, answers, strict=True):
        ids = (*(hit.id for hit in read), *ranking.ids(query_id)[len(read) :])
        hits[query_id] = (ids, (1 / np.arange(1, len(ids) + 1)).astype(np.float32))
    return Ranking(hits)
