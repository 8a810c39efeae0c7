"""A second opinion on the first hits: a cross-encoder reads query and passage together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from retrieval_ft.dataset.types import whole_passage
from retrieval_ft.index.hybrid import Hit

Scores = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float32]]


def rerank(
    texts: Sequence[str], found: Sequence[Sequence[Hit]], *, scores: Scores, first: int
) -> list[list[Hit]]:
    """Put the first hits of each query in the order of a cross-encoder; the others stay behind them.

    Args:
        texts: the queries.
        found: hits of each, best first.
        scores: query texts and passage texts, pair by pair, to float32 [pairs].
        first: how many hits of each query are read.

    Returns:
        The hits, those read with their `rerank_score`, sorted by it, then by id.
    """
    pairs = [(text, hit) for text, hits in zip(texts, found, strict=True) for hit in hits[:first]]
    passages = [whole_passage(hit.title, hit.text) for _, hit in pairs]
    given = iter(scores([text for text, _ in pairs], passages).tolist() if pairs else [])
    answers = []
    for hits in found:
        read = [replace(hit, rerank_score=next(given)) for hit in hits[:first]]
        read.sort(key=lambda hit: (-(hit.rerank_score or 0.0), hit.id))
        answers.append([*read, *hits[first:]])
    return answers
