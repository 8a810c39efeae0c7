"""Is a difference between two systems more than luck? Paired tests over the same queries.

Differences per query are mostly 0, the rest come in a few sizes: nothing here assumes a normal
distribution. Queries about one document are not independent; with `groups` whole groups are flipped
and drawn in place of queries. One seed gives one answer.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
ALPHA = 0.05
"""Largest sign-flip p that counts as more than luck; the counterpart of the 95% interval."""
_BLOCK = 1 << 17  # numbers drawn at once: 1 MB of indices, which stays in a core's cache


@dataclass(frozen=True)
class Difference:
    """System a minus system b, over n queries that both were measured on."""

    delta: float
    """Mean of the differences."""
    ci_low: float
    ci_high: float
    """Ends of the 95% interval of `delta`."""
    p: float
    """Two-sided p of the hypothesis that the two labels could be swapped on every query."""
    wins: int
    """Queries where a is above b."""
    ties: int
    losses: int
    n: int
    groups: int | None = None
    """Groups of queries that were flipped and drawn as one; None where each query stood alone."""


def _blocks(n: int, resamples: int) -> list[int]:
    """Rows of each block: `resamples` in all, about `_BLOCK` numbers a block."""
    rows = max(1, _BLOCK // n)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def _sign_flip_p(d: Floats, resamples: int, rng: np.random.Generator) -> float:
    """Share of random sign assignments at least as extreme as the one seen, itself counted in.

    p = (b + 1) / (B + 1), never 0: Phipson and Smyth 2010, "Permutation P-values should never be
    zero".
    """
    total = d.sum()
    # Assignments equal to the one seen differ from it by rounding; they count as extreme.
    bound = abs(total) - 1e-12 * np.abs(d).sum()
    width = -(-len(d) // 8)
    extreme = 0
    for rows in _blocks(len(d), resamples):
        random = np.frombuffer(rng.bytes(rows * width), np.uint8).reshape(rows, width)
        kept = np.unpackbits(random, axis=1, count=len(d)).astype(np.float64)
        # Keeping some signs and flipping the rest sums to kept - flipped = 2 kept - total.
        extreme += int(np.count_nonzero(np.abs(2.0 * (kept @ d) - total) >= bound))
    return (extreme + 1) / (resamples + 1)


def _bootstrap_ci(
    d: Floats, resamples: int, rng: np.random.Generator, *, sizes: Floats | None
) -> tuple[float, float]:
    """Percentile interval of the mean of queries drawn again with replacement.

    With `sizes`, d holds sums over groups of so many queries. A drawn group brings all its queries, so
    the mean is a ratio: the drawn sums over the drawn sizes.
    """
    means = []
    for rows in _blocks(len(d), resamples):
        drawn = rng.integers(0, len(d), size=(rows, len(d)))
        queries = len(d) if sizes is None else sizes.take(drawn).sum(axis=1)
        means.append(d.take(drawn).sum(axis=1) / queries)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(np.concatenate(means), (tail, 1.0 - tail))
    return float(low), float(high)


def _by_group(d: Floats, groups: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sums of the differences and numbers of queries, by group in order of appearance.

    Raises:
        ValueError: there is not one group a query, or one group only.
    """
    if len(groups) != len(d):
        raise ValueError(f"a group for each query is needed, found {len(groups)} for {len(d)}")
    number: dict[Hashable, int] = {}
    rows = np.array([number.setdefault(group, len(number)) for group in groups])
    if len(number) == 1 < len(d):
        raise ValueError(f"all {len(d)} queries are of one group; there is nothing to draw from")
    sums = np.asarray(np.bincount(rows, weights=d), np.float64)
    return sums, np.bincount(rows).astype(np.float64)


def paired_test(
    a: Floats,
    b: Floats,
    *,
    rng_seed: int,
    resamples: int = 10_000,
    groups: Sequence[Hashable] | None = None,
) -> Difference:
    """Compare two systems on the same queries: a minus b, with p and a 95% interval.

    p is that of the sign-flip (paired randomisation) test, which Smucker, Allan and Carterette
    (CIKM 2007) recommend for retrieval; the interval is the percentile bootstrap of the mean
    difference.

    With `groups` the labels of a whole group are swapped at once, and groups are drawn, each with all
    its queries (cluster bootstrap: Field and Welsh 2007, "Bootstrapping clustered data"). `delta` stays
    the mean over queries. Such an interval is too narrow where there are few groups: do not lean on
    one made from under about 20.

    Args:
        a: Values of one metric, float64 [queries].
        b: Values of the other system, on the same queries in the same order, float64 [queries].
        rng_seed: The only source of randomness.
        resamples: Sign assignments, and bootstrap samples.
        groups: The group of each query, such as its document; None: each query stands alone. Where
            each has a group of its own the figures are the same as without.

    Raises:
        ValueError: the shapes differ, there is no query, or all queries are of one group.
    """
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise ValueError(f"two columns of one length are needed, found {a.shape} and {b.shape}")
    d = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    signs, samples = (np.random.default_rng(s) for s in np.random.SeedSequence(rng_seed).spawn(2))
    units, sizes = (d, None) if groups is None else _by_group(d, groups)
    low, high = _bootstrap_ci(units, resamples, samples, sizes=sizes)
    return Difference(
        delta=float(d.mean()),
        ci_low=low,
        ci_high=high,
        p=_sign_flip_p(units, resamples, signs),
        wins=int(np.count_nonzero(d > 0)),
        ties=int(np.count_nonzero(d == 0)),
        losses=int(np.count_nonzero(d < 0)),
        n=len(d),
        groups=None if sizes is None else len(sizes),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for having asked several questions, in the order given.

    Step-down Bonferroni (Holm 1979): the i-th smallest of m is multiplied by m - i (i from 0),
    is never below a smaller one's, and never above 1.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for i, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[position] * (len(p_values) - i)))
        adjusted[position] = largest
    return adjusted


def smallest_detectable(std: float, n: int) -> float:
    """Half-width of the 95% interval of a mean difference: 1.96 * std / sqrt(n).

    Args:
        std: Standard deviation of the differences per query.
        n: Number of queries, at least 1.
    """
    return 1.96 * std / math.sqrt(n)
