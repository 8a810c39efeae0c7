"""What a test set can tell, said before any training: a difference under it is lost in noise."""

from __future__ import annotations

import math

PAIRED_DEVIATION = 0.337
"""Standard deviation, over queries, of the difference of recall@10 between two systems.

From half-widths of 95% intervals seen on real pairs of systems, which are 1.96 sd / sqrt(n): 9.3
points at n = 50, 6.6 at 100, 4.7 at 200, 3.0 at 500 and 2.1 at 1,000 give .336, .337, .339, .342
and .339, and .337 gives each of the five back when rounded. It means that about one query in nine
is found by one system and not by the other. Systems that agree more resolve more.
"""
MIN_TRAIN_PAIRS = 500
MIN_TEST_QUERIES = 200
_Z_CONFIDENCE = 1.96
_Z_POWER = 0.84
_WHOLE = 2.5


def smallest_difference(queries: int, *, deviation: float = PAIRED_DEVIATION) -> float:
    """The smallest true difference of recall@10 that a paired test most likely detects.

    (1.96 + 0.84) sd / sqrt(n): two-sided at 95% confidence, with a power of 80% (Cohen 1988,
    "Statistical Power Analysis for the Behavioral Sciences", chapter 2).

    Args:
        queries: Test queries, 1 at least.
        deviation: Standard deviation over queries of the paired difference, in [0, 1].

    Returns:
        A difference of recall, so that 0.04 is four points.

    Raises:
        ValueError: there are no queries.
    """
    if queries < 1:
        raise ValueError(f"{queries} test queries: at least one is needed")
    return (_Z_CONFIDENCE + _Z_POWER) * deviation / math.sqrt(queries)


def power_sentence(queries: int, *, deviation: float = PAIRED_DEVIATION) -> str:
    """`smallest_difference` as a sentence for people, in points of recall@10."""
    points = 100 * smallest_difference(queries, deviation=deviation)
    shown = f"{points:.0f}" if points >= _WHOLE else f"{points:.1f}"
    noun = "query" if queries == 1 else "queries"
    return (
        f"With {queries:,} test {noun}, differences of recall@10 under about {shown} points "
        "cannot be told from noise."
    )


def warnings(train_pairs: int, test_queries: int) -> list[str]:
    """What is too little to train or to measure on: a sentence for each, none where all is well."""
    found = []
    if train_pairs < MIN_TRAIN_PAIRS:
        found.append(
            f"{train_pairs:,} train pairs are few (under {MIN_TRAIN_PAIRS}): tuning may win little or "
            "nothing; bring more labels or more documents"
        )
    if test_queries < MIN_TEST_QUERIES:
        found.append(
            f"{test_queries:,} test queries are few (under {MIN_TEST_QUERIES}): only large "
            "differences will show; label more queries for test"
        )
    return found
