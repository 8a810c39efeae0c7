"""The scale that scores of negatives are judged on, and the score above which one is taken for false.

A candidate that the base model scores close to the positive is more likely an unlabelled positive
than a useful negative (RocketQA, arXiv 2010.08191; NV-Retriever, arXiv 2407.15831, keeps those under
95% of the positive's score). BGE cosines live in about [.6, 1], where 95% of the score means little,
so by default the margin is taken on a calibrated scale: 0 is the mean score of random pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import MiningConfig

_RANDOM_QUERIES = 2_000
_RANDOM_PER_QUERY = 20
_GATHERED = 1 << 22
"""Numbers of gathered passage vectors at a time (16 MB)."""


@dataclass(frozen=True)
class Calibration:
    """The base model's score distribution on this corpus; all are cosines."""

    random_mean: float
    positive_mean: float
    positive_floor: float
    """The configured low quantile of the scores of known positives."""

    def ceilings(
        self, positive_scores: npt.NDArray[np.float32], *, config: MiningConfig
    ) -> npt.NDArray[np.float64]:
        """The scores above which candidates are taken for false negatives.

        calibrated: mean + margin x (max(positive, floor) - mean), with the mean of random pairs;
        relative: positive - (1 - margin) x |positive|; absolute: positive - absolute_margin; none:
        infinity.

        Args:
            positive_scores: float32 [n], cosines of queries and positives.
            config: filter, margin, absolute_margin.

        Returns:
            float64 [n].
        """
        scores = positive_scores.astype(np.float64)
        if config.filter == "none":
            return np.full(len(scores), np.inf)
        if config.filter == "absolute":
            return scores - config.absolute_margin
        if config.filter == "relative":
            return scores - (1 - config.margin) * np.abs(scores)
        raised = np.maximum(scores, self.positive_floor) - self.random_mean
        return np.asarray(self.random_mean + config.margin * raised)


def calibrate(
    query_vectors: npt.NDArray[np.float32],
    passage_vectors: npt.NDArray[np.float32],
    *,
    queries: npt.NDArray[np.int64],
    known: npt.NDArray[np.float32],
    floor_quantile: float,
    seed: int,
) -> Calibration:
    """Measure the scores of known positives and of random pairs.

    Args:
        query_vectors: float32 [q, d], L2-normalised.
        passage_vectors: float32 [p, d], L2-normalised.
        queries: int64 [n], row in `query_vectors` of each known positive's query.
        known: float32 [n], their scores.
        floor_quantile: quantile of the positives' scores that becomes `positive_floor`.
        seed: of the random pairs.
    """
    chance = random_scores(query_vectors, passage_vectors, queries=np.unique(queries), seed=seed)
    return Calibration(
        random_mean=float(chance.mean(dtype=np.float64)),
        positive_mean=float(known.mean(dtype=np.float64)),
        positive_floor=float(np.quantile(known, floor_quantile)),
    )


def random_scores(
    query_vectors: npt.NDArray[np.float32],
    passage_vectors: npt.NDArray[np.float32],
    *,
    queries: npt.NDArray[np.int64],
    seed: int,
) -> npt.NDArray[np.float32]:
    """Cosines of queries and passages drawn at random, float32 [n, 20]; 2,000 queries at most.

    Args:
        query_vectors: float32 [q, d], L2-normalised.
        passage_vectors: float32 [p, d], L2-normalised.
        queries: int64, the rows of `query_vectors` to draw for.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    if len(queries) > _RANDOM_QUERIES:
        queries = np.sort(generator.choice(queries, _RANDOM_QUERIES, replace=False))
    drawn = generator.integers(len(passage_vectors), size=(len(queries), _RANDOM_PER_QUERY))
    return cosines(query_vectors, passage_vectors, queries, drawn)


def cosines(
    query_vectors: npt.NDArray[np.float32],
    passage_vectors: npt.NDArray[np.float32],
    queries: npt.NDArray[np.int64],
    passages: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Inner products of each query with its own passages, gathered a few at a time.

    Args:
        query_vectors: float32 [q, d].
        passage_vectors: float32 [p, d]; may be a `np.memmap`.
        queries: int64 [n], rows of `query_vectors`.
        passages: int64 [n, c], rows of `passage_vectors`; negative ones are padding.

    Returns:
        float32 [n, c]; whatever stands at padding means nothing.
    """
    out = np.empty(passages.shape, np.float32)
    step = max(1, _GATHERED // max(1, passages.shape[1] * query_vectors.shape[1]))
    for start in range(0, len(out), step):
        part = slice(start, start + step)
        gathered = passage_vectors[np.maximum(passages[part], 0)]
        # One product at a time: a matrix product's last bit depends on the shape of the block.
        out[part] = np.vecdot(gathered, query_vectors[queries[part], None, :])
    return out
