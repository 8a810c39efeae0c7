"""What a generated pair must pass: its query neither copies what it must find nor misses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval_ft.config import PairsConfig
from retrieval_ft.dataset import Corpus
from retrieval_ft.mining.generate import words
from retrieval_ft.mining.generate.types import Dropped, Filtered, GeneratedPair


def shown(pair: GeneratedPair, corpus: Corpus) -> str:
    """What the query must find: the view, or the passage as it is indexed where there is none."""
    return pair.view if pair.view is not None else corpus.passages[corpus.index_of[pair.passage_id]]


def overlap(query: str, text: str) -> float:
    """Share of the query's distinct words, stop words aside, that stand in a text; 0 without any."""
    asked = words.content_words(query)
    return len(asked & words.content_words(text)) / len(asked) if asked else 0.0


def check_overlap(
    pairs: Sequence[GeneratedPair], corpus: Corpus, *, config: PairsConfig
) -> Filtered:
    """Drop ("too_easy") pairs whose query shares over `config.max_overlap` of its words."""
    shares = [overlap(pair.query, shown(pair, corpus)) for pair in pairs]
    return _split(pairs, shares, ceiling=config.max_overlap, reason="too_easy")


def check_round_trip(
    pairs: Sequence[GeneratedPair], ranks: npt.NDArray[np.float64], *, config: PairsConfig
) -> Filtered:
    """Drop ("not_found") pairs that the base hybrid ranks below `config.round_trip_k`.

    Args:
        pairs: whose views were ranked.
        ranks: float64 [pairs], from `hybrid_ranks`.
        config: the rank that is needed.
    """
    return _split(pairs, ranks.tolist(), ceiling=config.round_trip_k, reason="not_found")


def _split(
    pairs: Sequence[GeneratedPair], values: Sequence[float], *, ceiling: float, reason: str
) -> Filtered:
    judged = list(zip(pairs, values, strict=True))
    return Filtered(
        tuple(pair for pair, value in judged if value <= ceiling),
        tuple(Dropped(pair, reason, value) for pair, value in judged if not value <= ceiling),
    )


def account(*steps: Filtered) -> dict[str, dict[str, int]]:
    """Count by kind what filters dropped, by reason, and what the last of them kept."""
    counts: dict[str, Counter[str]] = {}
    for step in steps:
        for dropped in step.dropped:
            counts.setdefault(dropped.pair.kind, Counter())[dropped.reason] += 1
    for pair in steps[-1].kept if steps else ():
        counts.setdefault(pair.kind, Counter())["kept"] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}


def describe(overlapping: Filtered, tripped: Filtered, *, config: PairsConfig) -> str:
    """One line on what both filters dropped, with the shares and what to change.

    Args:
        overlapping: from `check_overlap`.
        tripped: from `check_round_trip`, of what that kept.
        config: what they were asked.
    """
    made = len(overlapping.kept) + len(overlapping.dropped)
    easy, lost, kept = len(overlapping.dropped), len(tripped.dropped), len(tripped.kept)
    line = (
        f"{kept} of {made} generated pairs kept; {easy} dropped ({_percent(easy, made)}) because over "
        f"{config.max_overlap:.0%} of the query's words stand in what it must find "
        f"(pairs.max_overlap), {lost} ({_percent(lost, made)}) because the base hybrid does not rank "
        f"it in its first {config.round_trip_k} (pairs.round_trip_k)"
    )
    return line if 2 * kept >= made else f"{line}; terse passages need a higher pairs.max_overlap"


def _percent(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.0%}"
