"""Positive-aware hard negatives from the union of BM25 and dense candidates.

A candidate that the base model scores close to the positive is more likely an unlabelled positive
than a useful negative (RocketQA, arXiv 2010.08191; NV-Retriever, arXiv 2407.15831, keeps those under
95% of the positive's score). BGE cosines live in about [.6, 1], where 95% of the score means little,
so the margin is taken on a calibrated scale: 0 is the mean score of random (query, passage) pairs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import MiningConfig
from retrieval_ft.dataset import Corpus, Negative, Pair, Pairs, Qrels, Queries, Ranking

_WORD = re.compile(r"\w+")
_RANDOM_PER_QUERY = 20
_RRF_K = 60


@dataclass(frozen=True)
class Calibration:
    """The base model's score distribution on this corpus; all are cosines."""

    random_mean: float
    positive_mean: float
    positive_floor: float
    """The configured low quantile of the scores of known positives."""

    def ceiling(self, positive_score: float, *, margin: float) -> float:
        """The score above which a candidate is taken for a false negative."""
        positive = max(positive_score, self.positive_floor)
        return self.random_mean + margin * (positive - self.random_mean)


@dataclass(frozen=True)
class MinedPairs:
    """Pairs with negatives, the account of mining, and the scale that it used."""

    pairs: Pairs
    calibration: Calibration
    dropped: tuple[Mapping[str, str | float], ...]
    """Every dropped candidate: query_id, positive_id, passage_id, score, reason."""


def calibrate(
    query_vectors: npt.NDArray[np.float32],
    passage_vectors: npt.NDArray[np.float32],
    *,
    positives: list[tuple[int, int]],
    floor_quantile: float,
    seed: int,
) -> Calibration:
    """Measure the scores of known positives and of random pairs.

    Args:
        query_vectors: float32 [q, d], L2-normalised.
        passage_vectors: float32 [p, d], L2-normalised.
        positives: (row in query_vectors, row in passage_vectors) of each known positive.
        floor_quantile: quantile of the positives' scores that becomes `positive_floor`.
        seed: of the random pairs.
    """
    rows, columns = (np.array(side) for side in zip(*positives, strict=True))
    known = _cosines(query_vectors, passage_vectors, rows, columns)
    generator = np.random.default_rng(seed)
    some = np.repeat(np.unique(rows), _RANDOM_PER_QUERY)
    drawn = generator.integers(len(passage_vectors), size=len(some))
    chance = _cosines(query_vectors, passage_vectors, some, drawn)
    return Calibration(
        random_mean=float(chance.mean()),
        positive_mean=float(known.mean()),
        positive_floor=float(np.quantile(known, floor_quantile)),
    )


def _cosines(
    queries: npt.NDArray[np.float32],
    passages: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    out = np.empty(len(rows))
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        out[part] = np.einsum("nd,nd->n", queries[rows[part]], passages[columns[part]])
    return out


def mine(
    corpus: Corpus,
    queries: Queries,
    *,
    qrels: Qrels,
    dense: Ranking,
    bm25: Ranking,
    query_vectors: npt.NDArray[np.float32],
    passage_vectors: npt.NDArray[np.float32],
    config: MiningConfig,
    seed: int,
) -> MinedPairs:
    """Give every (query, positive) its hard negatives; no pair is lost.

    Candidates are the first `config.depth` of each ranking, taken in the order of their reciprocal
    rank sum. A pair with too few survivors is filled with seeded random passages, which
    carry no rank.

    Args:
        corpus: every passage; row i of `passage_vectors` is its i-th.
        queries: the train queries; row i of `query_vectors` is the i-th.
        qrels: judgements of these queries.
        dense: dense candidates of each query.
        bm25: lexical candidates of each query.
        query_vectors: float32 [q, d], L2-normalised, of the base model.
        passage_vectors: float32 [p, d], L2-normalised, of the base model.
        config: depth, negatives, margin, floor, duplicates.
        seed: of the random pairs and of the filling.
    """
    row_of = {query_id: row for row, query_id in enumerate(queries.ids)}
    positives = [
        (row_of[query_id], corpus.index_of[passage_id])
        for query_id in queries.ids
        for passage_id in sorted(qrels.relevant(query_id))
    ]
    calibration = calibrate(
        query_vectors,
        passage_vectors,
        positives=positives,
        floor_quantile=config.floor_quantile,
        seed=seed,
    )
    miner = _Miner(corpus, config, calibration, np.random.default_rng(seed))
    items: list[Pair] = []
    for query_id in queries.ids:
        relevant = qrels.relevant(query_id)
        candidates = _candidates(dense.ids(query_id), bm25.ids(query_id), depth=config.depth)
        rows = [corpus.index_of[c] for c, _, _ in candidates]
        query = query_vectors[row_of[query_id]]
        scores = (passage_vectors[rows] @ query).tolist()
        found = [
            Negative(c, score, dense_rank, bm25_rank)
            for (c, dense_rank, bm25_rank), score in zip(candidates, scores, strict=True)
        ]
        for positive_id in sorted(relevant):
            score = float(passage_vectors[corpus.index_of[positive_id]] @ query)
            kept, refused = miner.select(query_id, positive_id, score, found, relevant)
            filled = miner.fill(kept, refused, relevant, query, passage_vectors)
            items.append(Pair(query_id, positive_id, score, filled))
    return MinedPairs(
        Pairs(tuple(items), dict(sorted(miner.counts.items()))), calibration, tuple(miner.dropped)
    )


def _candidates(
    dense: tuple[str, ...], bm25: tuple[str, ...], *, depth: int
) -> list[tuple[str, int | None, int | None]]:
    """Union of both lists: (id, dense rank, BM25 rank), by reciprocal rank sum, then id."""
    dense_rank = {passage_id: rank for rank, passage_id in enumerate(dense[:depth], start=1)}
    bm25_rank = {passage_id: rank for rank, passage_id in enumerate(bm25[:depth], start=1)}
    union = sorted(dense_rank.keys() | bm25_rank.keys())

    def strength(passage_id: str) -> float:
        ranks = (dense_rank.get(passage_id), bm25_rank.get(passage_id))
        return sum(1 / (_RRF_K + rank) for rank in ranks if rank is not None)

    union.sort(key=strength, reverse=True)
    return [(p, dense_rank.get(p), bm25_rank.get(p)) for p in union]


class _Miner:
    """Holds the account of drops while the pairs are made."""

    def __init__(
        self,
        corpus: Corpus,
        config: MiningConfig,
        calibration: Calibration,
        generator: np.random.Generator,
    ) -> None:
        self.corpus, self.config, self.calibration = corpus, config, calibration
        self.generator = generator
        self.counts: Counter[str] = Counter()
        self.dropped: list[Mapping[str, str | float]] = []
        self.words = lru_cache(maxsize=65_536)(self._words)

    def select(
        self,
        query_id: str,
        positive_id: str,
        positive_score: float,
        candidates: list[Negative],
        relevant: frozenset[str],
    ) -> tuple[list[Negative], set[str]]:
        """Keep the first candidates that no rule drops; record and return every drop before them."""
        ceiling = self.calibration.ceiling(positive_score, margin=self.config.margin)
        kept: list[Negative] = []
        refused: set[str] = set()
        for candidate in candidates:
            if len(kept) == self.config.negatives:
                break
            reason = self._reason(candidate, relevant, ceiling)
            if reason is None:
                kept.append(candidate)
                continue
            self.counts[reason] += 1
            refused.add(candidate.passage_id)
            if reason != "known_positive":
                self.dropped.append(
                    {
                        "query_id": query_id,
                        "positive_id": positive_id,
                        "passage_id": candidate.passage_id,
                        "score": round(candidate.score, 6),
                        "reason": reason,
                    }
                )
        return kept, refused

    def fill(
        self,
        kept: list[Negative],
        refused: set[str],
        relevant: frozenset[str],
        query: npt.NDArray[np.float32],
        passage_vectors: npt.NDArray[np.float32],
    ) -> tuple[Negative, ...]:
        """Add random passages until there are enough, or the corpus has no more.

        What was refused as a candidate does not come back as a random one, nor does a duplicate.
        """
        seen = {negative.passage_id for negative in kept} | refused | relevant
        while len(kept) < self.config.negatives and len(seen) < len(self.corpus):
            row = int(self.generator.integers(len(self.corpus)))
            passage_id = self.corpus.ids[row]
            if passage_id in seen:
                continue
            seen.add(passage_id)
            if self._duplicates_any(passage_id, relevant):
                continue
            kept.append(Negative(passage_id, float(passage_vectors[row] @ query), None, None))
        return tuple(kept)

    def _reason(self, candidate: Negative, relevant: frozenset[str], ceiling: float) -> str | None:
        if candidate.passage_id in relevant:
            return "known_positive"
        if candidate.score > ceiling:
            return "over_margin"
        if self._duplicates_any(candidate.passage_id, relevant):
            return "duplicate_of_positive"
        return None

    def _words(self, passage_id: str) -> frozenset[str]:
        text = self.corpus.passages[self.corpus.index_of[passage_id]]
        return frozenset(_WORD.findall(text.lower()))

    def _duplicates_any(self, candidate: str, positives: frozenset[str]) -> bool:
        words = self.words(candidate)
        return any(self._similar(words, self.words(positive)) for positive in positives)

    def _similar(self, a: frozenset[str], b: frozenset[str]) -> bool:
        return bool(a | b) and len(a & b) >= self.config.duplicate_jaccard * len(a | b)
